"""What a recipe makes of its situation: pure functions, with the values their docstrings name."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from train.progressive.adapt import (
    average_decay,
    enlargement,
    norm_momentum,
    regularisation,
    smallest_crop,
    suited_batch,
    suited_epochs,
    variety,
    warmup_epochs,
)
from train.progressive.cost import estimate
from train.progressive.recipe import Situation, check_recipe, find_recipe
from zoo.model.counts import count_params
from zoo.model.variants import find_variant

LITE0 = find_variant("lite0")


@pytest.mark.parametrize(("pictures", "epochs"), [(1000, 20), (250, 28), (50_000, 8), (1_281_167, 3)])
def test_more_pictures_need_fewer_epochs(pictures: int, epochs: int) -> None:
    assert suited_epochs(Situation(variant=LITE0, pictures=pictures), of_1000=20) == epochs


def test_a_handful_of_pictures_is_seen_often_enough() -> None:
    few = Situation(variant=LITE0, pictures=20, classes=2)
    epochs = suited_epochs(few, of_1000=20)
    assert epochs * 3 >= 400 > (epochs - 1) * 3  # 20 pictures are 3 batches of 8
    assert suited_batch(few, epochs) == 8


@pytest.mark.parametrize(("passes", "share"), [(0.1, 0.0), (30, 0.0), (60, 0.3), (300, 1.0), (1000, 1.0)])
def test_what_is_seen_seldom_is_learnt_as_it_is(passes: float, share: float) -> None:
    assert regularisation(passes, 20_000_000) == share
    situation = Situation(variant=LITE0, pictures=1000, epochs=4, epoch_pictures=round(250 * passes))
    last = find_recipe("folder", LITE0, situation).stages[-1]
    part = regularisation(passes, count_params(LITE0, 100))  # 3.5 million
    assert part == pytest.approx(0.885 * share, abs=0.01)
    assert last.randaugment_magnitude == pytest.approx(15 * part)
    assert (last.mixup_alpha, last.stochastic_depth_prob) == pytest.approx((0.2 * part, 0.2 * part))
    assert last.dropout == pytest.approx(0.1 + 0.2 * part)


@pytest.mark.parametrize(
    ("parameters", "share"), [(900, 0.0), (7_000, 0.21), (10**6, 0.75), (10**7, 1.0), (10**8, 1.0)]
)
def test_the_larger_the_network_the_harder_pictures_are_made(parameters: int, share: float) -> None:
    assert regularisation(300, parameters) == share


def test_small_pictures_are_tested_without_their_edges() -> None:
    tiny, small = find_variant("tiny"), Situation(variant=find_variant("tiny"), pictures=1000, classes=10)
    recipe = find_recipe("folder", tiny, small)
    assert (recipe.test_size, recipe.test_resize, recipe.test_crop_margin) == (32, "crop", 4)
    large = find_recipe("folder", LITE0)
    assert (large.test_size, large.test_resize, large.test_crop_margin) == (248, "squash", 0)


def test_the_smaller_the_crops_the_larger_the_test_pictures() -> None:
    assert [enlargement(share) for share in (0.08, 0.35, 0.7, 1.0)] == [1.28, 1.1354, 1.0485, 1.0]


def test_what_the_user_fixes_stays() -> None:
    fixed = Situation(variant=LITE0, pictures=5000, epochs=3, batch_size=24, image_size=100)
    recipe = find_recipe("finetune", LITE0, fixed)
    assert (recipe.epochs, recipe.largest_size, {stage.batch_size for stage in recipe.stages}) == (3, 100, {24})
    assert (recipe.test_size, recipe.test_crop_margin) == (100, 14)  # 32 px of 224 stay an eighth


def test_averages_and_norms_follow_the_number_of_steps() -> None:
    assert [average_decay(steps) for steps in (400, 4000, 10**7)] == [0.95, 0.995, 0.9999]
    assert [norm_momentum(steps) for steps in (70, 400, 2000, 10**6)] == [0.1, 0.05, 0.01, 0.01]
    assert [warmup_epochs(steps, 10) for steps in (100, 100_000)] == [1.0, 0.2]


@given(pictures=st.integers(2, 2_000_000), classes=st.integers(2, 1000), name=st.sampled_from(["finetune", "folder"]))
def test_every_number_of_pictures_has_a_recipe_that_can_be_run(pictures: int, classes: int, name: str) -> None:
    recipe = find_recipe(name, LITE0, Situation(variant=LITE0, pictures=pictures, classes=classes))
    check_recipe(recipe, LITE0)
    assert 0 < recipe.ema_decay < 1 and recipe.warmup_epochs < recipe.epochs
    assert recipe.largest_size == LITE0.train_size
    steps = sum(stage.steps for stage in estimate(LITE0, recipe, pictures, classes).stages)
    assert steps >= min(280, pictures)  # the batch is the nearest power of two: 400 / √2 at least


def test_what_is_seen_once_needs_no_variety() -> None:
    assert [variety(passes) for passes in (0.3, 1, 2, 10, 40)] == [0, 0, 0.3, 1, 1]
    assert [smallest_crop(passes) for passes in (0.3, 1, 10, 40)] == [0.7, 0.7, 0.35, 0.35]
    once = Situation(variant=LITE0, weights=True, pictures=5000, epochs=1)
    often = Situation(variant=LITE0, weights=True, pictures=5000, epochs=10)
    hard = [
        (stage.randaugment_magnitude, stage.dropout, stage.stochastic_depth_prob)
        for situation in (once, often)
        for stage in find_recipe("finetune", LITE0, situation).stages
    ]
    assert hard == [(0, 0, 0), (5, 0.1, 0.1), (5, 0.2, 0.1)]


@pytest.mark.parametrize(("imbalance", "unequal"), [(1.0, False), (4.9, False), (5.0, True), (2000.0, True)])
def test_unequal_classes_come_equally_often_and_count_the_same(imbalance: float, unequal: bool) -> None:
    situation = Situation(variant=LITE0, pictures=1050, classes=2, imbalance=imbalance)
    from_weights, from_nothing = find_recipe("finetune", LITE0, situation), find_recipe("folder", LITE0, situation)
    assert from_weights.sampler == ("balanced" if unequal else "shuffle")
    assert from_weights.metric == from_nothing.metric == ("balanced_accuracy" if unequal else "top1")
    assert from_nothing.sampler == "shuffle"
