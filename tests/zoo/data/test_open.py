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
from zoo.data.folder import read_folder
from zoo.data.open import open_splits, open_test, open_val, remarks
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
        (["train/a/x.jpg", "train/b/x.jpg", "val/a/x.jpg", "val/c/x.jpg"], "classes that .*train has not: c"),
    ],
)
def test_unusable_folders_say_why(layout: list[str], message: str, tmp_path: Path) -> None:
    for name in layout:
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_bytes(b"x")
    with pytest.raises(DataError, match=message):
        open_splits(str(tmp_path))


def test_one_group_of_all_pictures_is_named_as_what_hinders(picture_folder: Path) -> None:
    """As those of a file of labels whose pictures lie in one folder: more pictures would change nothing."""
    with pytest.raises(DataError, match=r"--group-by \. makes 1 group of its \d+ pictures"):
        open_splits(str(picture_folder / "train"), group_by=".")


def test_val_and_test_may_lack_classes(picture_folder: Path, tmp_path: Path) -> None:
    """Of a rare class no picture may be left to look at; labels stay those of the training classes."""
    root = shutil.copytree(picture_folder, tmp_path / "copy")
    shutil.copytree(root / "val" / "red", root / "test" / "red")
    shutil.rmtree(root / "val" / "blue")
    shutil.rmtree(root / "val" / "green")
    train, val = open_splits(str(root))
    test = open_test(str(root), train.classes)
    assert test and train.classes == val.classes == test.classes
    red = train.classes.index("red")
    assert set(val.labels) == set(test.labels) == {red}
    assert remarks(train, val)[-1] == (
        "Each of the classes blue, green has no picture to validate on: how well it is told from others is not known."
    )
    assert set(open_val(str(root), seed=0).labels) == {red} and open_val(str(root / "val")).classes == ("red",)
    shutil.rmtree(root / "train" / "red")
    shutil.copytree(root / "val" / "red", root / "val" / "green")
    with pytest.raises(DataError, match=r"val has classes that .*train has not: red\."):
        open_splits(str(root))


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
    (root / "train" / "red" / "scan.JXL").write_bytes(b"\0\0\0\x0cJXL \r\n\x87\n")
    train, _ = open_splits(str(root))
    assert len(train) == 37
    _, _, broken = load_prepared(train, Preprocessing(image_size=16))
    assert len(broken) == 1 and "scan.JXL is not a picture this project reads" in broken[0]


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


def test_a_fifth_of_every_class_is_held_out_whatever_the_folders_inside(tmp_path: Path) -> None:
    """CLASS/ID/photo.jpg: all names are alike, the path below the class is not."""
    for name in ("car", "cat", "dog"):
        for number in range(10):
            (tmp_path / name / f"{number:03d}").mkdir(parents=True)
            (tmp_path / name / f"{number:03d}" / "photo.jpg").touch()
    train, val = open_splits(str(tmp_path))
    assert np.bincount(train.labels).tolist() == [8, 8, 8]
    assert np.bincount(val.labels).tolist() == [2, 2, 2]
    assert {source.parent.name for source in val.sources} != {"000", "001"}


def test_a_group_stays_on_one_side(tmp_path: Path) -> None:
    for number in range(40):
        folder = tmp_path / "ab"[number % 2] / f"patient{number // 4}"
        folder.mkdir(parents=True, exist_ok=True)
        (folder / f"{number}.jpg").touch()
    for group_by in ("parent", r"^(patient\d+)/"):
        train, val = open_splits(str(tmp_path), group_by=group_by)
        assert np.bincount(val.labels).tolist() == [4, 4]
        assert not {source.parent.name for source in train.sources} & {source.parent.name for source in val.sources}
        assert open_val(str(tmp_path), seed=0, group_by=group_by).sources == val.sources
    with pytest.raises(DataError, match="finds no group in names such as 'patient0/0"):
        open_splits(str(tmp_path), group_by="hospital")
    with pytest.raises(DataError, match="is no regular expression"):
        open_splits(str(tmp_path), group_by="(")


def test_groups_of_data_that_is_divided_already_are_refused(picture_folder: Path) -> None:
    for data in (str(picture_folder), "digits"):
        with pytest.raises(DataError, match="--group-by has no effect"):
            open_splits(data, group_by="parent")


def test_what_is_left_out_of_a_folder_is_said(tmp_path: Path) -> None:
    for name in ("cat/1.jpg", "cat/2.jfif", "dog/1.tif", "dog/2.AVIF", "dog/notes.txt", "loose.png"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).touch()
    for name in ("cat/.ipynb_checkpoints/1.jpg", "dog/@eaDir/1.jpg", "dog/._1.jpg", "dog/Thumbs.db", "__MACOSX/1.jpg"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).touch()
    (tmp_path / "eel").mkdir()
    (tmp_path / "more").mkdir()
    (tmp_path / "more" / "3.jpg").touch()
    (tmp_path / "cat" / "linked").symlink_to(tmp_path / "more")
    (tmp_path / "cat" / "again").symlink_to(tmp_path / "cat")
    (tmp_path / "dog" / "up").symlink_to(tmp_path)  # where all classes are
    (tmp_path / "cat" / "gone.jpg").symlink_to(tmp_path / "nowhere.jpg")
    pictures = read_folder(tmp_path)
    assert pictures.classes == ("cat", "dog", "more")
    assert np.bincount(pictures.labels).tolist() == [3, 2, 1]
    assert set(pictures.left_out) == {
        "5 hidden or system files and folders",
        "1 .txt files, which are no pictures",
        "2 links to folders that are read already",
        "1 links that lead nowhere",
        "1 pictures beside the folders of classes",
        "eel/, which has no pictures: it is no class",
    }


def test_names_that_are_not_utf8_are_names(tmp_path: Path) -> None:
    for name in (b"caf\xe9", b"dog"):
        folder = os.fsencode(tmp_path) + b"/" + name
        Path(os.fsdecode(folder)).mkdir()
        for number in range(5):
            Image.new("RGB", (8, 8)).save(os.fsdecode(folder + b"/\xe9%d.png" % number))
    train, val = open_splits(str(tmp_path))
    assert train.classes == ("caf\\xe9", "dog")
    assert len(val) == 2
    assert train.describe(0).isprintable()
    assert "\\xe9" in train.describe(0)
    assert train.open(0).size == (8, 8)


def test_names_that_only_unicode_tells_apart_are_named_as_such(tmp_path: Path) -> None:
    for name in ("caf\u00e9", "cafe\u0301"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "1.jpg").touch()
    with pytest.raises(DataError, match=r"Unicode writes in two ways \('cafe\\u0301' and 'caf\\xe9'\)"):
        open_splits(str(tmp_path))
    for split, name in (("train", "caf\u00e9"), ("val", "cafe\u0301")):
        for each in (name, "dog"):
            (tmp_path / "parted" / split / each).mkdir(parents=True)
            (tmp_path / "parted" / split / each / "1.jpg").touch()
    with pytest.raises(DataError, match="Unicode writes in two ways"):
        open_splits(str(tmp_path / "parted"))
