from __future__ import annotations

import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from zoo.data.digits import sample_photographs
from zoo.data.open import open_splits, open_val
from zoo.data.pictures import load_prepared
from zoo.errors import DataError
from zoo.model.spec import Preprocessing


def test_what_training_held_out_is_what_is_evaluated(tmp_path: Path) -> None:
    """Of a folder without a split: a fifth by the seed, all of it without one; hidden files are no pictures."""
    for number in range(40):
        path = tmp_path / "ab"[number % 2] / f"{number:03d}.png"
        path.parent.mkdir(exist_ok=True)
        Image.new("RGB", (8, 8), (number, 0, 0)).save(path)
    (tmp_path / "a" / "._000.jpg").write_bytes(b"what macOS leaves")
    held_out = open_splits(str(tmp_path), seed=3)[1]
    assert open_val(str(tmp_path), seed=3).sources == held_out.sources
    assert len(held_out) < len(open_val(str(tmp_path))) == 40


def test_digits_have_a_fixed_stratified_split() -> None:
    train, val = open_splits("digits", seed=5)
    again = open_splits("digits", seed=6)
    assert (len(train), len(val)) == (1437, 360)
    assert np.array_equal(val.labels, again[1].labels)
    assert np.bincount(val.labels).tolist() == [36, 36, 35, 37, 36, 37, 36, 36, 35, 36]
    assert not train.flip_keeps_class


def test_folder_with_splits(picture_folder: Path) -> None:
    train, val = open_splits(str(picture_folder))
    assert train.classes == val.classes == ("blue", "green", "red")
    assert (len(train), len(val)) == (36, 18)
    assert train.flip_keeps_class


def test_folder_without_splits_is_split_by_name_and_seed(picture_folder: Path) -> None:
    root = picture_folder / "train"
    train, val = open_splits(str(root), seed=3)
    assert len(train) + len(val) == 36
    assert not set(train.sources) & set(val.sources)
    assert open_splits(str(root), seed=3)[1].sources == val.sources
    assert open_splits(str(root), seed=4)[1].sources != val.sources


def test_adding_a_picture_moves_no_other(picture_folder: Path, tmp_path: Path) -> None:
    root = tmp_path / "grown"
    shutil.copytree(picture_folder / "train", root)
    before = {path.name for path in open_splits(str(root))[1].sources if path.parent.name == "red"}
    shutil.copy(root / "red" / "000.jpg", root / "red" / "zzz.jpg")
    after = {path.name for path in open_splits(str(root))[1].sources if path.parent.name == "red"}
    assert before == after - {"zzz.jpg"}


def test_evaluation_takes_val_or_the_whole_folder(picture_folder: Path) -> None:
    assert len(open_val(str(picture_folder))) == 18
    assert len(open_val(str(picture_folder / "val"))) == 18


@pytest.mark.parametrize(
    ("layout", "message"),
    [
        ([], "no pictures"),
        (["a/x.jpg"], "one class only"),
        (["train/a/x.jpg", "train/b/x.jpg", "val/a/x.jpg", "val/c/x.jpg"], "differ in their classes: b, c"),
    ],
)
def test_unusable_folders_say_why(layout: list[str], message: str, tmp_path: Path) -> None:
    for name in layout:
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_bytes(b"x")
    with pytest.raises(DataError, match=message):
        open_splits(str(tmp_path))


def test_a_class_that_cannot_be_listed_is_an_error(
    picture_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A stand-in refuses: to a superuser, as in many a container, no folder is closed."""
    root = Path(shutil.copytree(picture_folder, tmp_path / "copy"))
    closed, scandir = root / "train" / "green", os.scandir

    def refuse(path: str | Path) -> Any:
        if Path(path) == closed:
            raise PermissionError(13, "Permission denied", str(path))
        return scandir(path)

    monkeypatch.setattr(os, "scandir", refuse)
    with pytest.raises(DataError, match="green cannot be read: Permission denied"):
        open_splits(str(root))


def test_missing_folder() -> None:
    with pytest.raises(DataError, match="no folder nowhere"):
        open_splits("nowhere")


def test_broken_pictures_are_named_and_the_rest_goes_on(picture_folder: Path, tmp_path: Path) -> None:
    root = tmp_path / "damaged"
    shutil.copytree(picture_folder / "val", root)
    (root / "green" / "002.jpg").write_bytes(b"\xff\xd8\xff damaged")
    prepared, indices, broken = load_prepared(open_val(str(root)), Preprocessing(image_size=16))
    assert prepared.shape == (17, 16, 16, 3)
    assert 8 not in indices
    assert len(broken) == 1
    assert "002.jpg" in broken[0]


def test_pictures_of_a_type_that_is_not_read_are_named_not_passed_over(picture_folder: Path, tmp_path: Path) -> None:
    root = tmp_path / "copy"
    shutil.copytree(picture_folder, root)
    Image.new("RGB", (8, 8)).save(root / "train" / "red" / "scan.TIF")
    train, _ = open_splits(str(root))
    assert len(train) == 37
    _, _, broken = load_prepared(train, Preprocessing(image_size=16))
    assert len(broken) == 1 and "scan.TIF is not a picture this project reads" in broken[0]


def test_head_spreads_over_the_classes(picture_folder: Path) -> None:
    assert set(open_val(str(picture_folder)).head(6).labels.tolist()) == {0, 1, 2}


def test_sample_photographs_are_real_pictures() -> None:
    tiles = sample_photographs()
    assert len(tiles) == 30
    assert all(np.asarray(tile).std() > 5 for tile in tiles.sources)


@pytest.mark.parametrize("open_data", [open_splits, open_val])
def test_an_empty_name_is_not_the_current_folder(
    open_data: Callable, picture_folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(picture_folder)
    with pytest.raises(DataError, match="--data is empty"):
        open_data("")
