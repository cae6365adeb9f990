from __future__ import annotations

from collections import Counter
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from train.options import TrainOptions
from train.progressive.balance import (
    balance_remarks,
    balanced_order,
    classes_seen,
    counts_seen,
    imbalance_of,
    members_of,
    shuffled_rows,
    times_seen,
    unequal_remark,
)
from train.progressive.overrides import choose_recipe
from train.progressive.recipe import Recipe
from zoo.data.pictures import Pictures
from zoo.weights.resolve import find_model_variant


def of_classes(*counts: int) -> Pictures:
    """So many pictures of each class, none of which is ever read."""
    labels = np.repeat(np.arange(len(counts)), counts)
    names = tuple(f"class {place}" for place in range(len(counts)))
    return Pictures("some", names, [Path(f"{index}.png") for index in range(len(labels))], labels.astype(np.int64))


def with_labels(*rows: tuple[int, ...]) -> Pictures:
    targets = np.array(rows, np.bool_)
    names = tuple(f"label {place}" for place in range(targets.shape[1]))
    none = np.full(len(rows), -1, np.int64)
    return Pictures("some", names, [Path(f"{index}.png") for index in range(len(rows))], none, targets=targets)


def balanced(**changes: Any) -> Recipe:
    recipe = choose_recipe(TrainOptions(model="tiny", sampler="balanced"), find_model_variant("tiny"))
    return replace(recipe, **changes)


@given(
    counts=st.lists(st.integers(1, 40), min_size=1, max_size=6),
    start=st.integers(0, 5000),
    length=st.integers(1, 300),
    seed=st.integers(0, 2**32 - 1),
)
def test_any_part_of_the_order_has_every_class_equally_often(
    counts: list[int], start: int, length: int, seed: int
) -> None:
    pictures = of_classes(*counts)
    members = members_of(pictures)
    order = balanced_order(members, seed=seed, start=start, end=start + length)
    drawn = np.bincount(pictures.labels[order], minlength=len(counts))
    assert drawn.sum() == length
    assert drawn.max() - drawn.min() <= 2  # one for each end
    # It depends on seed and place alone: a part begins where the one before it ended.
    middle = start + length // 2
    parts = [(start, middle), (middle, start + length)]
    again = [balanced_order(members, seed=seed, start=a, end=b) for a, b in parts if a < b]
    assert np.concatenate(again).tolist() == order.tolist()


def test_no_picture_comes_again_before_all_of_its_class_have_come() -> None:
    pictures = of_classes(5, 50)
    order = balanced_order(members_of(pictures), seed=4, start=0, end=110)
    rare, common = (order[pictures.labels[order] == place] for place in (0, 1))
    assert len(rare) == len(common) == 55
    assert [sorted(rare[at : at + 5]) for at in range(0, 55, 5)] == [[0, 1, 2, 3, 4]] * 11
    assert sorted(common[:50]) == list(range(5, 55))
    assert len({tuple(rare[at : at + 5]) for at in range(0, 55, 5)}) > 5


def test_other_seeds_and_later_places_have_other_orders() -> None:
    members = members_of(of_classes(20, 20))
    parts = [(0, 0), (1, 0), (0, 40)]
    orders = [balanced_order(members, seed=seed, start=start, end=start + 40).tolist() for seed, start in parts]
    assert len(set(map(tuple, orders))) == 3


def test_rows_wider_than_a_block_are_permutations() -> None:
    rows = shuffled_rows(3000, 3000, 9000, (1, 2))
    assert [sorted(row) for row in rows.reshape(2, 3000).tolist()] == [list(range(3000))] * 2


def test_a_class_without_pictures_is_left_out() -> None:
    pictures = of_classes(3, 0, 6)
    order = balanced_order(members_of(pictures), seed=0, start=0, end=12)
    assert Counter(pictures.labels[order].tolist()) == {0: 6, 2: 6}
    assert [row.name for row in classes_seen(pictures, balanced())] == ["class 0", "class 2"]


