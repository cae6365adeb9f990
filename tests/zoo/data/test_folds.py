"""Which pictures are in which fold: of every class as many as can be, groups whole, the same for a seed."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.conftest import write_pictures
from zoo.data.folds import choose_folds, fold_rule, open_fold, open_folds, read_fold_rule
from zoo.errors import DataError


@given(counts=st.lists(st.integers(1, 40), min_size=2, max_size=8), folds=st.integers(2, 10), seed=st.integers(0, 1000))
def test_folds_differ_by_one_picture_of_each_class_and_in_all(counts: list[int], folds: int, seed: int) -> None:
    labels = np.repeat(np.arange(len(counts)), counts)
    names = [f"{index}.jpg" for index in range(len(labels))]
    classes = tuple(map(str, range(len(counts))))
    fold = choose_folds(names, labels, classes, folds, seed=seed)
    assert set(fold.tolist()) <= set(range(1, folds + 1))
    for label in range(len(counts)):
        sizes = np.bincount(fold[labels == label], minlength=folds + 1)[1:]
        assert sizes.max() - sizes.min() <= 1
    sizes = np.bincount(fold, minlength=folds + 1)[1:]
    assert sizes.max() - sizes.min() <= 1
    assert np.array_equal(fold, choose_folds(names, labels, classes, folds, seed=seed))


@given(
    groups=st.lists(st.tuples(st.integers(1, 12), st.integers(0, 2)), min_size=4, max_size=30),
    folds=st.integers(2, 4),
)
def test_groups_stay_whole_and_every_fold_has_some(groups: list[tuple[int, int]], folds: int) -> None:
    names = [f"g{number:03d}/{index}.jpg" for number, (size, _) in enumerate(groups) for index in range(size)]
    labels = np.array([label for size, label in groups for _ in range(size)])
    fold = choose_folds(names, labels, ("a", "b", "c"), folds, seed=0, group_by="parent")
    of_group: dict[str, set[int]] = {}
    for name, number in zip(names, fold.tolist(), strict=True):
        of_group.setdefault(name.partition("/")[0], set()).add(number)
    assert all(len(numbers) == 1 for numbers in of_group.values())
    assert set(fold.tolist()) == set(range(1, folds + 1))


def test_groups_are_stratified_as_well_as_can_be() -> None:
    """Twenty groups of a rare class and forty of a frequent one, in five folds: four and eight each."""
    names = [f"g{number}/{index}.jpg" for number in range(60) for index in range(3)]
    labels = np.repeat([0] * 20 + [1] * 40, 3)
    fold = choose_folds(names, labels, ("rare", "frequent"), 5, seed=1, group_by="parent")
    assert np.bincount(fold[labels == 0])[1:].tolist() == [12] * 5
    assert np.bincount(fold[labels == 1])[1:].tolist() == [24] * 5


def test_train_and_val_are_divided_together_and_test_is_left_alone(picture_folder: Path, tmp_path: Path) -> None:
    write_pictures(tmp_path / "train", ("a", "b"), 6)
    write_pictures(tmp_path / "val", ("a", "b"), 3, seed=1)
    write_pictures(tmp_path / "test", ("a", "b"), 4, seed=2)
    folds = open_folds(f"{tmp_path}/", 3)
    assert len(folds.pictures) == 18
    assert not any("test" in Path(str(source)).relative_to(tmp_path).parts for source in folds.pictures.sources)
    held_out = [open_fold(str(tmp_path), number, 3)[1] for number in (1, 2, 3)]
    sources = [str(source) for val in held_out for source in val.sources]
    assert len(sources) == len(set(sources)) == 18
    train, val = folds.splits(2)
    assert not set(map(str, train.sources)) & set(map(str, val.sources)) and len(train) + len(val) == 18


def test_several_labels_are_divided_by_the_rarest(shapes: Path) -> None:
    folds = open_folds(str(shapes), 4)
    assert len(folds.pictures) == 180  # the twentieth part is test's
    counts = np.array([folds.splits(number)[1].class_counts() for number in range(1, 5)])
    rarest = counts[:, counts.sum(0).argmin()]
    assert rarest.max() - rarest.min() <= 1


def test_too_few_pictures_are_said(tmp_path: Path) -> None:
    write_pictures(tmp_path, ("a", "b"), 6)
    write_pictures(tmp_path, ("few",), 3)
    write_pictures(tmp_path, ("one",), 1)
    said = open_folds(str(tmp_path), 5).remarks()
    assert said == (
        "Classes few, one: fewer pictures than the 5 folds, so that some folds have none to validate on.",
        "Class one: only in one fold, whose run is not trained on it.",
    )
    with pytest.raises(DataError, match="16 pictures for 17 folds"):
        open_folds(str(tmp_path), 17)
    with pytest.raises(DataError, match="--folds 1 holds nothing out"):
        open_folds(str(tmp_path), 1)


def test_fewer_groups_than_folds_are_refused(tmp_path: Path) -> None:
    write_pictures(tmp_path, ("a", "b"), 4)
    with pytest.raises(DataError, match="--group-by finds 1 group for 3 folds"):
        open_folds(str(tmp_path), 3, group_by="^(0)")


def test_shards_are_refused(zoo: Callable[..., Any], picture_folder: Path, tmp_path: Path) -> None:
    assert zoo("data", "pack", picture_folder, "-o", tmp_path / "shards", "--model", "tiny").code == 0
    with pytest.raises(DataError, match="does not divide shards"):
        open_folds(str(tmp_path / "shards"), 3)


def test_the_rule_is_recorded_and_read_again() -> None:
    assert read_fold_rule(fold_rule(2, 5)) == (2, 5)
    assert read_fold_rule("stratified") is None and read_fold_rule(None) is None
