"""What a time buys at a pace: arithmetic with known answers."""

from __future__ import annotations

import re
from dataclasses import replace
from functools import partial

import pytest

from train.options import TrainOptions
from train.progressive.budget import (
    ENOUGH_PICTURES,
    FINISH_S,
    PLANNED_SHARE,
    Amount,
    Budget,
    Deadline,
    Pace,
    Taken,
    fit_to_budget,
    pictures_left_an_epoch,
    read_duration,
    seconds_of,
    slower_in_epoch,
)
from train.progressive.overrides import choose_recipe
from train.progressive.recipe import Recipe, validated_pictures
from zoo.errors import ZooError
from zoo.model.variants import find_variant

COUNTS = (1000, 10)
AMOUNT = Amount(classes=10, train=1000, validate=200, test=100, features=2000)
# 5 ms a picture whatever its size, and 15 ms more at 224 px; a third of that to validate.
PACE = Pace(train_s=0.005, train_s_per_px=0.015 / 224**2, validate_s=0.001, validate_s_per_px=0.005 / 224**2)


def make(epochs: int, pictures: int, size: int, model: str = "lite0.imagenet1k") -> Recipe:
    options = TrainOptions(model=model, data="pictures", epochs=epochs, image_size=size)
    made = choose_recipe(options, find_variant(model.partition(".")[0]), counts=COUNTS, epoch_pictures=pictures)
    return replace(made, epoch_pictures=pictures)


SUITED = replace(make(20, 1000, 224), epoch_pictures=None)


@pytest.mark.parametrize(
    ("text", "seconds"), [("90s", 90), ("20m", 1200), ("1.5h", 5400), ("1h30m", 5400), ("2d", 172_800), ("20", 1200)]
)
def test_a_time_is_read_as_people_write_it(text: str, seconds: float) -> None:
    assert read_duration(text) == seconds


@pytest.mark.parametrize("text", ["", "0s", "-5m", "soon", "5 m", "1x", "5mm", "nan", "m"])
def test_what_is_no_time_is_said(text: str) -> None:
    with pytest.raises(ZooError, match=r"no time.*For example 90s, 20m"):
        read_duration(text)


def test_a_runs_time_is_the_sum_of_its_parts() -> None:
    one = replace(make(1, 1000, 224), epoch_pictures=None)  # one epoch is one stage
    # Trained on, validated on, at the midpoint too, features and their validation, the test pictures: all at 224 px.
    assert seconds_of(one, AMOUNT, PACE) == pytest.approx(1000 * 0.020 + (200 + 200 + 2200 + 100) * 0.006)
    assert seconds_of(replace(one, epoch_pictures=300), AMOUNT, PACE) == pytest.approx(300 * 0.020 + 2700 * 0.006)


def seen(recipe: Recipe) -> int:
    assert recipe.epoch_pictures
    return recipe.epochs * recipe.epoch_pictures


def test_a_time_is_filled_at_full_size_where_enough_pictures_fit() -> None:
    for seconds in (120.0, 3600.0):
        chosen = fit_to_budget(make, SUITED, AMOUNT, PACE, seconds, sizes=True)
        assert chosen.largest_size == 224
        assert seen(chosen) >= ENOUGH_PICTURES
        planned = PLANNED_SHARE * seconds - FINISH_S
        assert 0.99 * planned < seconds_of(chosen, AMOUNT, PACE) <= planned


def test_validations_take_a_tenth_of_the_time_at_most() -> None:
    # Of 100 s less what is set aside, a tenth is 9.4 s. Epochs at 179 px look at 200 pictures of 4.2 ms, those at 224
    # px at as many of 6 ms, and the last one is no choice: five and four of them take 9.0 s.
    assert fit_to_budget(make, SUITED, AMOUNT, PACE, 100, sizes=False).epochs == 10


def test_below_the_final_size_a_part_of_the_validation_pictures_is_enough() -> None:
    many = replace(AMOUNT, validate=2000)

    def glancing(epochs: int, pictures: int, size: int) -> Recipe:
        return replace(make(epochs, pictures, size), glance_pictures=100)

    whole = fit_to_budget(make, SUITED, many, PACE, 300, sizes=False)
    glanced = fit_to_budget(glancing, SUITED, many, PACE, 300, sizes=False)
    assert (whole.epochs, glanced.epochs) == (4, 6)
    small, large = glanced.stages
    assert validated_pictures(glanced, small, 2000, last=False) == 100
    assert validated_pictures(glanced, large, 2000, last=False) == 2000
    assert validated_pictures(glanced, small, 50, last=False) == 50
    assert validated_pictures(glanced, small, 2000, last=True) == 2000


