"""A fifth of every class is held out: to the nearest picture, with whole groups, and without moving other classes."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

from zoo.data.hold_out import choose_held_out, only_on_one_side, rarest_label
from zoo.errors import DataError

Sizes = st.lists(st.integers(0, 40), min_size=1, max_size=8)


def data_of(sizes: list[int]) -> tuple[list[str], NDArray[np.int64], list[str]]:
    labels = np.repeat(np.arange(len(sizes)), sizes).astype(np.int64)
    names = [f"{number // 3}/photo{number % 3}.jpg" for size in sizes for number in range(size)]
    return names, labels, [f"class {label}" for label in range(len(sizes))]


@given(Sizes, st.integers(0, 5))
def test_every_class_is_on_both_sides_within_one_picture_of_a_fifth(sizes: list[int], seed: int) -> None:
    names, labels, classes = data_of(sizes)
    held_out = choose_held_out(names, labels, classes, seed=seed)
    for label, size in enumerate(sizes):
        held = int(held_out[labels == label].sum())
        assert abs(held - size / 5) <= 1
        if size >= 2:
            assert 0 < held < size
        assert held < max(size, 1)
    train, val = (np.bincount(labels[side], minlength=len(sizes)) for side in (~held_out, held_out))
    assert only_on_one_side(train, val, classes) == [
        name for name, size in zip(classes, sizes, strict=True) if size < 2
    ]


@given(Sizes, st.integers(1, 30))
def test_what_is_added_to_one_class_moves_nothing_in_another(sizes: list[int], more: int) -> None:
    before = choose_held_out(*data_of(sizes), seed=0)
    grown = [sizes[0] + more, *sizes[1:]]
    after = choose_held_out(*data_of(grown), seed=0)
    assert np.array_equal(before[sizes[0] :], after[grown[0] :])
    # In its own class at most one for each new one.
    assert (before[: sizes[0]] & ~after[: sizes[0]]).sum() <= more


def test_the_order_of_the_files_and_of_the_classes_is_of_no_account() -> None:
    names, labels, classes = data_of([12, 20])
    held = {(classes[labels[i]], names[i]) for i in np.flatnonzero(choose_held_out(names, labels, classes, seed=1))}
    turned = choose_held_out(names[::-1], 1 - labels[::-1], classes[::-1], seed=1)
    again = {(classes[labels[::-1][i]], names[::-1][i]) for i in np.flatnonzero(turned)}
    assert held == again


def test_both_ways_of_writing_a_letter_are_one_name() -> None:
    labels = np.zeros(40, np.int64)
    one = choose_held_out([f"caf\u00e9 {i}" for i in range(40)], labels, ["a"], seed=0)
    other = choose_held_out([f"cafe\u0301 {i}" for i in range(40)], labels, ["a"], seed=0)
    assert np.array_equal(one, other)


@given(st.lists(st.integers(1, 12), min_size=2, max_size=30), st.integers(1, 4))
def test_groups_stay_whole_and_classes_are_validated_where_that_can_be(sizes: list[int], num_classes: int) -> None:
    names = [f"object{group}/{number}.jpg" for group, size in enumerate(sizes) for number in range(size)]
    labels = np.array([group % num_classes for group, size in enumerate(sizes) for _ in range(size)], np.int64)
    held_out = choose_held_out(names, labels, [str(label) for label in range(num_classes)], seed=0, group_by="parent")
    groups = np.array([name.partition("/")[0] for name in names])
    for group in np.unique(groups):
        assert len(set(held_out[groups == group].tolist())) == 1
    for label in range(num_classes):
        in_class = labels == label
        if len(np.unique(groups[in_class])) > 1:
            assert 0 < held_out[in_class].sum() < in_class.sum()


def test_a_group_may_be_in_several_classes() -> None:
    """A patient with healthy and sick tissue: both of it is on one side."""
    names = [f"patient{number % 10}/{number}.jpg" for number in range(60)]
    labels = (np.arange(60) // 30).astype(np.int64)
    held_out = choose_held_out(names, labels, ["healthy", "sick"], seed=0, group_by="parent")
    sides = {(name.partition("/")[0], bool(side)) for name, side in zip(names, held_out, strict=True)}
    assert len(sides) == 10
    assert np.bincount(labels[held_out]).tolist() == [6, 6]


def test_a_pattern_that_fits_nothing_is_an_error() -> None:
    names, labels, classes = data_of([5, 5])
    with pytest.raises(DataError, match=r"finds no group in names such as '0/photo0.jpg'"):
        choose_held_out(names, labels, classes, seed=0, group_by="object")


def test_pictures_with_several_labels_are_parted_by_their_rarest() -> None:
    targets = np.array([[1, 1, 0], [1, 0, 1], [1, 1, 1], [0, 0, 0], [1, 0, 0]], np.bool_)
    # Class 0 has four pictures, 1 and 2 have two each: of equal ones the first counts as the rarer.
    assert rarest_label(targets).tolist() == [1, 2, 1, 3, 0]
