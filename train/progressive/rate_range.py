"""Owns the learning-rate range test as pure functions: its length, its rates, when it ends, which rate its curve says.

After Smith 2017 (arXiv 1506.01186, §3.3), who lets the rate rise and watches the loss, and fastai (Howard and Gugger
2020, arXiv 2002.04688), which lets it rise exponentially and takes a tenth of the rate at which the loss is lowest.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from statistics import fmean, stdev
from typing import Annotated, Literal

from train.progressive.recipe import Recipe
from train.progressive.schedule import steps_per_epoch
from zoo.rows import NotNegative, Positive, Row, Some, Within

# The rates that are tried, as shares of the recipe's own: five decades, the higher two of them above it.
LOWEST_SHARE, HIGHEST_SHARE = 1e-3, 1e2
# One pass over the pictures, but no fewer steps than show a curve and no more than it needs.
FEWEST_STEPS, MOST_STEPS = 40, 100
# The rate that is taken, as a share of the one at which the loss is lowest, or begins to explode.
SAFE_SHARE = 0.1
# The loss has exploded when its mean is so far above its lowest: a share of the first losses, and never only noise.
EXPLODED_SHARE, EXPLODED_DEVIATIONS = 0.5, 4.0
# A fall of fewer standard errors than this may be chance.
FALL_ERRORS = 4.0

# fell: the loss fell, so the curve says a rate. flat: it did not fall. exploded: it rose without having fallen.
# not_finite: it was no number before any step had been made, which no rate is to blame for.
RangeReason = Literal["fell", "flat", "exploded", "not_finite"]


@dataclass(frozen=True, kw_only=True)
class RangeTest(Row):
    """A range test: the peak rate it chose, the recipe's `own`, why, and its curve.

    `rates` and `losses` are those of each step, a loss being the batch's mean before the step; None where it was not
    finite. `turn` is the rate that the choice refers to: where the smoothed loss is lowest, or where it exploded.
    """

    rate: Positive
    own: Positive
    reason: RangeReason
    rates: Annotated[tuple[Positive, ...], Some()]
    losses: tuple[Annotated[float, Within()] | None, ...]
    turn: Positive | None = None
    seconds: NotNegative = 0.0

    @property
    def sentence(self) -> str:
        """Which rate is used and why, in a line."""
        tried = f"in {len(self.rates)} steps from {self.rates[0]:.2g} to {self.rates[-1]:.2g}"
        why = {
            "fell": f"a tenth of {self.turn or 0:.2g}, where the smoothed loss was lowest {tried}",
            "flat": f"the loss did not fall {tried}",
            "exploded": f"the loss did not fall, and exploded at {self.turn or 0:.2g} {tried}",
            "not_finite": "the loss of the first batch is not finite, which no rate is to blame for",
        }[self.reason]
        whose = "this is the recipe's own" if self.rate == self.own else f"the recipe's own is {self.own:.3g}"
        return f"Learning rate {self.rate:.3g}: {why}; {whose}."


def range_steps(pictures: int, batch_size: int, processes: int = 1) -> int:
    """How many steps a range test has at most: a pass over the pictures, from 40 to 100. 250 in batches of 16: 40."""
    return min(max(steps_per_epoch(pictures, batch_size, processes), FEWEST_STEPS), MOST_STEPS)


def range_rates(own: float, steps: int) -> list[float]:
    """The peak rates that `steps` steps try, in a geometric row about the recipe's own: 1e-3 → 1e-6 … 0.1."""
    ratio = HIGHEST_SHARE / LOWEST_SHARE
    return [own * LOWEST_SHARE * ratio ** (step / (steps - 1)) for step in range(steps)]


def range_pictures(recipe: Recipe, pictures: int) -> int:
    """How many pictures the range test of a recipe decodes at most; 0 where there is none."""
    if not recipe.find_lr:
        return 0
    batch = recipe.stages[0].batch_size
    return range_steps(pictures, batch) * min(batch, pictures)


def smooth(losses: Sequence[float]) -> list[float]:
    """Losses without the noise of batches: the mean of each and its neighbours, as many on one side as on the other.

    The window is a tenth of the curve, which is half a decade of rates. It moves nothing to the right, as an average
    that only looks back would.
    """
    reach = window(len(losses)) // 2
    smoothed = []
    for place in range(len(losses)):
        own = min(reach, place, len(losses) - 1 - place)
        smoothed.append(fmean(losses[place - own : place + own + 1]))
    return smoothed


def window(steps: int) -> int:
    """Over how many losses is averaged: a tenth of the steps, an odd number, three at least."""
    return max(3, steps // 10 | 1)


def has_exploded(losses: Sequence[float], steps: int) -> bool:
    """Whether a range test of `steps` steps is over after these losses.

    The last one is not finite, or the mean of the last few is above the lowest such mean so far by half of the first
    ones, and by four standard deviations of them.
    """
    if not math.isfinite(losses[-1]):
        return True
    few = window(steps)
    if len(losses) < 2 * few:
        return False
    means = [fmean(losses[end - few : end]) for end in range(few, len(losses) + 1)]
    level, deviation = _beginning(losses, steps)
    return means[-1] - min(means) > max(EXPLODED_SHARE * abs(level), EXPLODED_DEVIATIONS * deviation)


def choose_rate(losses: Sequence[float], own: float, steps: int, *, seconds: float = 0.0) -> RangeTest:
    """The peak rate that a curve says: a tenth of the rate at which the smoothed loss is lowest, if it fell at all.

    It fell if its lowest is four standard errors below the first losses. If not, the recipe's own rate stays, unless
    that is above a tenth of the rate at which the loss exploded: then this tenth.

    Args:
        losses: of the steps made, one at least; they end where the loss exploded, or with the last of `steps`.
        own: the recipe's rate, from which `range_rates` makes those of the steps.
        steps: how many there were to be.
    """
    rates = range_rates(own, steps)[: len(losses)]
    lowest = _lowest([loss for loss in losses if math.isfinite(loss)], steps)
    reason: RangeReason = "flat"
    rate, turn = own, None
    if not math.isfinite(losses[0]):
        reason = "not_finite"
    elif lowest is not None:
        reason, turn = "fell", rates[lowest]
        rate = SAFE_SHARE * turn
    elif has_exploded(losses, steps):
        reason, turn = "exploded", rates[-1]
        rate = min(own, SAFE_SHARE * turn)
    return RangeTest(
        rate=rate,
        own=own,
        reason=reason,
        rates=tuple(rates),
        losses=tuple(loss if math.isfinite(loss) else None for loss in losses),
        turn=turn,
        seconds=seconds,
    )


def _lowest(losses: Sequence[float], steps: int) -> int | None:
    """Where the smoothed loss is lowest, if that is no chance."""
    few = window(steps)
    if len(losses) < 2 * few:
        return None
    smoothed = smooth(losses)
    # Near the ends a mean is of fewer losses, and the lowest of them would be chance.
    place = min(range(few, len(losses) - few // 2), key=lambda at: smoothed[at])
    level, deviation = _beginning(losses, steps)
    error = deviation * math.sqrt(1 / few + 1 / _first(steps))
    return place if level - smoothed[place] > max(FALL_ERRORS * error, 1e-9 * abs(level)) else None


def _beginning(losses: Sequence[float], steps: int) -> tuple[float, float]:
    """Mean and standard deviation of the losses while the rate is too low to learn with: the first fifth."""
    first = losses[: _first(steps)]
    return fmean(first), stdev(first)


def _first(steps: int) -> int:
    return max(2, steps // 5)
