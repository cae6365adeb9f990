"""Published weights on photographs whose class everybody knows."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import skimage.data
import torch
from PIL import Image

from zoo.data.preprocess import prepare
from zoo.errors import CheckpointError, MissingCapabilityError
from zoo.model.build import FromPictures
from zoo.weights.bring_in import load_published
from zoo.weights.table import WEIGHTS, weights_of

# Index on ImageNet: any of the three cats, espresso, tripod.
PHOTOGRAPHS = {"chelsea": {281, 282, 285}, "coffee": {967}, "camera": {872}}


@pytest.mark.parametrize("row", [row for row in WEIGHTS if row.package], ids=lambda row: row.id)
def test_lite_names_real_photographs(row) -> None:  # type: ignore[no-untyped-def]
    pytest.importorskip(row.module, reason="needs the weights extra")
    model, card = load_published(row)
    run = FromPictures(model, card.preprocessing)
    for name, right in PHOTOGRAPHS.items():
        pixels = getattr(skimage.data, name)()
        photo = Image.fromarray(pixels).convert("RGB")
        with torch.inference_mode():
            logits = run(torch.from_numpy(np.array(prepare(photo, card.preprocessing)))[None])
        assert int(logits.argmax()) in right, (name, card.classes[int(logits.argmax())])
    assert card.provenance["licence"] == "Apache-2.0"


def test_a_missing_package_says_how_to_get_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("zoo.weights.cache.find_spec", lambda name: None)
    with pytest.raises(MissingCapabilityError) as caught:
        load_published(weights_of("lite0")[0])
    assert "zoo[weights]" in caught.value.hint


def test_another_file_is_not_opened(monkeypatch: pytest.MonkeyPatch) -> None:
    row = weights_of("lite0")[0]
    pytest.importorskip(row.module, reason="needs the weights extra")
    monkeypatch.setattr("torch.load", lambda *args, **kwargs: pytest.fail("the file was opened"))
    with pytest.raises(CheckpointError, match=r"is not the published file lite0\.imagenet1k"):
        load_published(replace(row, sha256_prefix="0" * 64))
