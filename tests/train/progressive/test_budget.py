"""What a time buys at a pace: arithmetic with known answers."""

from __future__ import annotations

import pytest

from train.options import TrainOptions
from train.progressive.budget import PLANNED_SHARE, Amount, Pace, fit_to_budget, read_duration, seconds_of
from train.progressive.overrides import choose_recipe
from train.progressive.recipe import Recipe
from zoo.errors import ZooError
from zoo.model.variants import find_variant

LITE0 = find_variant("lite0")
COUNTS = (1000, 10)
AMOUNT = Amount(train=1000, validate=200, features=2000)
# 5 ms a picture whatever its size, and 15 ms more at 224 px; a third of that to validate.
PACE = Pace(train_s=0.005, train_s_per_px=0.015 / 224**2, validate_s=0.001, validate_s_per_px=0.005 / 224**2)


def make(epochs: int, size: int) -> Recipe:
    options = TrainOptions(model="lite0.imagenet1k", data="pictures", epochs=epochs, image_size=size)
    return choose_recipe(options, LITE0, counts=COUNTS)


SUITED = make(20, 224)


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
    one = make(1, 224)  # one epoch is one stage
    assert seconds_of(one, AMOUNT, PACE) == pytest.approx(1000 * 0.020 + 200 * 0.006 + 2200 * 0.006)


def test_plenty_of_time_is_filled_with_epochs_at_full_size() -> None:
    chosen = fit_to_budget(make, SUITED, AMOUNT, PACE, 3600, sizes=True)
    assert chosen.largest_size == 224
    assert chosen.epochs > SUITED.epochs
    assert 0.9 * 3600 < seconds_of(chosen, AMOUNT, PACE) <= PLANNED_SHARE * 3600


def test_little_time_takes_smaller_pictures_before_too_few_epochs() -> None:
    chosen = fit_to_budget(make, SUITED, AMOUNT, PACE, 150, sizes=True)
    assert chosen.largest_size == 160 and chosen.epochs >= 10
    assert seconds_of(chosen, AMOUNT, PACE) <= PLANNED_SHARE * 150
    fixed = fit_to_budget(make, SUITED, AMOUNT, PACE, 150, sizes=False)
    assert fixed.largest_size == 224 and fixed.epochs < chosen.epochs


def test_no_time_is_worth_pictures_in_which_nothing_can_be_seen() -> None:
    tiny = find_variant("tiny")

    def small(epochs: int, size: int) -> Recipe:
        options = TrainOptions(model="tiny", data="pictures", epochs=epochs, image_size=size)
        return choose_recipe(options, tiny, counts=COUNTS)

    chosen = fit_to_budget(small, small(100, tiny.train_size), AMOUNT, PACE, 60, sizes=True)
    assert chosen.largest_size == tiny.train_size == 32 and 1 <= chosen.epochs < 50


def test_a_time_that_is_too_short_says_what_would_do() -> None:
    with pytest.raises(ZooError, match=r"5\.0\s+s are not enough: 1 epoch at 64 px .* Give it --budget 1m"):
        fit_to_budget(make, SUITED, AMOUNT, PACE, 5, sizes=True)
