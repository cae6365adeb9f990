"""Owns the ratio of two times, its 95 % interval and the verdict it allows; it times nothing.

A round gives one median for each thing compared, and so one ratio. Where the two took turns these are paired: what
slowed a round slowed both. Results of different runs have no pairs.

The estimate is Hodges and Lehmann's: the median of the means of every two rounds' logarithms (1963, Annals of
Mathematical Statistics 34:598), which one bad round in four cannot move far and which drops none. The interval is the
percentile bootstrap over whole rounds, since samples of one round are not independent; a bootstrap of few rounds is too
narrow, so its percentiles are those of Student's distribution (Hesterberg 2015, The American Statistician 69:371).
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from statistics import NormalDist
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from zoo.errors import ZooError
from zoo.rows import Count, Positive, Row
from zoo.wording import percent, times

Verdict = Literal["faster", "slower", "even", "unclear"]

# Nobody rebuilds a network for less than this.
EVEN_WITHIN = 0.02
RESAMPLES = 2000
_SEED = 0
# Longer than this nobody waits for a verdict: the ratio lies on the border then.
LONGEST_FACTOR = 100.0
# Two rounds have no spread to speak of.
FEWEST_ROUNDS = 3


@dataclass(frozen=True, kw_only=True)
class Ratio(Row):
    """The time of one thing as a share of another's: below 1 is faster. `low` to `high` holds it at 95 %.

    `within` is what counts as even: ratios from 1 / (1 + within) to 1 + within.
    """

    written_too = ("verdict",)

    value: Positive
    low: Positive
    high: Positive
    rounds: Count
    paired: bool
    within: Positive = EVEN_WITHIN

    @property
    def verdict(self) -> Verdict:
        """“faster” and “slower” where the whole interval is clear of even, “even” where it lies inside it."""
        upper = 1 + self.within
        if self.high < 1 / upper:
            return "faster"
        if self.low > upper:
            return "slower"
        return "even" if 1 / upper <= self.low and self.high <= upper else "unclear"

    @property
    def longer(self) -> float | None:
        """How many times as long to measure for a verdict; 1 where there is one, None where no time would do.

        An interval narrows with the square root of the time: 1.05 (1.01 – 1.09) with 2 % has to go from ±0.039 to less
        than 1.05 / 1.02, ±0.029, so 1.8 times the time; half as much again is added, as the spread is an estimate too.
        """
        if self.verdict != "unclear":
            return 1.0
        room = abs(abs(math.log(self.value)) - math.log1p(self.within))
        half = math.log(self.high / self.low) / 2
        factor = 1.5 * (half / room) ** 2 if room else math.inf
        return max(factor, 1.5) if factor <= LONGEST_FACTOR else None

    def words(self) -> str:
        """“1.8× as fast (1.7 – 1.9)”, “even (0.99 – 1.01 of the time)”, “unclear (0.97 – 1.04 of the time)”."""
        if self.verdict == "faster":
            return f"{times(1 / self.value)} as fast ({1 / self.high:.2f} – {1 / self.low:.2f})"
        if self.verdict == "slower":
            return f"{times(self.value)} as slow ({self.low:.2f} – {self.high:.2f})"
        return f"{self.verdict} ({self.low:.2f} – {self.high:.2f} of the time)"

    def settled_by(self, measured: float, *, option: str = "--duration-s") -> str:
        """What would settle an unclear verdict, of something measured for so much of `option`; empty where clear."""
        if self.verdict != "unclear":
            return ""
        if self.longer is None:
            return f"the difference lies on the border of {percent(self.within)}, and no duration would settle it"
        return f"{option} {math.ceil(measured * self.longer):d} would probably settle it"


def paired_ratio(first_ms: Sequence[float], second_ms: Sequence[float], *, within: float = EVEN_WITHIN) -> Ratio:
    """The time of the first as a share of the second's, from the medians of the rounds that both were in.

    Args:
        first_ms: its median in every round; `zoo.measure.rounds.Rounds.medians_ms` gives them.
        second_ms: the other's, of the same rounds in the same order.
        within: what counts as even.

    Raises:
        ZooError: fewer than three rounds, or not as many of each.
    """
    first, second = _logarithms(first_ms), _logarithms(second_ms)
    if len(first) != len(second):
        raise ZooError(
            f"{len(first)} rounds cannot be paired with {len(second)}.", "Only what took turns has pairs of rounds."
        )
    ratios = first - second
    drawn = _hodges_lehmann(ratios[_draws(len(ratios))])
    return _ratio(float(_hodges_lehmann(ratios[None])[0]), drawn, rounds=len(ratios), paired=True, within=within)


def unpaired_ratio(first_ms: Sequence[float], second_ms: Sequence[float], *, within: float = EVEN_WITHIN) -> Ratio:
    """The same of two runs that did not take turns: what changed between the runs is in the ratio.

    Raises:
        ZooError: fewer than three rounds of either.
    """
    first, second = _logarithms(first_ms), _logarithms(second_ms)
    value = float(_hodges_lehmann(first[None])[0] - _hodges_lehmann(second[None])[0])
    drawn = _hodges_lehmann(first[_draws(len(first))]) - _hodges_lehmann(second[_draws(len(second), seed=_SEED + 1)])
    return _ratio(value, drawn, rounds=min(len(first), len(second)), paired=False, within=within)


def student_quantile(degrees: int) -> float:
    """The two-sided 95 % point of Student's distribution by Cornish and Fisher's series; 2.262 for 9 degrees.

    Abramowitz and Stegun 1964, 26.7.5; within 1 % from 3 degrees on.
    """
    z = NormalDist().inv_cdf(0.975)
    terms = (
        (z**3 + z) / 4,
        (5 * z**5 + 16 * z**3 + 3 * z) / 96,
        (3 * z**7 + 19 * z**5 + 17 * z**3 - 15 * z) / 384,
        (79 * z**9 + 776 * z**7 + 1482 * z**5 - 1920 * z**3 - 945 * z) / 92160,
    )
    return z + math.fsum(term / degrees**power for power, term in enumerate(terms, start=1))


def _ratio(value: float, drawn: NDArray[np.float64], **facts: Any) -> Ratio:
    """A ratio from its logarithm and those of the resamples."""
    rounds = facts["rounds"]
    tail = NormalDist().cdf(-math.sqrt(rounds / (rounds - 1)) * student_quantile(rounds - 1))
    low, high = np.quantile(drawn, [tail, 1 - tail])
    # An estimate outside its own interval is possible where resamples are few and skewed; it must not be.
    return Ratio(
        value=math.exp(value), low=math.exp(min(float(low), value)), high=math.exp(max(float(high), value)), **facts
    )


def _logarithms(medians_ms: Sequence[float]) -> NDArray[np.float64]:
    if len(medians_ms) < FEWEST_ROUNDS:
        raise ZooError(
            f"{len(medians_ms)} rounds are too few for an interval; there must be {FEWEST_ROUNDS}.",
            "Measure with more --rounds.",
        )
    if min(medians_ms) <= 0:
        raise ZooError("A median of 0 ms has no ratio.", "The clock is too coarse: measure a larger batch.")
    return np.log(np.asarray(medians_ms, dtype=np.float64))


def _draws(rounds: int, *, seed: int = _SEED) -> NDArray[np.int64]:
    """Which rounds every resample holds: (RESAMPLES, rounds), the same for the same number of rounds."""
    return np.random.default_rng(seed).integers(0, rounds, size=(RESAMPLES, rounds))


def _hodges_lehmann(samples: NDArray[np.float64]) -> NDArray[np.float64]:
    """(R, n) → (R,): the median of the means of every two, each with itself too."""
    first, second = np.triu_indices(samples.shape[1])
    # In parts: 2,000 resamples of 100 rounds at once would take 160 MB.
    parts = np.array_split(samples, -(-len(samples) // 100))
    return np.concatenate([np.median((part[:, first] + part[:, second]) / 2, axis=1) for part in parts])
