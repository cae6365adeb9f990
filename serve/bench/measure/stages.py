"""Owns the question "MBConv or Fused-MBConv here?": the two forms of a stage, their figures, and who wins; no timing.

A stage is compared at its own place in its own network: with the channels and the map size that reach it there.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from statistics import median
from typing import Annotated, Any, Literal, cast

from serve.bench.measure.timing import Samples, pooled
from serve.bench.options import StagePrecision
from zoo.model.counts import output_size, stage_cost
from zoo.model.spec import ChannelCount, Operator, Stage, Variant
from zoo.results import Summary, summarize
from zoo.rows import Count, Positive, Row, Share, Some
from zoo.wording import OPERATOR_NAMES, times

Winner = Literal["mbconv", "fused_mbconv", "even"]

OPERATORS: tuple[Operator, Operator] = ("mbconv", "fused_mbconv")
# Squeeze-and-excitation in EfficientNetV2, paper Table 4.
SE_RATIOS: dict[Operator, float] = {"mbconv": 0.25, "fused_mbconv": 0.0}
# Below this difference the forms count as even whatever the spread: nobody rebuilds a network for less.
EVEN_BELOW = 0.02


@dataclass(frozen=True, kw_only=True)
class StagePlace(Row):
    """One stage of a network at one image size: `in_size` and `out_size` are sides of its maps in pixels."""

    index: Count
    stage: Stage
    in_channels: ChannelCount
    in_size: Count
    out_size: Count


@dataclass(frozen=True, kw_only=True)
class FormRow(Row):
    """A stage built in one form, and its time per batch.

    `ms` is the median of the rounds' medians, `best_ms` and `worst_ms` the smallest and largest of them; `latency`
    pools every sample. `num_params` and `macs` are of the whole stage, batch 1; `gmacs_per_s` is what was achieved.
    """

    operator: Operator
    se_ratio: Share
    num_params: Count
    macs: Count
    ms: Positive
    best_ms: Positive
    worst_ms: Positive
    gmacs_per_s: Positive
    round_p50_ms: tuple[Positive, ...]
    latency: Summary


@dataclass(frozen=True, kw_only=True)
class StageRow(Row):
    """One stage timed in both forms. `paper_operator` is the form the network's own table uses."""

    written_too = ("fused_speedup", "winner", "verdict")

    index: Count
    paper_operator: Operator
    kernel_size: Count
    stride: Count
    expand_ratio: Count
    in_channels: ChannelCount
    out_channels: ChannelCount
    num_layers: Count
    in_size: Count
    out_size: Count
    mbconv: FormRow
    fused_mbconv: FormRow

    @property
    def forms(self) -> tuple[FormRow, FormRow]:
        """MBConv first."""
        return self.mbconv, self.fused_mbconv

    def form(self, operator: Operator) -> FormRow:
        """The row of one form."""
        return self.mbconv if operator == "mbconv" else self.fused_mbconv

    @property
    def fused_speedup(self) -> float:
        """Time of MBConv over time of Fused-MBConv: above 1, Fused-MBConv is faster."""
        return self.mbconv.ms / self.fused_mbconv.ms

    @property
    def winner(self) -> Winner:
        """The faster form; "even" where the rounds' medians overlap or differ by less than 2 %.

        Without a real difference, 5 medians of one form all lie below 5 of the other in 1 of 126 runs (10 choose 5,
        either way round: 2 / 252), so a winner is more than the spread.
        """
        fast, slow = sorted(self.forms, key=lambda form: form.ms)
        if fast.worst_ms >= slow.best_ms or slow.ms < fast.ms * (1 + EVEN_BELOW):
            return "even"
        return cast(Winner, fast.operator)

    @property
    def ratio(self) -> str:
        """How many times as fast the winner is: “1.8×”, or "" where the forms are even."""
        return "" if self.winner == "even" else times(max(self.fused_speedup, 1 / self.fused_speedup))

    @property
    def verdict(self) -> str:
        """What a table says: “Fused-MBConv 1.8× faster”, or “even”."""
        return f"{OPERATOR_NAMES[self.winner]} {self.ratio} faster" if self.ratio else "even"


