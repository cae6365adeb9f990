"""Owns the rows of a result of `zoo bench latency-table`: how the table was measured, how far its sums are off."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from statistics import fmean
from typing import Annotated, Any

from zoo.errors import RowError
from zoo.measure.rounds import Rounds, disturbance
from zoo.model.blocks import Block, LatencyTable
from zoo.model.space import Candidate, Space
from zoo.ranks import rank_correlation
from zoo.rows import Count, CountOrNone, NotNegative, Positive, Row, Some, Text


@dataclass(frozen=True, kw_only=True)
class PartRow(Row):
    """How a row of the table was measured: the frame that was taken off, the rounds, and the distance from PyTorch's
    answers as a share of the largest. `robbed_rounds` are those in which the machine was taken away.
    """

    frame_ms: NotNegative
    max_error: NotNegative
    rounds: Count
    robbed_rounds: CountOrNone
    quiet: bool


@dataclass(frozen=True, kw_only=True)
class WholeRow(Row):
    """A whole network as measured, the median of its rounds with its 95 % interval, beside the sum of its parts.

    `name` is a published table's or the candidate's code; `drawn` says that chance chose it.
    """

    written_too = ("error",)

    name: Text
    candidate: Candidate
    drawn: bool
    ms: Positive
    low_ms: Positive
    high_ms: Positive
    sum_ms: NotNegative
    sum_low_ms: NotNegative
    sum_high_ms: NotNegative

    @property
    def error(self) -> float:
        """How far the sum is from the network, as a share of the network's time; above 0 it is too long."""
        return self.sum_ms / self.ms - 1.0


@dataclass(frozen=True, kw_only=True)
class LatencyTableData(Row):
    """The data of a result of `zoo bench latency-table`; `parts` and the rows of the table are in the same order.

    While it grows, `asked` says how many parts the space has. Figures of errors are shares of 1, and None where no
    whole network was measured; of fewer than three networks there is no correlation of ranks.
    """

    written_too = ("complete", "mean_error", "max_error", "bias", "rank_correlation")

    space: Space
    backend: Text
    table: LatencyTable
    asked: Count
    parts: Annotated[tuple[PartRow, ...], Some()]
    whole: tuple[WholeRow, ...] = ()
    whole_rounds: Rounds | None = None
    seed: CountOrNone = 0
    gpu: Mapping[str, Any] | None = None
    gpu_reason: str = ""

    def __post_init__(self) -> None:
        super().__post_init__()
        if len(self.parts) != len(self.table.rows):
            raise RowError(f"{len(self.parts)} parts and {len(self.table.rows)} rows of the table.")

    @property
    def complete(self) -> bool:
        """Whether every part is there."""
        return len(self.parts) >= self.asked

    @property
    def mean_error(self) -> float | None:
        """The mean distance of a sum from its network, whatever its sign."""
        return fmean(abs(row.error) for row in self.whole) if self.whole else None

    @property
    def max_error(self) -> float | None:
        """The largest one."""
        return max((abs(row.error) for row in self.whole), default=None)

    @property
    def bias(self) -> float | None:
        """The mean with its sign: what all sums have in common, which changes no ranking."""
        return fmean(row.error for row in self.whole) if self.whole else None

    @property
    def rank_correlation(self) -> float | None:
        """Spearman's, of the sums and the networks."""
        return rank_correlation([row.sum_ms for row in self.whole], [row.ms for row in self.whole])

    @property
    def drowned(self) -> int:
        """How many parts are lost in the noise of what is around them: their interval holds 0."""
        return sum(row.low_ms == 0 for row in self.table.rows)

    @property
    def operators(self) -> dict[str, int]:
        """Of pairs of blocks that differ in operator and squeeze alone, how many are faster as which, by intervals."""
        fused = {_but_for_operator(row.block): row for row in self.table.rows if row.block.operator == "fused_mbconv"}
        found = {"mbconv": 0, "fused_mbconv": 0, "unclear": 0}
        for row in self.table.rows:
            other = fused.get(_but_for_operator(row.block)) if row.block.operator == "mbconv" else None
            if other:
                faster = "mbconv" if row.high_ms < other.low_ms else "unclear"
                found["fused_mbconv" if other.high_ms < row.low_ms else faster] += 1
        return found

    @property
    def warning(self) -> str:
        """What a headline has to say of a machine that was not quiet; "" of one that was."""
        loud = [row for row in self.parts if not row.quiet]
        if loud:
            robbed, rounds = sum(row.robbed_rounds for row in loud), sum(row.rounds for row in loud)
            return (
                f"The machine was not quiet: of {len(loud)} of {len(self.parts)} parts {robbed} of {rounds} rounds "
                "were disturbed; these figures are of a busy machine."
            )
        return disturbance([self.whole_rounds] if self.whole_rounds else [])


def _but_for_operator(block: Block) -> Block:
    return replace(block, operator="mbconv", se_ratio=0.0)
