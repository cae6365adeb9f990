"""Owns how long a run takes at a measured pace, and which run fits a time; pure arithmetic, it measures nothing."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass, replace
from math import floor

from train.progressive.adapt import SMALLEST_BATCH
from train.progressive.rate_range import range_pictures
from train.progressive.recipe import Recipe, TrainingStage, tested_size, validated_pictures
from train.progressive.schedule import stage_of_epoch
from zoo.errors import ZooError
from zoo.rows import Count, CountOrNone, NotNegative, Positive, Row
from zoo.wording import duration

UNITS = {"s": 1.0, "m": 60.0, "h": 3600.0, "d": 86400.0}
# What a run plans with of its time, and what drawing and writing take at its end, seconds.
PLANNED_SHARE, FINISH_S = 0.97, 3.0
# Sizes that a budget may choose, as shares of the recipe's largest: 6/7 of 224 px are 192, 4/7 are 128, 2/7 are 64.
SIZE_SHARES = tuple(sevenths / 7 for sevenths in (7, 6, 5, 4, 3, 2))
# No time is worth pictures smaller than this, unless the recipe itself has them: in them nothing can be seen.
SMALLEST_PX = 64
# With fewer pictures than these, repeated ones counted, smaller ones are the better use of the time: from weights so
# many of all classes and of each, from nothing this share of what suits the recipe.
ENOUGH_PICTURES, ENOUGH_OF_A_CLASS, ENOUGH_FROM_NOTHING = 1000, 10, 0.5
# More validations than this tell no more, they take no more of the time than this, and between two lie so many seconds:
# each costs a tenth of a second besides, in which nothing is learnt.
MOST_EPOCHS, VALIDATION_SHARE, LEAST_EPOCH_S = 20, 0.1, 4.0
# Nothing is chosen by what epochs below the final size reach: so many pictures show how it goes.
GLANCE_PICTURES = 500
# More features make a linear classifier little better, and cost as much as training on them; few pictures are all seen
# mirrored as well, of more of them so many, which tell if mirror images are of use.
MOST_PICTURES, FEW_PICTURES, MIRRORED_PICTURES = 20_000, 500, 200


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
    """How many classes and pictures a run trains on, and how many pictures it validates on after each epoch, looks at
    once at its end, and takes features of before its start; and how unequal the classes are, as in `Situation`.
    """

    classes: Count
    train: Count
    validate: Count
    test: CountOrNone = 0
    features: CountOrNone = 0
    imbalance: Positive = 1.0


@dataclass(frozen=True, kw_only=True)
class Slower(Row):
    """How many times as long as by the pace training takes, and all the rest."""

    training: NotNegative = 1.0
    rest: NotNegative = 1.0


@dataclass(frozen=True, kw_only=True)
class Budget(Row):
    """A time to train in, what a run in it was planned by, and how far it has come: what a state keeps of it.

    `asked` is the recipe before a length was chosen. `spent_s` is what was gone when the state was saved, and `slower`
    how what came before went.
    """

    seconds: Positive
    pace: Pace
    amount: Amount
    asked: Recipe
    spent_s: NotNegative = 0.0
    slower: Slower = Slower()


@dataclass(frozen=True, kw_only=True)
class Deadline:
    """When a run shall have ended, on `time.monotonic`'s clock, and the budget it follows from."""

    at: float
    budget: Budget

    @property
    def pace(self) -> Pace:
        """How fast the machine was measured to be."""
        return self.budget.pace

    @property
    def amount(self) -> Amount:
        """What is trained on and looked at."""
        return self.budget.amount

    def kept(self, now: float, slower: Slower) -> Budget:
        """The budget as it is now; at most all of it is gone."""
        return replace(self.budget, spent_s=max(self.budget.seconds - (self.at - now), 0.0), slower=slower)


@dataclass(frozen=True, kw_only=True)
class Taken:
    """What an epoch took: so many pictures, seconds of training on them, and seconds of all the rest."""

    pictures: int
    training_s: float
    rest_s: float


def features_seen(pictures: int, *, flip_keeps_class: bool) -> int:
    """How many features a head start makes: of very many pictures, some; with those of mirror images."""
    seen = min(pictures, MOST_PICTURES)
    return seen + mirrored_pictures(seen, flip_keeps_class=flip_keeps_class)


