"""Owns results of a space's parts timed one by one; `serve.bench.measure.latency_table` times them."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from serve.bench.engine_rows import find_engine
from serve.bench.kind import Kind, Measured, NetworkAtSize, Timing
from serve.bench.measure.latency_table_data import LatencyTableData
from zoo.page.figures import Figures, to_page
from zoo.page.markup import Child, Markup, tag
from zoo.page.scatter import Point, scatter_chart
from zoo.wording import digits, milliseconds, percent, plain_name

MeasuredTable = Measured[LatencyTableData]


def section(run: MeasuredTable) -> Markup:
    """Whole networks over the sums of their parts, and both tables."""
    data = run.data
    return tag(
        "section",
        tag("h3", f"Latency table of the space {data.space.id}, {_where(data)}"),
        tag("p", data.warning, class_="note warned") if data.warning else None,
        _chart(data) if data.whole else None,
        *to_page(figures(run)),
        tag("p", _overhead(data), class_="note"),
    )


def _where(data: LatencyTableData) -> str:
    table = data.table
    return f"{table.image_size} px, batch {table.batch_size}, {table.precision}, {find_engine(table.engine).name}"


def _chart(data: LatencyTableData) -> Markup:
    points = [
        Point(
            label=row.name if not row.drawn else "",
            colour="series-2" if row.drawn else "series-1",
            x=row.ms,
            y=row.sum_ms,
            spoken=f"{row.name}: {milliseconds(row.ms)} measured, {milliseconds(row.sum_ms)} summed",
        )
        for row in data.whole
    ]
    return scatter_chart(
        points,
        title="Sums of parts over whole networks",
        description=_said_of_errors(data),
        x_name="measured, ms",
        y_name="summed, ms",
        legend=[("series-1", "published tables"), ("series-2", "drawn")],
    )


def _overhead(data: LatencyTableData) -> str:
    lost = f" {data.drowned} of {len(data.parts)} parts cannot be told from nothing." if data.drowned else ""
    return (
        f"A call that computes nothing takes {milliseconds(data.table.call_ms)}; every sum has it once. Of each other "
        f"part the same form without it was timed in turn and taken off.{lost}"
    )


def figures(run: MeasuredTable) -> list[Figures]:
    """Whole networks beside their sums, then every part."""
    data = run.data
    whole: list[list[Child]] = [
        [
            row.name,
            f"{digits(row.ms)} ({digits(row.low_ms)} – {digits(row.high_ms)})",
            f"{digits(row.sum_ms)} ({digits(row.sum_low_ms)} – {digits(row.sum_high_ms)})",
            f"{100 * row.error:+.1f}",
        ]
        for row in sorted(data.whole, key=lambda row: row.ms)
    ]
    parts: list[list[Child]] = [
        [
            str(timed.block),
            digits(timed.ms),
            f"{digits(timed.low_ms)} – {digits(timed.high_ms)}",
            digits(part.frame_ms),
            f"{timed.n}",
        ]
        for timed, part in zip(data.table.rows, data.parts, strict=True)
    ]
    return [
        Figures(
            heads=("network", "measured, ms", "summed, ms", "error, %"),
            rows=whole,
            caption="Whole networks, with the 95 % interval of their medians, beside the sums of their parts",
        ),
        Figures(
            heads=("part", "ms", "95 % interval", "frame, ms", "rounds"),
            rows=parts,
            caption=f"Every part of the space, {_where(data)}; what the frame takes is taken off",
        ),
    ]


def headlines(runs: Sequence[MeasuredTable]) -> Iterator[str]:
    """How far sums are from whole networks, and whether they rank them alike."""
    for run in runs:
        data = run.data
        what = f"The space {data.space.id} at {_where(data)} on {plain_name(run.result.device)}"
        if not data.complete:
            yield f"{what}: {len(data.parts)} of {data.asked} parts are timed; the same command goes on."
        elif not data.whole:
            yield f"{what}: {len(data.parts)} parts are timed, and no whole network to hold their sums against."
        else:
            yield f"{what}, {len(data.parts)} parts: {_said_of_errors(data)}"
        pairs = data.operators
        if total := sum(pairs.values()):
            yield (
                f"Of {total} pairs of its blocks that differ in the operator alone, MBConv is faster in "
                f"{pairs['mbconv']}, Fused-MBConv in {pairs['fused_mbconv']}; {pairs['unclear']} are unclear."
            )


def _said_of_errors(data: LatencyTableData) -> str:
    assert data.mean_error is not None and data.max_error is not None and data.bias is not None
    ranks = data.rank_correlation
    ordered = "" if ranks is None else f"; the rank correlation is {ranks:.2f}"
    return (
        f"sums of parts are off by {percent(data.mean_error)} of whole networks' latency in the mean, by "
        f"{percent(data.max_error)} at most, {100 * data.bias:+.0f} % with their sign{ordered} (n = {len(data.whole)})."
    )


def timings(run: MeasuredTable) -> Iterator[Timing]:
    """Each whole network."""
    data = run.data
    for row in data.whole:
        assert data.whole_rounds
        medians = data.whole_rounds.medians_ms(row.name)
        yield Timing(subject=row.name, setting=_where(data), p50_ms=row.ms, round_p50_ms=medians)


def networks(run: MeasuredTable) -> Iterator[NetworkAtSize]:
    """The published tables as the space has them."""
    data = run.data
    for row in data.whole:
        if not row.drawn:
            yield data.space.variant(row.candidate, row.name), data.table.image_size, data.table.num_classes


KIND = Kind(
    name="latency_table",
    place=17,
    read=LatencyTableData.from_dict,
    section=section,
    headlines=headlines,
    tables=figures,
    warnings=lambda run: [run.data.warning] if run.data.warning else [],
    timings=timings,
    networks=networks,
)
