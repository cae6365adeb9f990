"""Owns the part of the page that holds ways of training beside one another; it measures nothing."""

from __future__ import annotations

from itertools import accumulate
from statistics import mean, median, stdev

from serve.bench.report.measured import ArmRow, ArmsRun
from zoo.page.charts import Bar, Group, bar_chart
from zoo.page.curves import Band, Curve, curve_chart
from zoo.page.elements import table
from zoo.page.markup import Child, Markup, tag
from zoo.wording import duration, percent

COLOURS = ("series-1", "series-2", "series-4", "series-3")


def arms_section(run: ArmsRun) -> Markup:
    """Training time of every arm, accuracy over time of one seed, and a table of all seeds."""
    colours = dict(zip(run.arms, COLOURS, strict=False))
    bars = [
        Bar(
            label=arm,
            value=median(seconds),
            text=duration(median(seconds)),
            colour=colours[arm],
            spoken=f"{arm}: {duration(median(seconds))} of training, {accuracy(run.of(arm))}",
            low=min(seconds),
            high=max(seconds),
        )
        for arm in run.arms
        for seconds in [[row.seconds for row in run.of(arm)]]
    ]
    chart = bar_chart(
        [Group(heading=f"{len(run.of(run.arms[0]))} seeds each", bars=bars)],
        title="Time of training",
        description="Median over the seeds, the whisker from the shortest to the longest; validation apart.",
        axis="s",
    )
    cells: list[list[Child]] = [
        [
            arm,
            accuracy(run.of(arm)),
            ", ".join(f"{100 * row.top1:.1f}" for row in run.of(arm)),
            duration(median(row.seconds for row in run.of(arm))),
            percent(run.time_share(arm)),
            _processor_time(run.of(arm)),
            str(len(run.of(arm))),
        ]
        for arm in run.arms
    ]
    heads = (
        "trained",
        "top-1, mean ± standard deviation",
        "of each seed, %",
        "time",
        f"of {run.arms[-1]}'s",
        "processor",
        "n",
    )
    figures = table(
        heads,
        cells,
        caption="Medians; the share of time is of pairs of equal seed, processor time has validation in it",
        words=(0, 1, 2),
    )
    title = f"Progressive learning, {run.result.name}"
    return tag("section", tag("h3", title), chart, _over_time(run, colours), figures)


def accuracy(rows: list[ArmRow]) -> str:
    """Mean and sample standard deviation: “61.3 ± 0.5 %”; of a single run its accuracy alone."""
    values = [100 * row.top1 for row in rows]
    return f"{mean(values):.1f}" + (f" ± {stdev(values):.1f}" if len(values) > 1 else "") + " %"


def _processor_time(rows: list[ArmRow]) -> str:
    known = [row.processor_seconds for row in rows if row.processor_seconds is not None]
    return duration(median(known)) if known else "–"


def _over_time(run: ArmsRun, colours: dict[str, str]) -> Markup:
    curves = []
    for arm in run.arms:
        row = run.of(arm)[0]
        spent = accumulate(epoch["seconds"] for epoch in row.epochs)
        points = [(seconds / 60, 100 * epoch["val_top1"]) for seconds, epoch in zip(spent, row.epochs, strict=True)]
        curves.append(Curve(label=arm, colour=colours[arm], points=points, shown=f"{points[-1][1]:.1f} %"))
    end = max(x for curve in curves for x, _ in curve.points)
    return curve_chart(
        curves,
        [Band(start=0.0, end=end)],
        title="Accuracy over time",
        description=f"Seed {run.of(run.arms[0])[0].seed}, after every epoch; a stage is validated at its own size.",
        unit="%",
        x_name="minute",
    ).as_figure()
