"""Owns the part of the page that shows how fast pictures are read for training; it measures nothing."""

from __future__ import annotations

from serve.bench.measure.stages import times
from serve.bench.report.measured import LoaderRun
from zoo.page.charts import Bar, Group, bar_chart
from zoo.page.elements import table
from zoo.page.markup import Child, Markup, tag
from zoo.wording import digits


def loader_section(run: LoaderRun) -> Markup:
    """Ours beside other projects' loaders: one group a picture size, one bar a loader."""
    groups = [
        Group(
            heading=f"{size} px",
            detail=f"{run.result.settings.get('workers', '?')} workers",
            bars=[
                Bar(
                    label=row.pipeline,
                    value=row.pictures_per_second,
                    text=f"{digits(row.pictures_per_second)}/s",
                    colour="series-1" if row.is_ours else "series-4",
                    spoken=f"{row.pipeline} at {size} px: {digits(row.pictures_per_second)} pictures/s, n {row.n}",
                )
                for row in run.rows
                if row.image_size == size
            ],
        )
        for size in dict.fromkeys(row.image_size for row in run.rows)
    ]
    chart = bar_chart(
        groups,
        title=f"{run.pictures.capitalize()} ready for training",
        description="Decoded, cropped, flipped and augmented pictures per second: the same JPEGs, cores and workers.",
        axis="/s",
    )
    cells: list[list[Child]] = [
        [
            row.pipeline,
            f"{row.image_size} px",
            digits(row.pictures_per_second),
            digits(row.cpu_ms_per_picture),
            times(row.ratio),
            times(row.ratio_for_gpu),
            str(row.n),
        ]
        for row in run.rows
    ]
    heads = ("loader", "size", "pictures/s", "processor ms a picture", "zoo / it", "zoo for a GPU / it", "n")
    figures = table(
        heads,
        cells,
        caption="Medians; ratios are of passes in turn. For a GPU: flip and RandAugment are drawn and left to it.",
    )
    return tag("section", tag("h3", f"Loading {run.pictures}, {run.result.name}"), chart, figures)
