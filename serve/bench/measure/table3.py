"""Owns the paper's Table 3, EfficientNet-B4 with more and more Fused-MBConv, and the rows of the same measured here."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations
from typing import Annotated, Any, Literal

from serve.bench.measure.ratio import Ratio, paired_ratio
from zoo.measure.rounds import Rounds, disturbance
from zoo.results import Summary
from zoo.rows import Count, Positive, Row, Some, Text

SOURCE = "EfficientNetV2, arXiv 2104.00298v3, Table 3"
# The caption says pictures a second and not of what; the text beside it (§3.2) speaks of training.
SPEED = "pictures/s; the text beside the table speaks of training speed"
Pass = Literal["inference", "training"]
PASSES: tuple[Pass, ...] = ("inference", "training")


@dataclass(frozen=True, kw_only=True)
class Published(Row):
    """A line of Table 3: millions of parameters, billions of multiply-adds, top-1 on ImageNet, pictures a second."""

    variant: Text
    fused: Text
    params_m: Positive
    macs_b: Positive
    top1: Positive
    tpu_v3: Positive
    v100: Positive

    def speed(self, column: str) -> float:
        """Pictures a second of one of `COLUMNS`."""
        return {"V100": self.v100, "TPUv3": self.tpu_v3}[column]


COLUMNS = ("V100", "TPUv3")
TABLE_3 = (
    Published(variant="v1-b4", fused="none", params_m=19.3, macs_b=4.5, top1=82.8, tpu_v3=262, v100=155),
    Published(variant="v1-b4-fused13", fused="1–3", params_m=20.0, macs_b=7.5, top1=83.1, tpu_v3=362, v100=216),
    Published(variant="v1-b4-fused15", fused="1–5", params_m=43.4, macs_b=21.3, top1=83.1, tpu_v3=327, v100=223),
    Published(variant="v1-b4-fused17", fused="1–7", params_m=132.0, macs_b=34.4, top1=81.7, tpu_v3=254, v100=206),
)


@dataclass(frozen=True, kw_only=True)
class FusionRow(Row):
    """One network of the table in one pass. `ratio` is its time over that of the network without Fused-MBConv."""

    variant: Text
    done: Pass
    num_params: Count
    macs: Count
    ms: Positive
    pictures_per_second: Positive
    latency: Summary
    ratio: Ratio | None = None


@dataclass(frozen=True, kw_only=True)
class PassData(Row):
    """How one pass was measured: what ran it, at which batch, in what, on how many threads; and every round."""

    done: Pass
    engine: Text
    backend: Text
    precision: Text
    batch_size: Count
    threads: Count | None = None
    rounds: Rounds


@dataclass(frozen=True, kw_only=True)
class FusionData(Row):
    """The data of a result of `zoo bench fusion`."""

    image_size: Count
    passes: Annotated[tuple[PassData, ...], Some()]
    rows: Annotated[tuple[FusionRow, ...], Some()]
    gpu: Mapping[str, Any] | None
    gpu_reason: str

    def of(self, done: Pass) -> list[FusionRow]:
        """The rows of one pass, in the order of the table."""
        return [row for row in self.rows if row.done == done]

    @property
    def warning(self) -> str:
        """What a headline has to say of passes that never were quiet."""
        return disturbance(one.rounds for one in self.passes)


def published(variant: str) -> Published:
    """The line of a network.

    Raises:
        KeyError: the table has none.
    """
    return {row.variant: row for row in TABLE_3}[variant]


def fastest_first(speeds: Mapping[str, float]) -> list[str]:
    """Names by their pictures a second, the fastest first."""
    return sorted(speeds, key=lambda name: -speeds[name])


def published_order(column: str) -> list[str]:
    """What is fused, the fastest first, by one of `COLUMNS`: V100 → 1–5, 1–3, 1–7, none."""
    return fastest_first({row.fused: row.speed(column) for row in TABLE_3})


def measured_order(rounds: Rounds, rows: Sequence[FusionRow]) -> list[list[str]]:
    """The same as measured here; what no interval tells from the one before stands in one list with it."""
    groups: list[list[str]] = []
    before: FusionRow | None = None
    for row in sorted(rows, key=lambda row: row.ms):
        name = published(row.variant).fused
        if before and _ratio(rounds, before, row).verdict != "faster":
            groups[-1].append(name)
        else:
            groups.append([name])
        before = row
    return groups


def agreement(rounds: Rounds, rows: Sequence[FusionRow], column: str) -> tuple[int, int]:
    """How many pairs of networks are for certain ordered here as in one of `COLUMNS`, and of how many."""
    pairs = list(combinations(rows, 2))
    same = 0
    for one, other in pairs:
        faster = published(one.variant).speed(column) > published(other.variant).speed(column)
        same += _ratio(rounds, one, other).verdict == ("faster" if faster else "slower")
    return same, len(pairs)


def _ratio(rounds: Rounds, one: FusionRow, other: FusionRow) -> Ratio:
    return paired_ratio(rounds.medians_ms(one.variant), rounds.medians_ms(other.variant))
