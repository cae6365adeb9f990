from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from train.input.loader import Augmented, Item
from train.input.order import epoch_batches, epoch_draws, picture_of, tell_apart
from train.options import TrainOptions
from train.progressive.overrides import choose_recipe
from train.progressive.recipe import Recipe
from zoo.data.open import open_splits
from zoo.data.pictures import Pictures
from zoo.model.variants import find_variant


def small_recipe(**changes: Any) -> Recipe:
    sizes = {"epochs": 4, "image_size": 24, "batch_size": 8}
    return choose_recipe(TrainOptions(model="tiny", **sizes | changes), find_variant("tiny"))


@pytest.fixture(scope="module")
def uneven() -> Pictures:
    """Digits: three zeros and forty of other classes."""
    train = open_splits("digits")[0]
    zeros, others = np.flatnonzero(train.labels == 0)[:3], np.flatnonzero(train.labels == 1)[:40]
    return train.at(np.concatenate([zeros, others]))


def flat(batches: list[list[int]]) -> list[int]:
    return [draw for batch in batches for draw in batch]


def test_a_picture_drawn_again_is_another_draw() -> None:
    assert tell_apart([[3, 1, 3], [1, 3, 0]], 10) == [[3, 1, 13], [11, 23, 0]]
    assert [picture_of(draw, 10) for draw in (3, 13, 23, 0)] == [3, 3, 3, 0]
    assert tell_apart([[0, 1], [2]], 3) == [[0, 1], [2]]


def test_shuffled_draws_are_the_pictures(uneven: Pictures) -> None:
    recipe = small_recipe()
    draws = epoch_draws(uneven, recipe, recipe.stages[0], seed=1, epoch=2)
    assert draws == epoch_batches(43, recipe.stages[0], seed=1, epoch=2)


def test_a_balanced_epoch_is_as_long_and_halves_its_classes(uneven: Pictures) -> None:
    recipe = small_recipe(sampler="balanced")
    draws = epoch_draws(uneven, recipe, recipe.stages[0], seed=1, epoch=2)
    assert [len(batch) for batch in draws] == [8, 7, 7, 7, 7, 7]
    labels = uneven.labels[[picture_of(draw, 43) for draw in flat(draws)]]
    assert sorted(np.bincount(labels, minlength=10)[:2]) == [21, 22]
    assert len(set(flat(draws))) == 43
    # Every batch too, but for one picture at each end.
    for batch in draws:
        counts = np.bincount(uneven.labels[[picture_of(draw, 43) for draw in batch]], minlength=2)
        assert abs(int(counts[0]) - int(counts[1])) <= 2


def test_processes_share_the_balanced_order(uneven: Pictures) -> None:
    recipe = small_recipe(sampler="balanced")
    alone = epoch_draws(uneven, recipe, recipe.stages[0], seed=1, epoch=0)
    together = epoch_draws(uneven, recipe, recipe.stages[0], seed=1, epoch=0, processes=2)
    assert {len(batch) for batch in together} == {16}
    assert flat(together) == flat(alone)[:32]


def test_balanced_parts_in_a_row_go_on_where_the_last_one_ended(uneven: Pictures) -> None:
    recipe = small_recipe(sampler="balanced")
    stage = recipe.stages[0]
    parts = [epoch_draws(uneven, recipe, stage, seed=1, epoch=e, portion=p) for e, p in enumerate([(0, 20), (20, 43)])]
    whole = epoch_draws(uneven, recipe, stage, seed=1, epoch=0)
    pictures = [[picture_of(draw, 43) for draw in flat(batches)] for batches in (*parts, whole)]
    assert pictures[0] + pictures[1] == pictures[2]


def test_a_picture_drawn_again_is_cropped_in_another_way(uneven: Pictures) -> None:
    recipe = small_recipe()
    dataset = Augmented(uneven, recipe, recipe.stages[-1], 0, 0)
    first, again = dataset.__getitems__([5, 5 + 43])
    assert isinstance(first, Item) and isinstance(again, Item)
    assert first.label == again.label == 1
    assert not np.array_equal(first.pixels, again.pixels)
    alone = dataset[5 + 43]
    assert isinstance(alone, Item) and np.array_equal(alone.pixels, again.pixels)


def test_labels_and_shards_are_balanced_like_folders(shapes: Path, uneven: Pictures) -> None:
    """The order knows labels alone, whatever the pictures are stored in."""
    train = open_splits(str(shapes))[0]
    recipe = choose_recipe(
        TrainOptions(model="tiny", data=str(shapes), batch_size=8, sampler="balanced"),
        find_variant("tiny"),
        multi_label=True,
    )
    draws = flat(epoch_draws(train, recipe, recipe.stages[0], seed=0, epoch=0))
    assert len(draws) == len(train) == 160
    assert train.targets is not None
    unlabelled = sum(not train.targets[picture_of(draw, 160)].any() for draw in draws)
    assert unlabelled == pytest.approx(160 / 4, abs=1)  # three labels, and none