def test_little_time_takes_smaller_pictures_before_too_few() -> None:
    chosen = fit_to_budget(make, SUITED, AMOUNT, PACE, 36, sizes=True)
    assert chosen.largest_size == 192 and seen(chosen) >= ENOUGH_PICTURES
    fixed = fit_to_budget(make, SUITED, AMOUNT, PACE, 36, sizes=False)
    assert fixed.largest_size == 224 and seen(fixed) < ENOUGH_PICTURES


def test_from_nothing_passes_count_more_than_size() -> None:
    nothing = replace(AMOUNT, features=0)
    suited = replace(make(100, 1000, 224, "lite0"), epoch_pictures=None)
    chosen = fit_to_budget(partial(make, model="lite0"), suited, nothing, PACE, 300, sizes=True)
    assert chosen.largest_size == 64
    assert seen(chosen) > 0.3 * 100 * 1000


def test_no_time_is_worth_pictures_in_which_nothing_can_be_seen() -> None:
    tiny, nothing = find_variant("tiny"), replace(AMOUNT, features=0)
    suited = replace(make(100, 1000, tiny.train_size, "tiny"), epoch_pictures=None)
    chosen = fit_to_budget(partial(make, model="tiny"), suited, nothing, PACE, 60, sizes=True)
    assert chosen.largest_size == tiny.train_size == 32 and seen(chosen) < 50_000


def test_a_time_that_is_too_short_says_what_would_do() -> None:
    with pytest.raises(
        ZooError, match=r"5\.0\s+s are not enough: a step of each epoch at 64 px .* Give it --budget 1m"
    ):
        fit_to_budget(make, SUITED, AMOUNT, PACE, 5, sizes=True)


def test_a_time_that_is_gone_before_the_run_begins_is_told_as_it_was_given() -> None:
    with pytest.raises(ZooError) as alone:
        fit_to_budget(make, SUITED, AMOUNT, PACE, 5, sizes=True)
    needed = float(re.findall(r"take ([\d.]+)\s+s here", str(alone.value))[0])
    with pytest.raises(ZooError, match=rf"1\.0\s+s are not enough: .* take {needed + 2.9:.1f}\s+s here"):
        fit_to_budget(make, SUITED, AMOUNT, PACE, -1.9, spent_s=2.9, sizes=True)


def test_the_time_that_would_do_is_that_of_all_folds_together() -> None:
    with pytest.raises(ZooError, match=r"Give each fold 1m \(--budget 5m for all 5 of them\), a smaller"):
        fit_to_budget(make, SUITED, AMOUNT, PACE, 5, sizes=True, folds=5)


def test_what_is_left_is_shared_out_as_fast_as_it_goes() -> None:
    recipe = make(4, 500, 224)  # two epochs at 179 px, two at 224
    deadline = Deadline(at=0.0, budget=Budget(seconds=60.0, pace=PACE, amount=AMOUNT, asked=SUITED))
    assert Budget.from_dict(deadline.budget.to_dict()) == deadline.budget
    assert [stage.image_size for stage in recipe.stages] == [179, 224]
    looked = AMOUNT.validate * PACE.validation(179)
    for slower in (0.5, 1.0, 2.0):
        taken = Taken(pictures=500, training_s=slower * 500 * PACE.training(179), rest_s=slower * looked)
        left = slower * (
            700 * (PACE.training(179) + 2 * PACE.training(224))
            + AMOUNT.validate * (PACE.validation(179) + 3 * PACE.validation(224))  # the last: midpoint
            + AMOUNT.test * PACE.validation(224)
        )
        so = slower_in_epoch(recipe, deadline, 0, taken)
        count = pictures_left_an_epoch(recipe, deadline, so, done=1, seconds=left + FINISH_S)
        assert count == pytest.approx(700, abs=1)
    # Where nothing is left, a step still is.
    assert pictures_left_an_epoch(recipe, deadline, so, done=1, seconds=-10) == recipe.stages[0].batch_size
