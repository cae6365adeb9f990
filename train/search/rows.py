"""Owns what is known of a search's networks, as rows: what each costs and what its training reached; decides none."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, Literal

from zoo.intervals import Interval, share_interval
from zoo.model.space import Candidate
from zoo.rows import Count, CountOrNone, NotNegative, Positive, Row, Share, Text, Within

TrialState = Literal["finished", "stopped early", "failed", "running"]


@dataclass(frozen=True, kw_only=True)
class StepTime(Row):
    """A training step beside the reference network's, which took turns with it; times in milliseconds.

    `ratio` is the time as a share of the reference's, `low` to `high` its 95 % interval, from `rounds` rounds of one
    visit each. `quiet` is False where the machine took more than a little of these rounds away.
    """

    ms: Positive
    reference_ms: Positive
    ratio: Positive
    low: Positive
    high: Positive
    rounds: Count
    quiet: bool
    batch_size: Count
    image_size: Count


@dataclass(frozen=True, kw_only=True)
class Latency(Row):
    """A network's latency by the sum of a table, milliseconds, with the ends of its 95 % interval."""

    ms: Positive
    low: Positive
    high: Positive


@dataclass(frozen=True, kw_only=True)
class Costs(Row):
    """What a network costs: training step, parameters, MACs at the trial's size; latency where there is a table."""

    step: StepTime
    num_params: Count
    macs: Count
    latency: Latency | None = None


@dataclass(frozen=True, kw_only=True)
class Unit(Row):
    """What the reference network costs, by which rewards are normalised; its step time is 1 already."""

    code: Text
    num_params: Count
    latency_ms: Positive | None = None


@dataclass(frozen=True, kw_only=True)
class Trained(Row):
    """What a training reached: top-1 of the last weights on `val_pictures`, and after every epoch so far."""

    top1: Share
    val_pictures: Count
    history: tuple[Share, ...]
    seed: CountOrNone
    epochs: Count
    seconds: NotNegative

    @property
    def interval(self) -> Interval:
        """The 95 % interval of the accuracy, from the number of pictures; it knows nothing of other seeds."""
        return share_interval(round(self.top1 * self.val_pictures), self.val_pictures)


@dataclass(frozen=True, kw_only=True)
class Trial(Row):
    """One network of a search: where its trial stands, what it costs, what it reached.

    `trained` of a trial that was stopped early is what it had reached by then. `reason` says why one failed.
    """

    number: CountOrNone
    candidate: Candidate
    state: TrialState
    costs: Costs | None = None
    trained: Trained | None = None
    reason: str = ""

    @property
    def code(self) -> str:
        """The network in a word."""
        return self.candidate.code


@dataclass(frozen=True, kw_only=True)
class LongTraining(Row):
    """A finalist's training: longer than a trial, with a fresh seed."""

    code: Text
    trained: Trained


@dataclass(frozen=True, kw_only=True)
class Scored(Row):
    """A reward and the ends of its 95 % interval; 1 is what the reference costs, at an accuracy of 1."""

    value: NotNegative
    low: NotNegative
    high: NotNegative


@dataclass(frozen=True, kw_only=True)
class Agreement(Row):
    """How two rankings of the same `n` networks agree: Kendall's τ-b and Spearman's ρ, −1…1.

    `p` is the chance of a τ at least as far from 0 if the rankings had nothing to do with each other.
    """

    kendall: Annotated[float, Within(-1, 1)]
    spearman: Annotated[float, Within(-1, 1)]
    p: Share
    n: Count
