"""Owns results of the family's frontier, accuracy over time; `serve.bench.measure.frontier` times the networks."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from serve.bench.kind import Kind, Measured, Timing
from serve.bench.measure.frontier import FrontierData, FrontierRow
from serve.bench.measure.published import PAIRS, PAIRS_SOURCE, SETUPS
from serve.bench.measure.ratio import paired_ratio
from zoo.measure.rounds import disturbance
from zoo.page.figures import SERIES, SUMMARY_HEADS, Figures, spread, summary_cells, to_page
from zoo.page.markup import Child, Markup, tag
from zoo.page.scatter import Point, scatter_chart
from zoo.wording import count, digits, joined, milliseconds, plain_name, times, with_threads

MeasuredFrontier = Measured[FrontierData]


def section(run: MeasuredFrontier) -> Markup:
    """Accuracy over time, every network's figures, and the same networks as others measured them."""
    data = run.data
    return tag(
        "section",
        tag("h3", f"The frontier: {len(data.rows)} networks, {_conditions(run)}"),
        scatter_chart(
            points_of(data),
            title="Accuracy over time",
            description="Accuracy as published, time as measured here, every network at its own size. On the dashed "
            "line: nothing else is as accurate and as fast.",
            x_name="p50, ms",
            y_name="top-1, %",
            legend=legend_of(data),
        ),
        *to_page(figures(run)),
        _sources(data),
    )


def legend_of(data: FrontierData) -> list[tuple[str, str]]:
    """A colour for every family."""
    return list(zip(SERIES, dict.fromkeys(row.family for row in data.rows), strict=False))


def points_of(data: FrontierData) -> list[Point]:
    """Every network as a point: published accuracy over measured time."""
    colours = {family: colour for colour, family in legend_of(data)}
    return [
        Point(
            label=row.model,
            colour=colours[row.family],
            x=row.latency.p50_ms,
            y=row.top1_percent,
            spoken=f"{row.model}: {digits(row.top1_percent)} %, {milliseconds(row.latency.p50_ms)}",
            on_line=row.on_frontier,
        )
        for row in data.rows
    ]


def figures(run: MeasuredFrontier) -> list[Figures]:
    """A line a network, the fastest first; then its time beside that of the baseline, here and elsewhere."""
    data = run.data
    rows: list[list[Child]] = []
    beside: list[list[Child]] = []
    for row in sorted(data.rows, key=lambda row: row.latency.p50_ms):
        name = f"{row.model} ◆" if row.on_frontier else row.model
        facts = [f"{row.image_size}", count(row.num_params), count(row.macs), f"{row.top1_percent:.1f}"]
        p50, p90, p99, _, n = summary_cells(row.latency)
        rows.append([name, *facts, p50, p90, p99, spread(row.latency), n])
        elsewhere = [_ratio(data.published_ratio(row.model, setup)) for setup in SETUPS]
        beside.append([row.model, _here(row), *elsewhere])
    heads = ("network", "px", "params", "MACs", "top-1 %", *SUMMARY_HEADS)
    said = f"Milliseconds per batch of {data.batch_size} in {data.engine}; ◆ on the frontier"
    return [
        Figures(heads=heads, rows=rows, caption=said),
        Figures(
            heads=("network", "here", *SETUPS),
            rows=beside,
            caption=f"Time as a share of that of {data.baseline}: here with its 95 % interval, elsewhere as published",
        ),
    ]


def _here(row: FrontierRow) -> str:
    return f"{row.ratio.value:.2f} ({row.ratio.low:.2f} – {row.ratio.high:.2f})" if row.ratio else "1"


def _ratio(value: float | None) -> str:
    return "–" if value is None else f"{value:.2f}"


def _sources(data: FrontierData) -> Markup:
    sources = dict.fromkeys(row.top1_source for row in data.rows)
    published = dict.fromkeys(f"{row.setup}: {row.source}" for row in data.published)
    return tag("p", f"Accuracy: {'; '.join(sources)}. Times elsewhere: {'; '.join(published)}.", class_="note")


def headlines(runs: Sequence[MeasuredFrontier]) -> Iterator[str]:
    """What is on the frontier, and whether networks are ordered here as where others measured."""
    for run in runs:
        data = run.data
        best = sorted((row for row in data.rows if row.on_frontier), key=lambda row: row.latency.p50_ms)
        said = [f"{row.model} ({milliseconds(row.latency.p50_ms)}, {row.top1_percent:.1f} %)" for row in best]
        yield (
            f"In {data.engine} on {plain_name(run.result.device)}, nothing is both as fast and as accurate as "
            f"{joined(said)} ({_conditions(run)})."
        )
        for setup in SETUPS:
            same, pairs = data.agreement(setup)
            if pairs:
                yield f"Of {pairs} pairs of networks {same} are ordered here as published of {setup}."
        yield from _v1(data)


def _conditions(run: MeasuredFrontier) -> str:
    """“batch 1, fp32, 1 thread, every network at its own size”."""
    facts = [(subject.precision, with_threads(subject.threads)) for subject in run.result.subjects[:1]]
    said = (f"batch {run.data.batch_size}", *(word for fact in facts for word in fact))
    return ", ".join(filter(None, (*said, "every network at its own size")))


def _v1(data: FrontierData) -> Iterator[str]:
    """Networks of V1 beside those of V2 that take their place, here and in the paper."""
    measured = {row.model for row in data.rows}
    for pair in PAIRS:
        if {pair.old, pair.new} <= measured:
            ratio = paired_ratio(data.rounds.medians_ms(pair.new), data.rounds.medians_ms(pair.old))
            yield (
                f"Beside {pair.old}, {pair.new} is {ratio.words()} here, and {times(pair.speedup)} as fast in "
                f"{PAIRS_SOURCE}."
            )


KIND = Kind(
    name="zoo",
    place=25,
    read=FrontierData.from_dict,
    section=section,
    headlines=headlines,
    tables=figures,
    warnings=lambda run: filter(None, [disturbance([run.data.rounds])]),
    timings=lambda run: [
        Timing(
            subject=row.model,
            setting=f"batch {run.data.batch_size}",
            p50_ms=row.latency.p50_ms,
            round_p50_ms=run.data.rounds.medians_ms(row.model),
        )
        for row in run.data.rows
    ],
)