def mirrored_pictures(seen: int, *, flip_keeps_class: bool) -> int:
    """How many of the pictures that a head start sees are seen mirrored too."""
    if not flip_keeps_class:
        return 0
    return seen if seen <= FEW_PICTURES else MIRRORED_PICTURES


def seconds_of(recipe: Recipe, amount: Amount, pace: Pace) -> float:
    """How long a run takes: its epochs, their validations, the head start, and the look at the test pictures."""
    an_epoch = recipe.epoch_pictures or amount.train
    return an_epoch * _seconds_a_picture(recipe, pace, 0) + _seconds_besides(recipe, amount, pace)


def _seconds_a_picture(recipe: Recipe, pace: Pace, done: int) -> float:
    """What one more picture an epoch costs in the epochs after the first `done`."""
    return sum(pace.training(stage.image_size) for stage in _stages_left(recipe, done))


def _seconds_besides(recipe: Recipe, amount: Amount, pace: Pace) -> float:
    """What a run takes besides training."""
    beginning = _seconds_of_head(recipe, amount, pace) + _seconds_of_range_test(recipe, amount, pace)
    return beginning + _seconds_of_looking(recipe, amount, pace, 0)


def _seconds_of_range_test(recipe: Recipe, amount: Amount, pace: Pace) -> float:
    """What the range test of a learning rate takes, if it goes to its end; 0 where there is none."""
    return range_pictures(recipe, amount.train) * pace.training(recipe.stages[0].image_size)


def _seconds_of_head(recipe: Recipe, amount: Amount, pace: Pace) -> float:
    """What a head start takes; 0 where there is none."""
    if not _fits_head(recipe, amount):
        return 0.0
    first, smaller = recipe.stages[0], 0
    if recipe.grow == "auto" and first.image_size < recipe.largest_size:  # are small pictures of use?
        smaller = min(amount.validate, GLANCE_PICTURES)
    whole = (amount.features + amount.validate) * pace.validation(recipe.test_size)
    return whole + smaller * pace.validation(tested_size(recipe, first))


def _seconds_of_looking(recipe: Recipe, amount: Amount, pace: Pace, done: int) -> float:
    """What validations after the first `done` epochs take, and the look at the test pictures."""
    looks = sum(_seconds_of_validation(recipe, amount, pace, epoch) for epoch in range(done, recipe.epochs))
    midpoint = amount.validate * (recipe.tries_midpoint and _fits_head(recipe, amount))
    return looks + (midpoint + amount.test) * pace.validation(recipe.test_size)


def _seconds_of_validation(recipe: Recipe, amount: Amount, pace: Pace, epoch: int) -> float:
    """What the validation after an epoch (from 0) takes."""
    stage, last = recipe.stages[stage_of_epoch(recipe.stages, epoch)], epoch + 1 == recipe.epochs
    size = recipe.test_size if last else tested_size(recipe, stage)
    return validated_pictures(recipe, stage, amount.validate, last=last) * pace.validation(size)


def _stages_left(recipe: Recipe, done: int) -> list[TrainingStage]:
    """The stage of every epoch after the first `done`."""
    return [recipe.stages[stage_of_epoch(recipe.stages, epoch)] for epoch in range(done, recipe.epochs)]


def _fits_head(recipe: Recipe, amount: Amount) -> bool:
    return recipe.head_start and amount.features > 0


