from __future__ import annotations

from pathlib import Path

import numpy as np
import torch

from train.learn.label_answers import merge_label_validations
from train.learn.scores import score_of
from train.learn.validation import validate_labels
from train.settings import Settings
from zoo.data.labels import read_labels
from zoo.weights.checkpoint import load_checkpoint

SETTINGS = Settings(device=torch.device("cpu"), precision="fp32", seed=0, workers=0)


def test_shares_of_several_processes_are_the_whole(shapes_run: Path, shapes: Path) -> None:
    model, card = load_checkpoint(shapes_run / "checkpoint.safetensors")
    val = read_labels(shapes).splits["val"]
    whole = validate_labels(model, val, card.preprocessing, SETTINGS)
    shares = [np.arange(rank, len(val), 3) for rank in range(3)]
    parts = [validate_labels(model, val, card.preprocessing, SETTINGS, share) for share in shares]
    joined = merge_label_validations(parts)
    assert joined.answers.index.tolist() == whole.answers.index.tolist() == list(range(20))
    assert np.array_equal(joined.answers.targets, val.all_targets())
    np.testing.assert_allclose(joined.answers.scores, whole.answers.scores, rtol=1e-5)
    np.testing.assert_allclose(joined.loss, whole.loss, rtol=1e-6)
    np.testing.assert_allclose(joined.map, whole.map)
    assert score_of(joined, "map") == (joined.map, -joined.loss)
    assert score_of(joined, "loss") == (-joined.loss, -joined.loss)


def test_a_broken_picture_is_left_out_of_the_answers(shapes_run: Path, shapes: Path, tmp_path: Path) -> None:
    (tmp_path / "broken.png").write_bytes(b"not a picture")
    lines = ["path,labels", "broken.png,circle", *(f"{shapes.parent}/{n}.png,square;triangle" for n in (190, 191))]
    (tmp_path / "labels.csv").write_text("\n".join(lines) + f"\n{shapes.parent}/192.png,circle\n")
    model, card = load_checkpoint(shapes_run / "checkpoint.safetensors")
    pictures = read_labels(tmp_path / "labels.csv").splits[""]
    found = validate_labels(model, pictures, card.preprocessing, SETTINGS)
    assert found.answers.index.tolist() == [1, 2, 3]
    assert len(found.broken) == 1 and "broken.png" in found.broken[0]
