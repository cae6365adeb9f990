"""Owns results of ways of training beside one another; `benchmarks/progressive.py` measures them."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import accumulate
from statistics import mean, median, stdev
from typing import Annotated, Any

from serve.bench.kind import Kind, Measured
from zoo.errors import RowError
from zoo.page.charts import Bar, Group, bar_chart
from zoo.page.curves import Band, Curve, curve_chart
from zoo.page.figures import Figures, to_page
from zoo.page.markup import Markup, tag
from zoo.rows import CountOrNone, NotNegative, Positive, Row, Share, Some, Text
from zoo.wording import duration, joined, percent

COLOURS = ("series-1", "series-2", "series-4", "series-3")


@dataclass(frozen=True, kw_only=True)
class ArmRow(Row):
    """One training run of a comparison: how it was trained, its validation accuracy 0…1 and its training time, s.

    `processor_seconds` are of the whole run, validation included; None of a run that was resumed.
    """

    arm: Text
    seed: CountOrNone
    top1: Share
    seconds: Positive
    processor_seconds: NotNegative | None
    epochs: Annotated[tuple[Mapping[str, Any], ...], Some()]


@dataclass(frozen=True, kw_only=True)
class ProgressiveData(Row):
    """The same network trained in several ways with the same seeds; every arm has every seed."""

    rows: Annotated[tuple[ArmRow, ...], Some()]

    def __post_init__(self) -> None:
        super().__post_init__()
        if len({tuple(row.seed for row in self.of(arm)) for arm in self.arms}) != 1:
            raise RowError("arms with different seeds.")

    @property
    def arms(self) -> list[str]:
        """Their names, in the order measured; the last one is the control that the others are compared with."""
        return list(dict.fromkeys(row.arm for row in self.rows))

    def of(self, arm: str) -> list[ArmRow]:
        """The runs of one arm, by seed."""
        return sorted((row for row in self.rows if row.arm == arm), key=lambda row: row.seed)

    def accuracy(self, arm: str) -> str:
        """Mean and sample standard deviation: “61.3 ± 0.5 %”; of a single run its accuracy alone."""
        values = [100 * row.top1 for row in self.of(arm)]
        return f"{mean(values):.1f}" + (f" ± {stdev(values):.1f}" if len(values) > 1 else "") + " %"

    def time_share(self, arm: str) -> float:
        """Median over the seeds of an arm's training time over the control's with the same seed."""
        pairs = zip(self.of(arm), self.of(self.arms[-1]), strict=True)
        return median(one.seconds / control.seconds for one, control in pairs)


def section(run: Measured[ProgressiveData]) -> Markup:
    """Training time of every arm, accuracy over time of one seed, and a table of all seeds."""
    data = run.data
    colours = dict(zip(data.arms, COLOURS, strict=False))
    bars = []
    for arm in data.arms:
        seconds = [row.seconds for row in data.of(arm)]
        bars.append(
            Bar(
                label=arm,
                value=median(seconds),
                text=duration(median(seconds)),
                colour=colours[arm],
                spoken=f"{arm}: {duration(median(seconds))} of training, {data.accuracy(arm)}",
                low=min(seconds),
                high=max(seconds),
            )
        )
    chart = bar_chart(
        [Group(heading=f"{len(data.of(data.arms[0]))} seeds each", bars=bars)],
        title="Time of training",
        description="Median over the seeds, the whisker from the shortest to the longest; validation apart.",
        axis="s",
    )
    title = f"Progressive learning, {run.result.name}"
    return tag("section", tag("h3", title), chart, _over_time(data, colours), *to_page(figures(run)))


def figures(run: Measured[ProgressiveData]) -> list[Figures]:
    """A line an arm, with all its seeds."""
    rows, data = [], run.data
    for arm in data.arms:
        runs = data.of(arm)
        used = [row.processor_seconds for row in runs if row.processor_seconds is not None]
        times = [duration(median(row.seconds for row in runs)), percent(data.time_share(arm))]
        processor, each = duration(median(used)) if used else "–", ", ".join(f"{100 * row.top1:.1f}" for row in runs)
        rows.append([arm, data.accuracy(arm), each, *times, processor, str(len(runs))])
    control = f"of {data.arms[-1]}'s"
    heads = ("trained", "top-1, mean ± standard deviation", "of each seed, %", "time", control, "processor", "n")
    caption = "Medians; the share of time is of pairs of equal seed, processor time has validation in it"
    return [Figures(heads=heads, rows=rows, caption=caption, words=(0, 1, 2))]


def _over_time(data: ProgressiveData, colours: dict[str, str]) -> Markup:
    curves = []
    for arm in data.arms:
        row = data.of(arm)[0]
        spent = accumulate(epoch["seconds"] for epoch in row.epochs)
        points = [(seconds / 60, 100 * epoch["val_top1"]) for seconds, epoch in zip(spent, row.epochs, strict=True)]
        curves.append(Curve(label=arm, colour=colours[arm], points=points, shown=f"{points[-1][1]:.1f} %"))
    end = max(x for curve in curves for x, _ in curve.points)
    return curve_chart(
        curves,
        [Band(start=0.0, end=end)],
        title="Accuracy over time",
        description=f"Seed {data.of(data.arms[0])[0].seed}, after every epoch; a stage is validated at its own size.",
        unit="%",
        x_name="minute",
    ).as_figure()


def headlines(runs: Sequence[Measured[ProgressiveData]]) -> Iterator[str]:
    """Accuracy and time of every arm beside the control's."""
    for run in runs:
        data, control = run.data, run.data.arms[-1]
        others = [f"{arm} {data.accuracy(arm)} in {percent(data.time_share(arm))}" for arm in data.arms[:-1]]
        yield (
            f"Trained the same number of epochs, {run.result.name} reaches {data.accuracy(control)} with a {control} "
            f"picture size; {joined(others)} of that time ({len(data.of(control))} seeds each)."
        )


KIND = Kind(
    name="progressive", place=40, read=ProgressiveData.from_dict, section=section, headlines=headlines, tables=figures
)
