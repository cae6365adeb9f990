"""Owns the question "MBConv or Fused-MBConv here?": a stage's two forms, their figures, and who wins; no timing."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from statistics import median
from typing import Annotated, Any

from serve.bench.measure.costs import stage_work
from serve.bench.measure.places import OPERATORS, StagePlace, form_of
from serve.bench.measure.ratio import Ratio, paired_ratio
from serve.bench.measure.stage_rows import (
    Cell,
    Exchange,
    InPlace,
    Peaks,
    Winner,
    advantage,
    verdict_of,
    winner_of,
)
from serve.bench.stage_options import SeChoice
from zoo.measure.rounds import Rounds, disturbance
from zoo.model.counts import stage_cost
from zoo.model.spec import ChannelCount, Operator, Stage, Variant
from zoo.results import Summary
from zoo.rows import Count, CountOrNone, NotNegative, Positive, Row, Share, Some, Text
from zoo.wording import with_threads

FRAME = "frame"
# What `ms` is at least: nothing takes less than the clock can tell.
LEAST_MS = 1e-6
# Results of the first version were all of this engine.
FIRST_ENGINE = "torch"


@dataclass(frozen=True, kw_only=True)
class FormRow(Row):
    """A stage built in one form, and its time per batch.

    `ms` is the median of the rounds' medians, `best_ms` and `worst_ms` the smallest and largest of them, the frame's
    time taken off; `latency` pools every sample as called, the frame in it. `num_params` and `macs` are of the whole
    stage, batch 1; `gmacs_per_s` is what was achieved; `bytes_moved` is of a batch (`serve.bench.measure.costs`), and
    `max_error` how far the answers are from PyTorch's, a share of the largest.
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
    bytes_moved: CountOrNone = 0
    max_error: NotNegative | None = None

    @property
    def flops_per_s(self) -> float:
        """Floating-point operations a second, two a multiply-add."""
        return 2e9 * self.gmacs_per_s

    @property
    def bytes_per_s(self) -> float:
        """Bytes a second that its layers move at least."""
        return self.bytes_moved / self.ms * 1000

    @property
    def intensity(self) -> float | None:
        """Floating-point operations a byte; None of results that did not count bytes."""
        return self.flops_per_s / self.bytes_per_s if self.bytes_moved else None

    def roof_share(self, peaks: Peaks | None) -> float | None:
        """What was achieved of what the roofline allows at its intensity."""
        if peaks is None or self.intensity is None:
            return None
        return self.flops_per_s / peaks.attainable(self.intensity)


@dataclass(frozen=True, kw_only=True)
class StageRow(Row):
    """One stage timed in both forms. `paper_operator` is the form the network's own table uses.

    `ratio` is None where the frame drowns the stage, so that its own time cannot be told; `frame_ms` is what was taken
    off; `engine` is what ran both forms, in the runner's own words, with so many `threads` of the processor. Results of
    the first version have none of these and no `rounds`: their ratio is made of their rounds' medians.
    """

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
    engine: str = ""
    threads: Count | None = None
    ratio: Ratio | None = None
    frame_ms: NotNegative | None = None
    rounds: Rounds | None = None

    @property
    def forms(self) -> tuple[FormRow, FormRow]:
        """MBConv first."""
        return self.mbconv, self.fused_mbconv

    def form(self, operator: Operator) -> FormRow:
        """The row of one form."""
        return self.mbconv if operator == "mbconv" else self.fused_mbconv

    @property
    def judged(self) -> Ratio | None:
        """The ratio that decides: Fused-MBConv's time as a share of MBConv's."""
        if self.ratio or self.frame_ms is not None:
            return self.ratio
        return paired_ratio(self.fused_mbconv.round_p50_ms, self.mbconv.round_p50_ms)

    @property
    def fused_speedup(self) -> float:
        """Time of MBConv over time of Fused-MBConv: above 1, Fused-MBConv is faster."""
        return 1 / self.judged.value if self.judged else self.mbconv.ms / self.fused_mbconv.ms

    @property
    def winner(self) -> Winner:
        """The faster form; "even" within 2 %, "unclear" where the interval allows both."""
        return winner_of(self.judged)

    @property
    def advantage(self) -> str:
        """How many times as fast the winner is: “1.8×”, or "" where there is none."""
        return advantage(self.judged)

    @property
    def verdict(self) -> str:
        """What a table says: “Fused-MBConv 1.8× faster”, “even”, “unclear”."""
        return verdict_of(self.judged)


