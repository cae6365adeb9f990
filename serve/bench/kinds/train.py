"""Owns results of training throughput; `zoo bench train` measures them, in a package that knows nothing of pages."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Annotated, Any

from serve.bench.kind import Kind, Measured
from zoo.page.charts import Bar, Group, bar_chart
from zoo.page.figures import SUMMARY_HEADS, Figures, summary_cells, to_page
from zoo.page.markup import Markup, tag
from zoo.results import Summary
from zoo.rows import Count, Positive, Row, Some, field_types
from zoo.wording import digits, times


@dataclass(frozen=True, kw_only=True)
class TrainingRow(Row):
    """Training at one image size."""

    image_size: Count
    batch_size: Count
    pictures_per_second: Positive
    ms_per_step: Summary


@dataclass(frozen=True, kw_only=True)
class TrainingData(Row):
    """Training throughput at every stage's size, the smallest size first."""

    rows: Annotated[tuple[TrainingRow, ...], Some()]


def read(data: Mapping[str, Any]) -> TrainingData:
    """Read a result's data; of its rows what a page shows, as they have all facts of a recipe's stage besides."""
    rows = [{name: row[name] for name in field_types(TrainingRow)} for row in data["rows"]]
    return TrainingData.from_dict({"rows": sorted(rows, key=lambda row: row["image_size"])})


def section(run: Measured[TrainingData]) -> Markup:
    """Training throughput at each stage's image size."""
    bars = []
    for row in run.data.rows:
        label, rate = f"{row.image_size} px", row.pictures_per_second
        spoken = f"{label}, batch {row.batch_size}: {digits(rate)} pictures/s"
        bars.append(Bar(label=label, value=rate, text=f"{digits(rate)}/s", colour="series-1", spoken=spoken))
    chart = bar_chart(
        [Group(heading=_label(run), bars=bars)],
        title="Training throughput",
        description="Pictures per second at the image size of each progressive stage.",
        axis="/s",
    )
    return tag("section", tag("h3", f"Training {_label(run)}"), chart, *to_page(figures(run)))


def figures(run: Measured[TrainingData]) -> list[Figures]:
    """A line a size."""
    rows = [
        (f"{row.image_size} px", str(row.batch_size), digits(row.pictures_per_second), *summary_cells(row.ms_per_step))
        for row in run.data.rows
    ]
    heads = ("image size", "batch", "pictures/s", *SUMMARY_HEADS)
    return [Figures(heads=heads, rows=rows, caption="Milliseconds are of one step")]


def headlines(runs: Sequence[Measured[TrainingData]]) -> Iterator[str]:
    """The throughput at the smallest and at the largest size."""
    for run in runs:
        first, last = run.data.rows[0], run.data.rows[-1]
        slowest, fastest = digits(last.pictures_per_second), digits(first.pictures_per_second)
        said = f"Training {_label(run)} takes in {fastest} pictures/s at {first.image_size} px"
        if first is last:
            yield f"{said}."
            continue
        gain = first.pictures_per_second / last.pictures_per_second
        more = f": the first stage of progressive learning runs {times(gain)} as fast as the last." if gain > 1 else "."
        yield f"{said} and {slowest} at {last.image_size} px{more}"


def _label(run: Measured[TrainingData]) -> str:
    """What was trained: “s (folder, bf16)”, or the result's name where it does not say."""
    settings = run.result.settings
    known = [str(settings[key]) for key in ("recipe", "precision") if key in settings]
    model = settings.get("model")
    return f"{model} ({', '.join(known)})" if model and known else run.result.name


KIND = Kind(
    name="train",
    place=30,
    read=read,
    section=section,
    headlines=headlines,
    tables=figures,
    summaries=lambda run: [row.ms_per_step for row in run.data.rows],
)