@dataclass(frozen=True, kw_only=True)
class StagesData(Row):
    """The data of a result of `zoo bench stages`: a network's stages at one size, batch and precision."""

    written_too = ("model", "total_ms")

    variant: Variant
    image_size: Count
    batch_size: Count
    precision: StagePrecision
    rows: Annotated[tuple[StageRow, ...], Some()]
    gpu: Mapping[str, Any] | None
    gpu_reason: str

    @property
    def model(self) -> str:
        """The network's id."""
        return self.variant.id

    @property
    def conditions(self) -> str:
        """What two runs must share to be compared: “s at 384 px, batch 8, fp16”."""
        return f"{self.model} at {self.image_size} px, batch {self.batch_size}, {self.precision}"

    @property
    def total_ms(self) -> dict[str, float]:
        """Milliseconds of all stages together under four ways of choosing: the sum of stages timed one by one."""
        return {
            "paper": sum(row.form(row.paper_operator).ms for row in self.rows),
            "mbconv": sum(row.mbconv.ms for row in self.rows),
            "fused_mbconv": sum(row.fused_mbconv.ms for row in self.rows),
            "fastest": sum(min(form.ms for form in row.forms) for row in self.rows),
        }


def places(variant: Variant, image_size: int) -> Iterator[StagePlace]:
    """Yield every stage with what reaches it when the network sees pictures of `image_size` pixels."""
    channels, size = variant.stem_channels, output_size(image_size, 2)
    for index, stage in enumerate(variant.stages, start=1):
        out_size = output_size(size, stage.stride)
        yield StagePlace(index=index, stage=stage, in_channels=channels, in_size=size, out_size=out_size)
        channels, size = stage.out_channels, out_size


def form_of(variant: Variant, stage: Stage, operator: Operator) -> Stage:
    """`stage` with another operator and everything else kept: kernel, stride, expand ratio, channels, layers.

    The stage's own form is its own row. The other form gets the squeeze-and-excitation that the network's stages of
    that form have (0.25 for MBConv in EfficientNetV2, none in Lite), else the paper's (Table 4).
    """
    if stage.operator == operator:
        return stage
    own = next((other.se_ratio for other in variant.stages if other.operator == operator), SE_RATIOS[operator])
    return replace(stage, operator=operator, se_ratio=own)


def stage_row(variant: Variant, place: StagePlace, batch_size: int, visits: Sequence[Sequence[Samples]]) -> StageRow:
    """Put the visits to both forms (in the order of `OPERATORS`) beside what the stage costs on paper."""
    stage = place.stage
    mbconv, fused_mbconv = (
        _form_row(form_of(variant, stage, operator), place, batch_size, of_form)
        for operator, of_form in zip(OPERATORS, visits, strict=True)
    )
    return StageRow(
        index=place.index,
        paper_operator=stage.operator,
        kernel_size=stage.kernel_size,
        stride=stage.stride,
        expand_ratio=stage.expand_ratio,
        in_channels=place.in_channels,
        out_channels=stage.out_channels,
        num_layers=stage.num_layers,
        in_size=place.in_size,
        out_size=place.out_size,
        mbconv=mbconv,
        fused_mbconv=fused_mbconv,
    )


def _form_row(form: Stage, place: StagePlace, batch_size: int, visits: Sequence[Samples]) -> FormRow:
    num_params, macs = stage_cost(form, place.in_channels, place.in_size)
    medians = tuple(visit.median_ms for visit in visits)
    return FormRow(
        operator=form.operator,
        se_ratio=form.se_ratio,
        num_params=num_params,
        macs=macs,
        ms=median(medians),
        best_ms=min(medians),
        worst_ms=max(medians),
        gmacs_per_s=macs * batch_size / median(medians) / 1e6,
        round_p50_ms=medians,
        latency=summarize(pooled(visits)),
    )
