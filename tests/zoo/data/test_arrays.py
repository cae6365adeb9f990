from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from zoo.data.open import open_splits, open_val
from zoo.errors import DataError

RNG = np.random.default_rng(0)
RGB = RNG.integers(0, 256, (40, 8, 10, 3), dtype=np.uint8)
LABELS = np.arange(40) % 4


def test_keras_s_names_are_the_splits(tmp_path: Path) -> None:
    path = tmp_path / "cifar.npz"
    np.savez(path, x_train=RGB, y_train=LABELS[:, None].astype(np.uint8), x_test=RGB[:8], y_test=LABELS[:8, None])
    train, val = open_splits(str(path))
    assert (len(train), len(val), train.classes) == (40, 8, ("0", "1", "2", "3"))
    assert np.array_equal(np.asarray(train.open(5)), RGB[5])
    assert np.array_equal(val.labels, LABELS[:8])
    assert len(open_val(str(path))) == 8
    assert train.flip_keeps_class


def test_one_pair_is_split_by_seed(tmp_path: Path) -> None:
    path = tmp_path / "one.npz"
    np.savez(path, x=RGB[..., 0], y=LABELS, classes=np.array(["a", "b", "c", "d"]), flip_keeps_class=False)
    train, val = open_splits(str(path), seed=1)
    assert len(train) + len(val) == 40
    assert 0 < len(val) < 20
    assert train.classes == ("a", "b", "c", "d")
    assert not train.flip_keeps_class
    assert np.asarray(train.open(0)).shape == (8, 10, 3)
    again = open_splits(str(path), seed=1)[1]
    assert np.array_equal(again.labels, val.labels)


@pytest.mark.parametrize(
    ("arrays", "message"),
    [
        ({"pictures": RGB}, "has pictures"),
        ({"x": RGB.astype(np.float32), "y": LABELS}, "float32"),
        ({"x": RGB, "y": LABELS[:5]}, r"\(5,\)"),
        ({"x": RGB, "y": LABELS - 1}, "labels"),
        ({"x": RGB, "y": LABELS, "classes": np.array(["a", "b"])}, "labels up to 3 and 2 classes"),
        ({"x": RGB, "y": np.array([{}] * 40, dtype=object)}, "not readable"),
    ],
)
def test_other_arrays_say_what_is_expected(arrays: dict[str, np.ndarray], message: str, tmp_path: Path) -> None:
    path = tmp_path / "odd.npz"
    np.savez(path, **arrays)
    with pytest.raises(DataError, match=message) as caught:
        open_splits(str(path))
    assert caught.value.hint


def test_text_is_no_array_file(tmp_path: Path) -> None:
    path = tmp_path / "text.npz"
    path.write_text("no")
    with pytest.raises(DataError, match="not readable"):
        open_splits(str(path))


def test_arrays_are_checked_packed_and_trained_on(zoo: Callable, in_folder: Path) -> None:
    np.savez("all.npz", x=RGB, y=LABELS)
    found = json.loads(zoo("data", "check", "all.npz", "--json").out)
    assert (sum(found["splits"].values()), found["broken"]) == (40, [])
    packed = zoo("data", "pack", "all.npz", "-o", "shards", "--size", 16, "--json")
    assert packed.code == 0, packed.err
    trained = zoo("train", "tiny", "--data", "all.npz", "--epochs", 4, "--image-size", 16, "--batch-size", 8)
    assert trained.code == 0, trained.err