@dataclass(frozen=True, kw_only=True)
class StagesData(Row):
    """The data of a result of `zoo bench stages`: a network's stages at one size, batch and precision in one engine.

    `se` and `kernel_size` are what was asked for beside the paper's forms. Methods that were not asked for are empty;
    `notes` says why one that was has nothing.
    """

    written_too = ("model", "total_ms", "quiet")

    variant: Variant
    image_size: Count
    batch_size: Count
    precision: Text
    rows: Annotated[tuple[StageRow, ...], Some()]
    gpu: Mapping[str, Any] | None
    gpu_reason: str
    engine: Text = FIRST_ENGINE
    se: SeChoice = "paper"
    kernel_size: Count | None = None
    peaks: Peaks | None = None
    in_place: InPlace | None = None
    exchange: tuple[Exchange, ...] = ()
    crossover: tuple[Cell, ...] = ()
    notes: tuple[str, ...] = ()

    @property
    def model(self) -> str:
        """The network's id."""
        return self.variant.id

    @property
    def threads(self) -> int | None:
        """The processor's threads that were in effect; None on a GPU, or where nobody knows."""
        return self.rows[0].threads

    @property
    def conditions(self) -> str:
        """All that a figure is of but the device: “s at 384 px, batch 8, fp32, ort-cpu, 1 thread”."""
        return ", ".join(filter(None, (self.setting, with_threads(self.threads))))

    @property
    def setting(self) -> str:
        """What two runs must share to be compared: “s at 384 px, batch 8, fp16, ort-cuda”."""
        said = [f"{self.model} at {self.image_size} px", f"batch {self.batch_size}", self.precision, self.engine]
        said += {"both": ["SE in both"], "none": ["SE in neither"], "paper": []}[self.se]
        said += [f"kernel {self.kernel_size}"] if self.kernel_size else []
        return ", ".join(said)

    @property
    def backend(self) -> str:
        """The engine in its runner's own words; "" of results of the first version, which used no runner."""
        return self.rows[0].engine

    @property
    def quiet(self) -> bool | None:
        """Whether the machine was quiet throughout; None of results that did not look."""
        seen = self._measured()
        return all(rounds.quiet for rounds in seen) if seen else None

    @property
    def warning(self) -> str:
        """What a headline has to say of a run that never was quiet; "" for a quiet one."""
        return disturbance(self._measured())

    def _measured(self) -> list[Rounds]:
        measured = [row.rounds for row in self.rows]
        measured += [row.rounds for row in self.exchange]
        measured += [cell.rounds for cell in self.crossover]
        measured += [self.in_place.rounds] if self.in_place else []
        return [rounds for rounds in measured if rounds]

    @property
    def total_ms(self) -> dict[str, float]:
        """Milliseconds of all stages together under four ways of choosing: the sum of stages timed one by one."""
        return {
            "paper": sum(row.form(row.paper_operator).ms for row in self.rows),
            "mbconv": sum(row.mbconv.ms for row in self.rows),
            "fused_mbconv": sum(row.fused_mbconv.ms for row in self.rows),
            "fastest": sum(min(form.ms for form in row.forms) for row in self.rows),
        }

    def exchanged(self, index: int) -> Exchange | None:
        """What the exchange of one stage gave."""
        return next((row for row in self.exchange if row.index == index), None)

    def winners(self, index: int) -> dict[str, Winner]:
        """Who wins a stage by each method that was used: isolated, in place, by exchange."""
        (row,) = (row for row in self.rows if row.index == index)
        found = {"isolated": row.winner}
        if other := self.exchanged(index):
            found |= {"in place": winner_of(other.in_place)} if other.in_place else {}
            found["by exchange"] = winner_of(other.ratio)
        return found

    def disagreement(self, index: int) -> bool:
        """Whether two methods call different forms the faster one; even and unclear contradict nothing."""
        return len({winner for winner in self.winners(index).values() if winner in OPERATORS}) > 1


def stage_row(
    variant: Variant,
    place: StagePlace,
    rounds: Rounds,
    *,
    batch_size: int,
    precision: str,
    engine: str = "",
    threads: int | None = None,
    se: SeChoice = "paper",
    kernel_size: int | None = None,
    errors: Mapping[str, float] | None = None,
) -> StageRow:
    """Put the rounds of both forms and the frame beside what the stage costs on paper.

    Args:
        rounds: its tracks are `OPERATORS` and `FRAME`.
        engine: what ran them, in its runner's own words, with so many `threads` of the processor.
        errors: how far the answers of each form were from PyTorch's.
    """
    frame = rounds.medians_ms(FRAME)
    net = {
        operator: [own - off for own, off in zip(rounds.medians_ms(operator), frame, strict=True)]
        for operator in OPERATORS
    }
    forms = {
        operator: _form_row(
            form_of(variant, place.stage, operator, se=se, kernel_size=kernel_size),
            place,
            batch_size,
            precision,
            net[operator],
            rounds.summary(operator),
            (errors or {}).get(operator),
        )
        for operator in OPERATORS
    }
    drowned = min(*net["mbconv"], *net["fused_mbconv"]) <= 0
    return StageRow(
        index=place.index,
        paper_operator=place.stage.operator,
        kernel_size=kernel_size or place.stage.kernel_size,
        stride=place.stage.stride,
        expand_ratio=place.stage.expand_ratio,
        in_channels=place.in_channels,
        out_channels=place.stage.out_channels,
        num_layers=place.stage.num_layers,
        in_size=place.in_size,
        out_size=place.out_size,
        mbconv=forms["mbconv"],
        fused_mbconv=forms["fused_mbconv"],
        engine=engine,
        threads=threads,
        ratio=None if drowned else paired_ratio(net["fused_mbconv"], net["mbconv"]),
        frame_ms=median(frame),
        rounds=rounds,
    )


def _form_row(
    form: Stage,
    place: StagePlace,
    batch_size: int,
    precision: str,
    net_ms: list[float],
    latency: Summary,
    max_error: float | None,
) -> FormRow:
    num_params, macs = stage_cost(form, place.in_channels, place.in_size)
    work = stage_work(form, place.in_channels, place.in_size, batch_size=batch_size, precision=precision)
    medians = tuple(max(ms, LEAST_MS) for ms in net_ms)
    return FormRow(
        operator=form.operator,
        se_ratio=form.se_ratio,
        num_params=num_params,
        macs=macs,
        ms=median(medians),
        best_ms=min(medians),
        worst_ms=max(medians),
        gmacs_per_s=work.macs / median(medians) / 1e6,
        round_p50_ms=medians,
        latency=latency,
        bytes_moved=work.bytes_moved,
        max_error=max_error,
    )
