"""Owns what replayed searches and a table of trained networks say: who wins how often, and what pays where.

Everything is worked out from the rows; it trains nothing and asks no sampler.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import accumulate
from statistics import fmean, median, stdev

import numpy as np
from numpy.typing import NDArray

from serve.bench.measure.ratio import student_quantile
from serve.bench.measure.search_rows import CHANCE, NetworkRow, SearchData
from zoo.errors import ZooError
from zoo.intervals import Interval, median_interval, share_interval
from zoo.model.spec import Stage
from zoo.ranks import rank_correlation

# Rewards that differ by less are those of one network.
SAME = 1e-12


def best_so_far(rewards: Sequence[float], order: Sequence[int]) -> list[float]:
    """The best reward after every trial of a search."""
    return list(accumulate((rewards[place] for place in order), max))


@dataclass(frozen=True, kw_only=True)
class Standing:
    """A sampler after so many trials: the best reward in the middle of its repetitions, and how it fared beside chance.

    `best`, `low` and `high` are shares of the reward of the table's best network, with a 95 % interval. `wins`, `ties`
    and `losses` are of repetitions of equal seed beside chance; `won` is the interval of the share of wins. `gain` is
    over chance's best, `over_median` over the reward of the table's middle network, both as shares. `found` counts the
    repetitions that found the table's best network.
    """

    sampler: str
    trials: int
    repetitions: int
    best: float
    low: float
    high: float
    wins: int
    ties: int
    losses: int
    gain: float
    over_median: float
    found: int

    @property
    def won(self) -> Interval:
        """The 95 % interval of the share of repetitions that were won."""
        return share_interval(self.wins, self.repetitions)


def standing(data: SearchData, sampler: str, trials: int) -> Standing:
    """How a sampler stands after `trials`, beside chance.

    Raises:
        ZooError: no repetitions, or none of chance with the same seeds, or shorter ones.
    """
    own, chance = _bests(data, sampler, trials), _bests(data, CHANCE, trials)
    if not own or own.keys() != chance.keys():
        raise ZooError(
            f"{sampler} was replayed with {len(own)} seeds and {CHANCE} with {len(chance)}: they cannot be compared.",
            "Replay all samplers with the same seeds and as many trials.",
        )
    top, middle = max(data.rewards), median(data.rewards)
    differences = [own[seed] - chance[seed] for seed in own]
    best, low, high = median_interval([value / top for value in own.values()])
    return Standing(
        sampler=sampler,
        trials=trials,
        repetitions=len(own),
        best=best,
        low=low,
        high=high,
        wins=sum(difference > SAME for difference in differences),
        ties=sum(abs(difference) <= SAME for difference in differences),
        losses=sum(difference < -SAME for difference in differences),
        gain=median(own.values()) / median(chance.values()) - 1,
        over_median=median(own.values()) / middle - 1,
        found=sum(abs(value - top) <= SAME for value in own.values()),
    )


def _bests(data: SearchData, sampler: str, trials: int) -> dict[int, float]:
    """The best reward of every repetition that is as long, by its seed."""
    return {
        replay.seed: best_so_far(data.rewards, replay.order)[trials - 1]
        for replay in data.replays
        if replay.sampler == sampler and len(replay.order) >= trials
    }


def curve(data: SearchData, sampler: str) -> list[float]:
    """The median over the repetitions of the best reward so far, as a share of the table's best, trial by trial."""
    runs = [best_so_far(data.rewards, replay.order) for replay in data.replays if replay.sampler == sampler]
    top = max(data.rewards)
    return [median(at) / top for at in zip(*runs, strict=False)]


@dataclass(frozen=True, kw_only=True)
class RankAgreement:
    """How far short training ranks networks as long training does: Spearman's, of `n` networks; None of too few."""

    accuracy: float | None
    n: int


def rank_agreement(data: SearchData) -> RankAgreement:
    """Accuracies after short and long training of the networks that chance chose to be trained long."""
    codes = list(dict.fromkeys(run.code for run in data.long_runs if run.why == "ranking"))
    long = [fmean(data.long_top1(code)) for code in codes]
    short = [data.by_code[code].top1 for code in codes]
    return RankAgreement(accuracy=rank_correlation(short, long), n=len(codes))


@dataclass(frozen=True, kw_only=True)
class Match:
    """A finalist beside the published table at whose step time it was chosen, both trained long with the same seeds.

    `difference` is of their mean accuracies, percentage points, with Student's 95 % interval of the pairs.
    """

    model: str
    published: NetworkRow
    finalist: NetworkRow
    published_top1: tuple[float, ...]
    finalist_top1: tuple[float, ...]
    difference: float
    low: float
    high: float

    @property
    def verdict(self) -> str:
        """“better”, “worse”, or “no difference shown”."""
        return "better" if self.low > 0 else "worse" if self.high < 0 else "no difference shown"


