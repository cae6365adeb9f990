"""Owns the rows of what is known of a stage beside its own time: in place, by exchange, around it, and the roofline.

Every `Ratio` here is the time of Fused-MBConv as a share of MBConv's.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Annotated, Literal

from serve.bench.measure.ratio import Ratio
from zoo.measure.rounds import Rounds
from zoo.model.spec import ChannelCount, Operator
from zoo.rows import Count, CountOrNone, NotNegative, Positive, Row, Some, Text
from zoo.wording import OPERATOR_NAMES, times

Winner = Literal["mbconv", "fused_mbconv", "even", "unclear"]
_WINNERS: dict[str, Winner] = {"faster": "fused_mbconv", "slower": "mbconv", "even": "even", "unclear": "unclear"}


def winner_of(ratio: Ratio | None) -> Winner:
    """Who wins by a ratio of Fused-MBConv's time over MBConv's; without one it is unclear."""
    return _WINNERS[ratio.verdict] if ratio else "unclear"


def advantage(ratio: Ratio | None) -> str:
    """How many times as fast the winner is: “1.8×”, or "" where there is none."""
    if ratio is None or winner_of(ratio) in ("even", "unclear"):
        return ""
    return times(max(ratio.value, 1 / ratio.value))


def verdict_of(ratio: Ratio | None) -> str:
    """“Fused-MBConv 1.8× faster”, “even”, or “unclear”."""
    winner = winner_of(ratio)
    return f"{OPERATOR_NAMES[winner]} {advantage(ratio)} faster" if winner in OPERATOR_NAMES else winner


@dataclass(frozen=True, kw_only=True)
class LayerTime(Row):
    """What the layers of one operator of one block take a call, in place: the median of the calls.

    As in `serve.bench.measure.layer_names`: `block` and `operator` are None where an engine joined several of them,
    `beside` is "before" or "after" for what is in no stage.
    """

    stage: Count | None = None
    block: CountOrNone | None = None
    operator: str | None = None
    beside: Literal["", "before", "after"] = ""
    ms: NotNegative


@dataclass(frozen=True, kw_only=True)
class InPlace(Row):
    """The whole network as published, layer by layer, by the engine's own profiler.

    `whole_ms` is what it takes without a profiler, the median of `rounds`, `profiled_ms` what it takes with one;
    `unattributed_ms` are what no part of the network could be told of, by what the engine calls such layers.
    """

    profiler: Text
    calls: Count
    whole_ms: Positive
    profiled_ms: Positive
    layers: Annotated[tuple[LayerTime, ...], Some()]
    unattributed_ms: Mapping[str, float] = field(default_factory=dict)
    rounds: Rounds | None = None

    def stage_ms(self, index: int) -> float:
        """What the layers of one stage take together."""
        return sum(layer.ms for layer in self.layers if layer.stage == index)

    def beside_ms(self, where: str) -> float:
        """What is before the first stage, or after the last."""
        return sum(layer.ms for layer in self.layers if layer.beside == where)

    @property
    def nowhere_ms(self) -> float:
        """What could not be attributed."""
        return sum(self.unattributed_ms.values())

    @property
    def sum_ms(self) -> float:
        """All layers together."""
        return sum(layer.ms for layer in self.layers) + self.nowhere_ms

    def operators_ms(self, index: int) -> dict[str, float]:
        """What each operator of a stage takes, the blocks together; joined ones are "several"."""
        found: dict[str, float] = {}
        for layer in self.layers:
            if layer.stage == index:
                name = layer.operator or "several"
                found[name] = found.get(name, 0.0) + layer.ms
        return found


@dataclass(frozen=True, kw_only=True)
class Exchange(Row):
    """The whole network with one stage as the other operator, beside the network as it is.

    `own_ms` and `other_ms` are times of whole networks; `ratio` is of those. What counts as even is 2 % of the stage's
    own time. `in_place` is the ratio of the stage's layers in both networks by the profiler, None where there is none.
    """

    index: Count
    own_operator: Operator
    own_ms: Positive
    other_ms: Positive
    ratio: Ratio
    rounds: Rounds | None = None
    in_place: Ratio | None = None
    own_in_place_ms: NotNegative | None = None
    other_in_place_ms: NotNegative | None = None

    @property
    def saved_ms(self) -> float:
        """What the network saves with Fused-MBConv in this stage instead of MBConv; below 0 it loses."""
        return self.own_ms - self.other_ms if self.own_operator == "mbconv" else self.other_ms - self.own_ms


@dataclass(frozen=True, kw_only=True)
class Peaks(Row):
    """The most a device gave on the spot: floating-point operations and bytes a second, and what gave them.

    `tried` are all that were measured, in the same units.
    """

    flops_per_s: Positive
    flops_by: Text
    bytes_per_s: Positive
    bytes_by: Text
    tried: Mapping[str, float] = field(default_factory=dict)

    def attainable(self, intensity: float) -> float:
        """The roof above an intensity, FLOP/byte: min(peak, intensity × bandwidth), FLOP/s (Williams et al. 2009)."""
        return min(self.flops_per_s, intensity * self.bytes_per_s)

    @property
    def ridge(self) -> float:
        """The intensity from which on arithmetic is the limit, FLOP/byte."""
        return self.flops_per_s / self.bytes_per_s


@dataclass(frozen=True, kw_only=True)
class Cell(Row):
    """One place of a crossover map: a block of a stage's kernel and expand ratio at other channels, size and batch."""

    stage: Count
    channels: ChannelCount
    size: Count
    batch_size: Count
    mbconv_ms: Positive
    fused_mbconv_ms: Positive
    ratio: Ratio | None
    rounds: Rounds | None = None
