"""Owns the rows of a table of trained networks and of searches replayed on it; it trains and draws nothing."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import Annotated, Literal

from serve.bench.measure.ratio import Ratio
from zoo.errors import RowError
from zoo.model.space import Candidate, Space
from zoo.rows import Count, CountOrNone, Row, Share, Some, Text

# Why a network was trained long: to compare rankings, as what a search would take, or as a published table.
Why = Literal["ranking", "finalist", "published"]
# The sampler that the others are held against.
CHANCE = "random"


@dataclass(frozen=True, kw_only=True)
class NetworkRow(Row):
    """One network of the table: its validation accuracy `top1` after short training, and what it costs.

    `step` is the time of its training step as a share of the reference's, both in turn; `macs` are of one picture at
    the space's size.
    """

    candidate: Candidate
    top1: Share
    step: Ratio
    num_params: Count
    macs: Count

    @property
    def code(self) -> str:
        """Its name in a table."""
        return self.candidate.code


@dataclass(frozen=True, kw_only=True)
class LongRun(Row):
    """A network of the table trained long, with a seed that its short training did not have.

    `beside` is the published network whose step time a finalist was chosen at.
    """

    code: Text
    seed: CountOrNone
    top1: Share
    why: Why
    beside: str = ""


@dataclass(frozen=True, kw_only=True)
class Published(Row):
    """A published stage table, cut to the space's depth: whose it is, and what it is called in the space."""

    model: Text
    code: Text


@dataclass(frozen=True, kw_only=True)
class Replay(Row):
    """One search on the table: the networks it asked for, in order, as their places in the table."""

    sampler: Text
    seed: CountOrNone
    order: Annotated[tuple[CountOrNone, ...], Some()]


@dataclass(frozen=True, kw_only=True)
class SearchData(Row):
    """The data of a result of `benchmarks/search.py`. The reward is the space's: top1 · step^w · num_params^v.

    `reference` is the network whose training step is 1. `data` names the pictures: so many to train on, so many to
    validate. The table is a random part of the space, or all of it, in the order drawn; the published tables that the
    space has are its first networks.
    """

    space: Space
    data: Text
    train_pictures: Count
    val_pictures: Count
    short_epochs: Count
    long_epochs: Count
    seed: CountOrNone
    reference: Text
    published: tuple[Published, ...] = ()
    networks: Annotated[tuple[NetworkRow, ...], Some()]
    long_runs: tuple[LongRun, ...] = ()
    replays: tuple[Replay, ...] = ()

    def __post_init__(self) -> None:
        super().__post_init__()
        for replay in self.replays:
            if len(set(replay.order)) < len(replay.order) or max(replay.order) >= len(self.networks):
                raise RowError(f"a replay of {replay.sampler} asks for a network twice, or for one that is not there.")

    @cached_property
    def rewards(self) -> tuple[float, ...]:
        """The reward of every network of the table, in its order."""
        weights = self.space.reward
        return tuple(
            row.top1 * row.step.value**weights.step_time * row.num_params**weights.params for row in self.networks
        )

    @cached_property
    def by_code(self) -> dict[str, NetworkRow]:
        """The table's networks by their codes."""
        return {row.code: row for row in self.networks}

    def reward_of(self, code: str) -> float:
        """The reward of one network."""
        return self.rewards[[row.code for row in self.networks].index(code)]

    def long_top1(self, code: str) -> list[float]:
        """What a network reached when it was trained long, one accuracy a seed, whatever it was trained for."""
        by_seed = {run.seed: run.top1 for run in self.long_runs if run.code == code}
        return [by_seed[seed] for seed in sorted(by_seed)]

    @property
    def samplers(self) -> list[str]:
        """Whose searches were replayed, chance among them."""
        return list(dict.fromkeys(replay.sampler for replay in self.replays))