def finalist_beside(data: SearchData, published: str, *, slack: float = 0.02) -> NetworkRow | None:
    """The network with the best reward whose step takes no longer than a published one's, but for `slack`."""
    limit = data.by_code[published].step.value * (1 + slack)
    ranked = sorted(zip(data.rewards, data.networks, strict=True), key=lambda one: -one[0])
    known = {one.code for one in data.published}
    return next((row for _, row in ranked if row.step.value <= limit and row.code not in known), None)


def matches(data: SearchData) -> list[Match]:
    """Every published table with its finalist, of those that were trained long with two seeds at least."""
    found = []
    for one in data.published:
        own = {run.seed: run for run in data.long_runs if run.code == one.code}
        # A table that has grown since may have another finalist now; what the earlier one reached is not this one's.
        chosen = finalist_beside(data, one.code)
        finalists = [
            run
            for run in data.long_runs
            if run.why == "finalist" and run.beside == one.model and chosen and run.code == chosen.code
        ]
        pairs = [(own[run.seed].top1, run.top1) for run in finalists if run.seed in own]
        if len(pairs) < 2:
            continue
        differences = [100 * (new - old) for old, new in pairs]
        reach = student_quantile(len(pairs) - 1) * stdev(differences) / math.sqrt(len(pairs))
        found.append(
            Match(
                model=one.model,
                published=data.by_code[one.code],
                finalist=data.by_code[finalists[0].code],
                published_top1=tuple(old for old, _ in pairs),
                finalist_top1=tuple(new for _, new in pairs),
                difference=fmean(differences),
                low=fmean(differences) - reach,
                high=fmean(differences) + reach,
            )
        )
    return found


@dataclass(frozen=True, kw_only=True)
class Effect:
    """What MBConv instead of Fused-MBConv does in one stage, all else equal, with its 95 % interval.

    `of` is "top1" (percentage points), "step", or "reward"; the latter two are changes in percent.
    """

    stage: int
    of: str
    value: float
    low: float
    high: float

    @property
    def verdict(self) -> str:
        """Who is ahead in this figure: “MBConv”, “Fused-MBConv”, or “unclear”."""
        if self.low <= 0 <= self.high:
            return "unclear"
        lower_is_better = self.of == "step"
        return "MBConv" if (self.value > 0) != lower_is_better else "Fused-MBConv"


def operator_effects(data: SearchData) -> list[Effect]:
    """The effect of the operator, stage by stage, by least squares over the whole table.

    Every other choice of every stage (kernel, expansion, layers) is a factor of its own, without interactions; step and
    reward are regressed in logarithms. A stage where only one operator occurs has no effect. Intervals are Student's.

    Raises:
        ZooError: fewer networks than there are factors.
    """
    columns = _factors([row.candidate.stages for row in data.networks])
    matrix = np.column_stack([np.ones(len(data.networks)), *columns.values()])
    freedom = len(matrix) - int(np.linalg.matrix_rank(matrix))
    if freedom < 1:
        raise ZooError(f"{len(matrix)} networks are too few for {matrix.shape[1]} factors.", "Train more of them.")
    covariance = np.linalg.pinv(matrix.T @ matrix)
    figures = {
        "top1": 100 * np.array([row.top1 for row in data.networks]),
        "step": np.log([row.step.value for row in data.networks]),
        "reward": np.log(np.maximum(data.rewards, 1e-9)),
    }
    effects = []
    for name, values in figures.items():
        weights = covariance @ matrix.T @ values
        variance = float(((values - matrix @ weights) ** 2).sum() / freedom)
        for place, (stage, factor) in enumerate(columns, start=1):
            if factor != ("operator", "mbconv"):
                continue
            middle = float(weights[place])
            reach = student_quantile(freedom) * math.sqrt(max(variance * float(covariance[place, place]), 0.0))
            low, value, high = (
                each if name == "top1" else 100 * math.expm1(each) for each in (middle - reach, middle, middle + reach)
            )
            effects.append(Effect(stage=stage, of=name, value=value, low=low, high=high))
    return effects


def _factors(networks: Sequence[Sequence[Stage | None]]) -> dict[tuple[int, tuple[str, object]], NDArray[np.float64]]:
    """A column of 0 and 1 for every choice but the first of every field of every stage, from 1, that varies.

    What the others are held against is Fused-MBConv, and the smallest number. A stage that has vanished has no layers,
    and of its other fields nothing.
    """
    columns: dict[tuple[int, tuple[str, object]], NDArray[np.float64]] = {}
    for number, stages in enumerate(zip(*networks, strict=True), start=1):
        for field in ("operator", "kernel_size", "expand_ratio", "num_layers"):
            gone = 0 if field == "num_layers" else None
            values = [getattr(stage, field) if stage else gone for stage in stages]
            for value in sorted({value for value in values if value is not None})[1:]:
                columns[number, (field, value)] = np.array([float(one == value) for one in values])
    return columns
