"""Owns how long a run takes at a measured pace, and which run fits a time; pure arithmetic, it measures nothing."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from math import floor

from train.progressive.recipe import Recipe
from zoo.errors import ZooError
from zoo.rows import Count, NotNegative, Row
from zoo.wording import duration

UNITS = {"s": 1.0, "m": 60.0, "h": 3600.0, "d": 86400.0}
# What a run plans with of its time: the rest is for what no pace knows, such as the page and a busy machine.
PLANNED_SHARE = 0.95
# Sizes that a budget may choose, as shares of the recipe's largest: 6/7 of 224 px are 192, 4/7 are 128, 2/7 are 64.
SIZE_SHARES = tuple(sevenths / 7 for sevenths in (7, 6, 5, 4, 3, 2))
# No time is worth pictures smaller than this, unless the recipe itself has them: in them nothing can be seen.
SMALLEST_PX = 64
# With less than this share of the epochs that suit the pictures, smaller pictures are the better use of the time.
ENOUGH_EPOCHS = 0.5
MOST_EPOCHS = 1000
# More features make a linear classifier little better, and cost as much as training on them; few pictures are seen
# mirrored as well.
MOST_PICTURES, FEW_PICTURES = 20_000, 2_000


def read_duration(text: str) -> float:
    """Seconds of “90s”, “20m”, “1.5h”, “2d” or “1h30m”; a bare number is minutes.

    Raises:
        ZooError: anything else, or nothing.
    """
    parts = re.findall(r"(\d+(?:\.\d+)?)([smhd])", text)
    if re.fullmatch(r"\d+(\.\d+)?", text):
        parts = [(text, "m")]
    elif not parts or "".join(number + unit for number, unit in parts) != text:
        raise ZooError(f"{text!r} is no time.", "For example 90s, 20m, 1.5h or 1h30m.")
    seconds = sum(float(number) * UNITS[unit] for number, unit in parts)
    if not seconds:
        raise ZooError(f"{text!r} is no time to train in.", "For example 90s, 20m, 1.5h or 1h30m.")
    return seconds


@dataclass(frozen=True, kw_only=True)
class Pace(Row):
    """How fast a machine is with a network: seconds a picture, as a part that is the same for any size and one in px².

    `train` and `validate` parts come in that order: seconds, and seconds per square pixel.
    """

    train_s: NotNegative
    train_s_per_px: NotNegative
    validate_s: NotNegative
    validate_s_per_px: NotNegative

    def training(self, size: int) -> float:
        """Seconds for a picture of `size` px a side, decoded, forward, backward and its share of the optimizer."""
        return self.train_s + self.train_s_per_px * size**2

    def validation(self, size: int) -> float:
        """Seconds for a validation picture of `size` px a side."""
        return self.validate_s + self.validate_s_per_px * size**2


@dataclass(frozen=True, kw_only=True)
class Amount(Row):
    """How many pictures a run trains on, validates on after each epoch, and takes features of before its start."""

    train: Count
    validate: Count
    features: NotNegative = 0


def features_seen(pictures: int, *, flip_keeps_class: bool) -> int:
    """How many features a head start is fitted to: of few pictures, mirrored ones too; of very many, some."""
    seen = min(pictures, MOST_PICTURES)
    return seen * 2 if seen <= FEW_PICTURES and flip_keeps_class else seen


def seconds_of(recipe: Recipe, amount: Amount, pace: Pace) -> float:
    """How long a run takes: its epochs, their validations, and the head start."""
    total = 0.0
    for stage in recipe.stages:
        tested = round(stage.image_size * recipe.test_size / recipe.largest_size)
        epoch = amount.train * pace.training(stage.image_size) + amount.validate * pace.validation(tested)
        total += stage.epochs * epoch
    if recipe.head_start and amount.features:
        total += (amount.features + amount.validate) * pace.validation(recipe.test_size)
    return total


def fit_to_budget(
    make: Callable[[int, int], Recipe],
    suited: Recipe,
    amount: Amount,
    pace: Pace,
    seconds: float,
    *,
    sizes: bool,
    least: int = 1,
) -> Recipe:
    """The recipe that fills a time: the largest pictures at which enough epochs fit, and as many epochs as fit then.

    Args:
        make: the recipe of so many epochs at a largest size, px.
        suited: the recipe that the pictures would have without a budget.
        seconds: what there is.
        sizes: whether smaller pictures may be chosen; otherwise the size stays.
        least: the fewest epochs that `make` can make a recipe of.

    Raises:
        ZooError: not even those fit; says what would.
    """
    planned, size = PLANNED_SHARE * seconds, suited.largest_size

    def taken(size: int, epochs: int) -> float:
        return seconds_of(make(epochs, size), amount, pace)

    epochs = 0
    for share in SIZE_SHARES if sizes else SIZE_SHARES[:1]:
        size = max(round(share * suited.largest_size / 8) * 8, SMALLEST_PX) if share < 1 else suited.largest_size
        size = min(size, suited.largest_size)
        epochs = _epochs_that_fit(partial(taken, size), planned, least)
        if epochs >= ENOUGH_EPOCHS * suited.epochs:
            break
    if epochs:
        return make(epochs, size)
    needed = taken(size, least) / PLANNED_SHARE
    raise ZooError(
        f"{duration(seconds)} are not enough: {least} epoch{'s' * (least > 1)} at {size} px and the rest of a run take "
        f"{duration(needed)} here.",
        f"Give it --budget {floor(needed / 60) + 1}m, a smaller --image-size, or fewer pictures.",
    )


def _epochs_that_fit(seconds_of_epochs: Callable[[int], float], seconds: float, least: int) -> int:
    """The most epochs that take no more than `seconds`, by bisection; 0 if not even the least do."""
    if seconds_of_epochs(least) > seconds:
        return 0
    fits, too_many = least, MOST_EPOCHS + 1
    while too_many - fits > 1:
        middle = (fits + too_many) // 2
        if seconds_of_epochs(middle) <= seconds:
            fits = middle
        else:
            too_many = middle
    return fits