def test_how_often_a_picture_is_seen_is_what_is_drawn() -> None:
    pictures = of_classes(2, 8)
    times = times_seen(pictures, 10)
    np.testing.assert_allclose(times, [2.5] * 2 + [0.625] * 8)
    order = balanced_order(members_of(pictures), seed=0, start=0, end=10 * 160)
    np.testing.assert_allclose(np.bincount(order) / 160, times)
    half = balanced(epoch_pictures=5)
    assert [(row.pictures, row.times) for row in classes_seen(pictures, half)] == [(2, 1.25), (8, 0.3125)]


def test_a_picture_with_several_labels_comes_for_each_of_them() -> None:
    """Ten with the first label, two of which have the rare one too, and three with none."""
    pictures = with_labels(*[(1, 0)] * 8, *[(1, 1)] * 2, *[(0, 0)] * 3)
    members = members_of(pictures)
    assert [part.tolist() for part in members] == [list(range(10)), [8, 9], [10, 11, 12]]
    times = times_seen(pictures, 13)
    np.testing.assert_allclose(times, [13 / 30] * 8 + [13 / 30 + 13 / 6] * 2 + [13 / 9] * 3)
    order = balanced_order(members, seed=0, start=0, end=3 * 10 * 6)
    np.testing.assert_allclose(np.bincount(order) / (180 / 13), times)
    np.testing.assert_allclose(counts_seen(pictures, balanced()), [times[:10].sum(), times[8:10].sum()])


def test_shuffling_sees_what_there_is_and_says_nothing() -> None:
    pictures, recipe = of_classes(2, 8), balanced(sampler="shuffle")
    assert counts_seen(pictures, recipe).tolist() == [2, 8]
    assert classes_seen(pictures, recipe) == ()
    assert balance_remarks((), recipe, multi_label=False) == ()


@pytest.mark.parametrize(("weights", "lines"), [(None, 1), ((1.0, 1.0), 1), ("balanced", 2), ((4.0, 1.0), 2)])
def test_class_weights_beside_it_are_warned_of(weights: Any, lines: int) -> None:
    recipe = balanced(class_weights=weights)
    said = balance_remarks(classes_seen(of_classes(2, 8), recipe), recipe, multi_label=False)
    assert said[0] == (
        "Balanced sampling: an epoch sees a picture of class 0 (2) 2.5 times, one of class 1 (8) 0.62 times."
    )
    assert len(said) == lines
    assert all("correct for the same thing" in line for line in said[1:])


def test_unequal_classes_are_told_with_what_the_recipe_does_about_them() -> None:
    unequal, plain = of_classes(50, 10, 0, 10), balanced(sampler="shuffle")
    assert imbalance_of(unequal) == 5  # a class without pictures is none
    assert imbalance_of(of_classes(40, 0), of_classes(10, 10)) == 5  # of a fold: of all
    assert unequal_remark(of_classes(49, 10), plain) == ""
    told = unequal_remark(unequal, plain)
    assert "from class 0 (50) to class 1 (10) pictures, so top-1 flatters: --sampler balanced" in told
    assert "--metric balanced_accuracy" in told
    fair = replace(plain, metric="balanced_accuracy")
    does = unequal_remark(unequal, replace(fair, sampler="balanced"))
    assert does.endswith("the best balanced accuracy (else: --sampler shuffle --metric top1).")
    assert "rare ones weigh more" in unequal_remark(unequal, replace(fair, class_weights="balanced"))


def test_class_weights_that_are_asked_for_take_the_place_of_balanced_sampling() -> None:
    variant = find_model_variant("tiny")

    def chosen(**told: Any) -> str:
        options = TrainOptions(model="tiny", data="pictures", recipe="finetune", **told)
        return choose_recipe(options, variant, counts=(60, 2), imbalance=5.0).sampler

    assert chosen() == "balanced"
    assert chosen(class_weights="balanced") == chosen(overrides=("class_weights=balanced",)) == "shuffle"
    assert chosen(class_weights="balanced", sampler="balanced") == "balanced"
