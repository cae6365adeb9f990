"""Owns results of the latency of artifacts; `serve.bench.measure.latency` times them."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence

from rich.markup import escape
from rich.table import Table

from serve.bench.kind import Kind, Measured
from serve.bench.measure.latency import Comparison, LatencyData, LatencyRow, TimedArtifact
from zoo.page.charts import Bar, Group, Line, bar_chart, line_chart
from zoo.page.figures import SERIES, SUMMARY_HEADS, Figures, empty_table, marks, summary_cells, to_page
from zoo.page.markup import Child, Markup, tag
from zoo.wording import digits, digits_or_dash, joined, milliseconds, plain_name, times

MeasuredLatency = Measured[LatencyData]


def section(run: MeasuredLatency) -> Markup:
    """Percentiles per artifact and batch size, throughput over batch size, and what comes before the network."""
    artifacts = run.data.artifacts
    colours = {one.artifact: SERIES[index % len(SERIES)] for index, one in enumerate(artifacts)}
    groups = [
        Group(
            heading=one.artifact,
            detail=" · ".join([one.backend, f"{one.image_size} px", *_facts(run, one)]),
            bars=[_bar(row, colours[one.artifact]) for row in run.data.rows_of(one.artifact)],
        )
        for one in artifacts
    ]
    bars = bar_chart(
        groups,
        title="Latency",
        description="Bars end at p50; the ticks are p90 and, from 100 samples on, p99. One batch in flight, copies "
        "included.",
        axis="ms",
        legend=[("mark-key p90", "p90"), ("mark-key p99", "p99")],
    )
    return tag(
        "section",
        tag("h3", f"Latency of {joined(one.artifact for one in artifacts)}"),
        bars,
        *to_page([_figures(run.data)]),
        _throughput(run.data, colours),
        _before_the_network(run.data),
    )


def _facts(run: MeasuredLatency, artifact: TimedArtifact) -> list[str]:
    """Precision, threads and SHA-256 of an artifact; results of older versions do not say them."""
    subject = next((subject for subject in run.result.subjects if subject.name == artifact.artifact), None)
    _, _, precision, threads, sha256 = subject.words if subject else [""] * 5
    return list(filter(None, (precision, threads, sha256 and f"SHA-256 {sha256}…")))


def _bar(row: LatencyRow, colour: str) -> Bar:
    ticks, latency = marks(row.latency), row.latency
    said = [f"{key} {milliseconds(value)}" for key, value in (("p50", latency.p50_ms), *ticks)]
    return Bar(
        label=f"batch {row.batch_size}",
        value=latency.p50_ms,
        text=milliseconds(latency.p50_ms),
        colour=colour,
        spoken=f"{row.artifact}, batch {row.batch_size}: {', '.join(said)}, n {latency.n}",
        marks=ticks,
    )


def _figures(data: LatencyData) -> Figures:
    speedups = {(one.artifact, one.batch_size): one for one in data.comparisons}
    listed = [row for artifact in data.artifacts for row in data.rows_of(artifact.artifact)]
    rows: list[list[Child]] = []
    for row in listed:
        one = speedups.get((row.artifact, row.batch_size))
        ratio = (times(one.speedup) if one.separated else "even") if one else "1×"
        cells = [row.artifact, str(row.batch_size), *summary_cells(row.latency), digits(row.pictures_per_second)]
        rows.append([*cells, ratio] if speedups else cells)
    heads = ["artifact", "batch", *SUMMARY_HEADS, "pictures/s", *(["speed"] if speedups else [])]
    few = any(row.latency.telling_p99_ms is None for row in listed)
    caption = "Milliseconds per batch" + ("; a p99 needs 100 samples, a p90 10" if few else "")
    return Figures(heads=heads, rows=rows, caption=caption)


def _throughput(data: LatencyData, colours: dict[str, str]) -> Markup | None:
    lines = []
    for artifact, colour in colours.items():
        points = [(f"batch {row.batch_size}", row.pictures_per_second) for row in data.rows_of(artifact)]
        lines.append(Line(label=artifact, colour=colour, points=points))
    if len(lines[0].points) < 2:
        return None  # one point is no curve; the table above has it
    said = "One caller, one batch after the other."
    return line_chart(lines, title="Throughput", description=said, axis="pictures/s")


def _before_the_network(data: LatencyData) -> Markup:
    first = data.artifacts[0]
    network = data.rows_of(first.artifact)[0]
    steps = (
        ("decode", data.picture.decode, "series-4"),
        ("resize", data.picture.prepare, "series-3"),
        (f"network, batch {network.batch_size}", network.latency, "series-1"),
    )
    bars = []
    for name, summary, colour in steps:
        text, ticks = milliseconds(summary.p50_ms), marks(summary)
        spoken = f"{name}: {text}, n {summary.n}"
        bars.append(Bar(label=name, value=summary.p50_ms, text=text, colour=colour, spoken=spoken, marks=ticks))
    heading, detail = f"One {_file(data)}", f"to {first.image_size} px, then {first.artifact}"
    return bar_chart(
        [Group(heading=heading, detail=detail, bars=bars)],
        title="Where the time goes",
        description="Decoding and resizing on the processor, one thread, before the network sees the picture.",
        axis="ms",
    )


def _file(data: LatencyData) -> str:
    return f"{data.picture.width_px} × {data.picture.height_px} {data.picture.format}"


def headlines(runs: Sequence[MeasuredLatency]) -> Iterator[str]:
    """Latency and throughput of every artifact, how they compare, and what comes before the network."""
    often = Counter(one.artifact for run in runs for one in run.data.artifacts)
    for run in runs:
        names = {}
        for one in run.data.artifacts:  # two results may be of different files of one name
            facts = ", ".join(_facts(run, one)) if often[one.artifact] > 1 else ""
            names[one.artifact] = f"{one.artifact} ({facts})" if facts else one.artifact
        yield from _speeds(run.data, names)
        yield from _comparisons(run.data, names)
    data = runs[0].data
    before = milliseconds(data.picture.decode.p50_ms + data.picture.prepare.p50_ms)
    yield f"Before the network sees it, a {_file(data)} takes {before} to decode and resize."


def _speeds(data: LatencyData, names: Mapping[str, str]) -> Iterator[str]:
    for artifact, name in names.items():
        rows = data.rows_of(artifact)
        first, best = rows[0], max(rows, key=lambda row: row.pictures_per_second)
        what = "one picture" if first.batch_size == 1 else f"{first.batch_size} pictures"
        yield (
            f"{name} answers {what} in {milliseconds(first.latency.p50_ms)} (p50; {first.latency.tail}, "
            f"n = {first.latency.n:,}) and reaches {digits(best.pictures_per_second)} pictures/s at batch "
            f"{best.batch_size}."
        )


def _comparisons(data: LatencyData, names: Mapping[str, str]) -> Iterator[str]:
    baseline, *others = names.items()
    for artifact, name in others:
        compared = [one for one in data.comparisons if one.artifact == artifact]
        said = [f"{_compared(one)} at batch {one.batch_size}" for one in compared]
        if said:
            yield f"Beside {baseline[1]}, {name} is {joined(said)}."


def _compared(comparison: Comparison) -> str:
    if not comparison.separated:
        return "even"
    speedup = comparison.speedup
    return f"{times(speedup)} as fast" if speedup > 1 else f"{times(1 / speedup)} as slow"


def tables(run: MeasuredLatency) -> list[Table]:
    """One table of every artifact and batch size."""
    heads = ("artifact", "batch", "p50", "p90", "p99", "max", "pictures/s", "n", "")
    title = f"{plain_name(run.result.device)} · milliseconds per batch, one batch in flight"
    table = empty_table(title, heads, words=(0, 8))
    for row in run.data.rows:
        lat = row.latency
        values = (lat.p50_ms, lat.telling_p90_ms, lat.telling_p99_ms, lat.max_ms, row.pictures_per_second)
        stability = "[yellow]unstable[/]" if lat.unstable else ""
        figures = map(digits_or_dash, values)
        table.add_row(escape(row.artifact), str(row.batch_size), *figures, f"{lat.n:,}", stability)
    return [table]


KIND = Kind(
    name="latency",
    place=20,
    read=LatencyData.from_dict,
    section=section,
    headlines=headlines,
    tables=tables,
    summaries=lambda run: [row.latency for row in run.data.rows],
    networks=lambda run: [(one.model, one.image_size, one.num_classes) for one in run.data.artifacts],
)
