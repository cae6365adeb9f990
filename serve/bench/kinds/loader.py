"""Owns results of how fast pictures are read for training; `benchmarks/loader.py` measures them."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Annotated, Any

from serve.bench.kind import Kind, Measured
from zoo.page.charts import Bar, Group, bar_chart
from zoo.page.figures import Figures, to_page
from zoo.page.markup import Markup, tag
from zoo.rows import Count, NotNegative, Positive, Row, Some, Text
from zoo.wording import digits, joined, times


@dataclass(frozen=True, kw_only=True)
class Spread(Row):
    """Median and extremes."""

    p50: NotNegative
    min: NotNegative
    max: NotNegative


@dataclass(frozen=True, kw_only=True)
class LoaderRow(Row):
    """How fast one project's loader gives augmented pictures; ratios are of passes in the same round.

    `for_gpu_over_theirs` is of our loader where flip and RandAugment are left to a GPU. `one_process_…` are of small
    batches without workers, the fastest visit to each.
    """

    pipeline: Text
    image_size: Count
    n: Count
    pictures_a_pass: Count | None = None
    one_process_ms_per_picture: Positive | None = None
    one_process_theirs_over_ours: Positive | None = None
    pictures_per_second: Spread
    cpu_ms_per_picture: Spread
    ours_over_theirs: Spread
    for_gpu_over_theirs: Spread
    cpu_theirs_over_ours: Spread | None = None

    @property
    def is_ours(self) -> bool:
        """Whether it is this project's: `zoo`, or `zoo for a GPU`."""
        return self.pipeline.startswith("zoo")


@dataclass(frozen=True, kw_only=True)
class LoaderData(Row):
    """Loaders on the same pictures, cores and workers, in turn; `statistics` compares what they give."""

    rows: Annotated[tuple[LoaderRow, ...], Some()]
    statistics: tuple[Mapping[str, Any], ...] = ()


def section(run: Measured[LoaderData]) -> Markup:
    """Ours beside other projects' loaders: one group a picture size, one bar a loader."""
    groups: dict[int, list[Bar]] = {}
    for row in run.data.rows:
        rate, colour = row.pictures_per_second.p50, "series-1" if row.is_ours else "series-4"
        spoken = f"{row.pipeline} at {row.image_size} px: {digits(rate)} pictures/s, n {row.n}"
        bar = Bar(label=row.pipeline, value=rate, text=f"{digits(rate)}/s", colour=colour, spoken=spoken)
        groups.setdefault(row.image_size, []).append(bar)
    detail, pictures = f"{run.result.settings.get('workers', '?')} workers", _pictures(run)
    chart = bar_chart(
        [Group(heading=f"{size} px", detail=detail, bars=bars) for size, bars in groups.items()],
        title=f"{pictures.capitalize()} ready for training",
        description="Decoded, cropped, flipped and augmented pictures per second: the same JPEGs, cores and workers.",
        axis="/s",
    )
    title = f"Loading {pictures}, {run.result.name}"
    return tag("section", tag("h3", title), chart, *to_page(figures(run)))


def figures(run: Measured[LoaderData]) -> list[Figures]:
    """A line a loader and size."""
    rows = []
    for row in run.data.rows:
        speeds = [digits(spread.p50) for spread in (row.pictures_per_second, row.cpu_ms_per_picture)]
        ratios = [times(spread.p50) for spread in (row.ours_over_theirs, row.for_gpu_over_theirs)]
        rows.append([row.pipeline, f"{row.image_size} px", *speeds, *ratios, str(row.n)])
    heads = ("loader", "size", "pictures/s", "processor ms a picture", "zoo / it", "zoo for a GPU / it", "n")
    caption = "Medians; ratios are of passes in turn. For a GPU: flip and RandAugment are drawn and left to it."
    return [Figures(heads=heads, rows=rows, caption=caption)]


def headlines(runs: Sequence[Measured[LoaderData]]) -> Iterator[str]:
    """How many times as fast as the other projects' loaders."""
    for run in runs:
        peers = [row for row in run.data.rows if not row.is_ours]
        ratios = [row.ours_over_theirs.p50 for row in peers]
        for_gpu = [row.for_gpu_over_theirs.p50 for row in peers]
        sizes = joined([f"{size} px" for size in sorted({row.image_size for row in run.data.rows})])
        yield (
            f"Reading {_pictures(run)} for training at {sizes}, the zoo is {times(min(ratios))} to "
            f"{times(max(ratios))} as fast as torchvision's and timm's loaders; {times(min(for_gpu))} to "
            f"{times(max(for_gpu))} where a GPU augments."
        )


def _pictures(run: Measured[LoaderData]) -> str:
    """What was read: pictures as they come, or as `zoo data pack` writes them."""
    return "packed pictures" if run.result.settings.get("packed") else "pictures"


KIND = Kind(name="loader", place=60, read=LoaderData.from_dict, section=section, headlines=headlines, tables=figures)