def fit_to_budget(
    make: Callable[[int, int, int], Recipe],
    suited: Recipe,
    amount: Amount,
    pace: Pace,
    seconds: float,
    *,
    sizes: bool,
    detail: bool = False,
    spent_s: float = 0.0,
    folds: int | None = None,
) -> Recipe:
    """The recipe that fills a time: the largest pictures of which enough are seen, and as many as can be seen then.

    An epoch is what lies between two validations, which take a tenth of the time at most.

    Args:
        make: the recipe of so many epochs of so many pictures at a largest size, px.
        suited: the recipe that the pictures would have without a budget.
        seconds: what there is.
        sizes: whether smaller pictures may be chosen; otherwise the size stays.
        detail: smaller pictures would lose what tells the classes apart: the largest that fit at all.
        spent_s: what of the budget is gone already, with opening the pictures and measuring; only for the error.
        folds: of how many runs, each with a part of a budget, this is one; only for the error.

    Raises:
        ZooError: not even a step an epoch fits; says what would.
    """
    planned = PLANNED_SHARE * seconds - FINISH_S
    least = len(make(1, SMALLEST_BATCH, suited.largest_size).stages)
    enough = max(ENOUGH_PICTURES, ENOUGH_OF_A_CLASS * amount.classes)
    if not _fits_head(suited, amount):
        enough = round(ENOUGH_FROM_NOTHING * suited.epochs * amount.train)
    if detail:
        enough = 0
    best: Recipe | None = None
    for share in SIZE_SHARES if sizes else SIZE_SHARES[:1]:
        size = suited.largest_size
        if share < 1:
            size = min(max(round(share * size / 8) * 8, SMALLEST_PX), size)
        most = _most_epochs(make, least, size, amount, pace, planned)
        draft = make(most, amount.train, size)
        each = floor((planned - _seconds_besides(draft, amount, pace)) / _seconds_a_picture(draft, pace, 0))
        if each >= SMALLEST_BATCH:
            best = make(most, each, size)
            if each * most >= enough:
                break
    if best:
        return best
    needed = spent_s + (seconds_of(make(least, SMALLEST_BATCH, size), amount, pace) + FINISH_S) / PLANNED_SHARE
    minutes = floor(needed / 60) + 1
    give = f"it --budget {minutes}m"
    if folds:
        give = f"each fold {minutes}m (--budget {minutes * folds}m for all {folds} of them)"
    raise ZooError(
        f"{duration(seconds + spent_s)} are not enough: a step of each epoch at {size} px and the rest of a run take "
        f"{duration(needed)} here.",
        f"Give {give}, a smaller --image-size, or fewer pictures.",
    )


def _most_epochs(
    make: Callable[[int, int, int], Recipe], least: int, size: int, amount: Amount, pace: Pace, seconds: float
) -> int:
    """The most epochs of so many seconds whose validations, but for the last one, take no more than their share."""
    for epochs in range(min(MOST_EPOCHS, floor(seconds / LEAST_EPOCH_S)), least, -1):
        recipe = make(epochs, amount.train, size)
        looks = sum(_seconds_of_validation(recipe, amount, pace, epoch) for epoch in range(recipe.epochs - 1))
        if looks <= VALIDATION_SHARE * seconds:
            return epochs
    return least


def pictures_left_an_epoch(recipe: Recipe, deadline: Deadline, slower: Slower, *, done: int, seconds: float) -> int:
    """How many pictures each epoch after the first `done` may have, if they go as fast as what came before.

    A machine that is busier, or quieter, than while its pace was measured still ends in time.

    Args:
        slower: than the pace what came before was.
        seconds: what is left.
    """
    amount, pace = deadline.amount, deadline.pace
    free = seconds - FINISH_S - slower.rest * _seconds_of_looking(recipe, amount, pace, done)
    least = min(stage.batch_size for stage in recipe.stages)
    return max(least, floor(free / (slower.training * _seconds_a_picture(recipe, pace, done))))


def seconds_after_last_step(recipe: Recipe, deadline: Deadline, slower: Slower) -> float:
    """What a run takes after its last step: a validation, the look at the test pictures, drawing and writing."""
    looking = _seconds_of_looking(recipe, deadline.amount, deadline.pace, recipe.epochs - 1)
    return slower.rest * looking + FINISH_S


def slower_in_epoch(recipe: Recipe, deadline: Deadline, epoch: int, taken: Taken) -> Slower:
    """How an epoch (from 0) went, against the pace."""
    stage, pace = recipe.stages[stage_of_epoch(recipe.stages, epoch)], deadline.pace
    planned = _seconds_of_validation(recipe, deadline.amount, pace, epoch)
    trained = taken.pictures * pace.training(stage.image_size)
    return Slower(training=taken.training_s / trained, rest=taken.rest_s / max(planned, 1e-9))


def slower_in_head_start(recipe: Recipe, deadline: Deadline, seconds: float) -> Slower:
    """How a head start of so many seconds went, against the pace; nothing else of a run has gone yet."""
    planned = _seconds_of_head(recipe, deadline.amount, deadline.pace)
    return Slower(training=seconds / planned, rest=seconds / planned)
