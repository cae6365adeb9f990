"""Owns the question "MBConv or Fused-MBConv here?": the two forms of a stage, their figures, and who wins; no timing.

A stage is asked at its own place in its own network: the channels and the map size that reach it there.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from statistics import median
from typing import Any, Literal, Self, cast

from serve.bench.measure.timing import Samples
from zoo.model.counts import output_size, stage_cost
from zoo.model.spec import Operator, Stage, Variant
from zoo.results import Summary, percentile, summarize

Winner = Literal["mbconv", "fused_mbconv", "even"]

OPERATORS: tuple[Operator, Operator] = ("mbconv", "fused_mbconv")
OPERATOR_NAMES: dict[str, str] = {"mbconv": "MBConv", "fused_mbconv": "Fused-MBConv"}
# Squeeze-and-excitation in EfficientNetV2, paper Table 4.
SE_RATIOS: dict[Operator, float] = {"mbconv": 0.25, "fused_mbconv": 0.0}
# Below this difference the forms count as even whatever the spread: nobody rebuilds a network for less.
EVEN_BELOW = 0.02


@dataclass(frozen=True, kw_only=True)
class StagePlace:
    """One stage of a network at one image size: `in_size` and `out_size` are sides of its maps in pixels."""

    index: int
    stage: Stage
    in_channels: int
    in_size: int
    out_size: int


@dataclass(frozen=True, kw_only=True)
class FormRow:
    """A stage built in one form, and its time per batch.

    `ms` is the median of the rounds' medians, `best_ms` and `worst_ms` the smallest and largest of them; `latency`
    pools every sample. `num_params` and `macs` are of the whole stage, batch 1; `gmacs_per_s` is what was achieved.
    """

    operator: Operator
    se_ratio: float
    num_params: int
    macs: int
    ms: float
    best_ms: float
    worst_ms: float
    gmacs_per_s: float
    round_p50_ms: tuple[float, ...]
    latency: Summary

    @classmethod
    def from_samples(cls, stage: Stage, cost: tuple[int, int], batch_size: int, visits: Sequence[Samples]) -> FormRow:
        """Summarise the visits to a form of `stage` whose (parameters, MACs) are `cost`."""
        medians = tuple(percentile(sorted(visit.ms), 50) for visit in visits)
        typical = median(medians)
        return cls(
            operator=stage.operator,
            se_ratio=stage.se_ratio,
            num_params=cost[0],
            macs=cost[1],
            ms=typical,
            best_ms=min(medians),
            worst_ms=max(medians),
            gmacs_per_s=cost[1] * batch_size / typical / 1e6,
            round_p50_ms=medians,
            latency=summarize(sample for visit in visits for sample in visit.ms),
        )

    def to_dict(self) -> dict[str, Any]:
        """Return plain JSON types."""
        return asdict(self) | {"round_p50_ms": list(self.round_p50_ms), "latency": self.latency.to_dict()}

    @classmethod
    def from_dict(cls, fields: Mapping[str, Any]) -> Self:
        """Read what `to_dict` wrote."""
        typed = {"latency": Summary.from_dict(fields["latency"]), "round_p50_ms": tuple(fields["round_p50_ms"])}
        return cls(**{**fields, **typed})


@dataclass(frozen=True, kw_only=True)
class StageRow:
    """One stage timed in both forms. `paper_operator` is the form the network's own table uses."""

    index: int
    paper_operator: Operator
    kernel_size: int
    stride: int
    expand_ratio: int
    in_channels: int
    out_channels: int
    num_layers: int
    in_size: int
    out_size: int
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
    def verdict(self) -> str:
        """A sentence's worth: “Fused-MBConv 1.8× faster”, or “even”."""
        if self.winner == "even":
            return "even"
        ratio = max(self.fused_speedup, 1 / self.fused_speedup)
        return f"{OPERATOR_NAMES[self.winner]} {times(ratio)} faster"

    def to_dict(self) -> dict[str, Any]:
        """Return plain JSON types, with the verdict."""
        own = {key: value for key, value in asdict(self).items() if key not in OPERATORS}
        forms = {form.operator: form.to_dict() for form in self.forms}
        return own | forms | {"fused_speedup": self.fused_speedup, "winner": self.winner, "verdict": self.verdict}

    @classmethod
    def from_dict(cls, fields: Mapping[str, Any]) -> Self:
        """Read what `to_dict` wrote; the verdict is judged again, never believed."""
        own = {key: value for key, value in fields.items() if key not in ("fused_speedup", "winner", "verdict")}
        forms = {str(operator): FormRow.from_dict(fields[operator]) for operator in OPERATORS}
        return cls(**{**own, **forms})


def times(ratio: float) -> str:
    """A ratio for people, never rounded to one where it is not: 1.04×, 1.8×, 12×."""
    return f"{ratio:.2f}×" if ratio < 1.1 else f"{ratio:.1f}×" if ratio < 10 else f"{ratio:.0f}×"


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
    rows = {}
    for operator, of_form in zip(OPERATORS, visits, strict=True):
        form = form_of(variant, place.stage, operator)
        cost = stage_cost(form, place.in_channels, place.in_size)
        rows[operator] = FormRow.from_samples(form, cost, batch_size, of_form)
    return StageRow(
        index=place.index,
        paper_operator=place.stage.operator,
        kernel_size=place.stage.kernel_size,
        stride=place.stage.stride,
        expand_ratio=place.stage.expand_ratio,
        in_channels=place.in_channels,
        out_channels=place.stage.out_channels,
        num_layers=place.stage.num_layers,
        in_size=place.in_size,
        out_size=place.out_size,
        mbconv=rows["mbconv"],
        fused_mbconv=rows["fused_mbconv"],
    )


def total_ms(rows: Sequence[StageRow]) -> dict[str, float]:
    """Milliseconds of all stages together under four ways of choosing: the sum of stages timed one by one."""
    return {
        "paper": sum(row.form(row.paper_operator).ms for row in rows),
        "mbconv": sum(row.mbconv.ms for row in rows),
        "fused_mbconv": sum(row.fused_mbconv.ms for row in rows),
        "fastest": sum(min(form.ms for form in row.forms) for row in rows),
    }
