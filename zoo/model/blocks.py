"""Owns the parts of a network that are timed one by one: stem, blocks, head; and what a table of times adds up to.

A network's latency is then estimated as the sum of its parts' (Tan et al. 2019, "MnasNet", measures whole networks;
Wu et al. 2019, "FBNet" §3.2, sums a table, as here). Who measures a table is the harness's.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from math import hypot
from pathlib import Path
from typing import Annotated, Any, Literal

from zoo.errors import RowError, ZooError
from zoo.model.counts import output_size
from zoo.model.spec import ChannelCount, Operator, Stage, Variant
from zoo.results import KindName, Result, read_results
from zoo.rows import Count, NotNegative, Row, Share, Some, Text, Within

LATENCY_TABLE: KindName = "latency_table"
MAKE_A_TABLE = "`zoo bench latency-table --space SPACE` writes one."


@dataclass(frozen=True, kw_only=True)
class Block(Row):
    """One part of a network at its shapes: what two networks may have in common.

    `in_size` is the side of its input map in pixels. A `stem` takes pictures of `in_channels` planes; of a `head`
    `out_channels` are those of its convolution, and the classifier behind it has the classes of the table.
    """

    operator: Operator | Literal["stem", "head"]
    kernel_size: Annotated[int, Within(choices=(1, 3, 5, 7))]
    stride: Annotated[int, Within(choices=(1, 2))]
    expand_ratio: Annotated[int, Within(1, 12)]
    se_ratio: Share
    in_channels: ChannelCount
    out_channels: Count
    in_size: Count

    @property
    def stage(self) -> Stage:
        """The stage of this one layer; not for stem and head."""
        if self.operator == "stem" or self.operator == "head":
            raise ValueError(f"a {self.operator} is no stage")
        return Stage(
            operator=self.operator,
            kernel_size=self.kernel_size,
            stride=self.stride,
            expand_ratio=self.expand_ratio,
            out_channels=self.out_channels,
            num_layers=1,
            se_ratio=self.se_ratio,
        )

    def __str__(self) -> str:
        place = f"{self.in_channels} → {self.out_channels} channels, {self.in_size} px"
        if self.operator in ("stem", "head"):
            return f"{self.operator}, {place}"
        squeeze = f" se{self.se_ratio:g}" if self.se_ratio else ""
        stride = f" s{self.stride}" if self.stride > 1 else ""
        return f"{self.operator} k{self.kernel_size}{stride} e{self.expand_ratio}{squeeze}, {place}"


def stem_block(planes: int, channels: int, image_size: int) -> Block:
    """The first convolution, 3×3 with stride 2."""
    return _end("stem", 3, 2, planes, channels, image_size)


def head_block(in_channels: int, head_channels: int, in_size: int) -> Block:
    """The last convolution, 1×1, with the pooling and the classifier behind it."""
    return _end("head", 1, 1, in_channels, head_channels, in_size)


def _end(
    operator: Literal["stem", "head"], kernel_size: int, stride: int, in_channels: int, out_channels: int, in_size: int
) -> Block:
    return Block(
        operator=operator,
        kernel_size=kernel_size,
        stride=stride,
        expand_ratio=1,
        se_ratio=0.0,
        in_channels=in_channels,
        out_channels=out_channels,
        in_size=in_size,
    )


def blocks_of_stage(stage: Stage, in_channels: int, in_size: int) -> Iterator[Block]:
    """The blocks of a stage, one for each layer; the first one has the stride and changes the channels."""
    for layer in range(stage.num_layers):
        yield Block(
            operator=stage.operator,
            kernel_size=stage.kernel_size,
            stride=1 if layer else stage.stride,
            expand_ratio=stage.expand_ratio,
            se_ratio=stage.se_ratio,
            in_channels=stage.out_channels if layer else in_channels,
            out_channels=stage.out_channels,
            in_size=output_size(in_size, stage.stride) if layer else in_size,
        )


def blocks_of(variant: Variant, image_size: int | None = None) -> tuple[Block, ...]:
    """Every part of an EfficientNet at `image_size` (default: its eval size), in the order they run, repeats too.

    Raises:
        ZooError: a ResNet, which has other ends.
    """
    if variant.is_resnet:
        raise ZooError(
            f"{variant.id} is no EfficientNet, and tables of blocks are about those.", "Take s, for example."
        )
    size = image_size or variant.eval_size
    parts = [stem_block(variant.channels, variant.stem_channels, size)]
    channels, size = variant.stem_channels, output_size(size, 2)
    for stage in variant.stages:
        parts += blocks_of_stage(stage, channels, size)
        channels, size = stage.out_channels, output_size(size, stage.stride)
    return (*parts, head_block(channels, variant.head_channels, size))


@dataclass(frozen=True, kw_only=True)
class TimedBlock(Row):
    """What one part takes: the median of `n` samples, and the 95 % interval of that median; milliseconds a call."""

    block: Block
    ms: NotNegative
    low_ms: NotNegative
    high_ms: NotNegative
    n: Count


@dataclass(frozen=True, kw_only=True)
class LatencyTable(Row):
    """What every part of a space's networks takes in one engine on one device: `data` of a result of that kind.

    `call_ms` is what a call takes that computes nothing; it is in the sum once, and in no row. `image_size`,
    `batch_size` and `num_classes` are what the table is about.
    """

    space: Text
    space_sha256: Text
    engine: Text
    precision: Text
    threads: Count | None
    image_size: Count
    batch_size: Count
    num_classes: Count
    call_ms: NotNegative
    rows: Annotated[tuple[TimedBlock, ...], Some()]

    @cached_property
    def by_block(self) -> dict[Block, TimedBlock]:
        """The rows by what they are of."""
        return {row.block: row for row in self.rows}

    def sum_ms(self, variant: Variant) -> tuple[float, float, float]:
        """The latency of a whole network, and the ends of its 95 % interval, as far as the parts' own noise goes.

        Parts are timed one by one, so their errors are independent: the half-widths are added in quadrature; layers
        that are alike share a row, and its error counts once for each. How far a sum is from a measured network is
        another error, and the larger one: the result that holds the table states it.

        Raises:
            ZooError: the table has no row for a part.
        """
        total, below, above = self.call_ms, dict[Block, float](), dict[Block, float]()
        for block in blocks_of(variant, self.image_size):
            row = self.by_block.get(block)
            if row is None:
                raise ZooError(
                    f"The latency table of {self.space} at {self.image_size} px has no row for {block}.",
                    f"It is of another space: {MAKE_A_TABLE}",
                )
            total += row.ms
            below[block] = below.get(block, 0.0) + max(row.ms - row.low_ms, 0.0)
            above[block] = above.get(block, 0.0) + max(row.high_ms - row.ms, 0.0)
        return total, max(total - hypot(*below.values()), 0.0), total + hypot(*above.values())


def read_latency_table(path: Path) -> tuple[LatencyTable, dict[str, Any]]:
    """Read a result of `zoo bench latency-table`: its table, and the environment it was measured in.

    Raises:
        ZooError: there is no such file, or it is no such result.
    """
    results: list[Result] = read_results([path], kinds=(LATENCY_TABLE,))
    if len(results) != 1:
        raise ZooError(f"{path} holds {len(results)} latency tables.", "Name the file of one of them.")
    fields = results[0].data.get("table")
    try:
        table = LatencyTable.from_dict(fields if isinstance(fields, dict) else {}, "table.")
    except RowError as error:
        raise ZooError(f"{path} is damaged: {error.problem}", MAKE_A_TABLE) from error
    return table, dict(results[0].environment)
