"""Owns results of the latency of artifacts; `serve.bench.measure.latency` times them."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence

from rich.markup import escape
from rich.table import Table

from serve.bench.kind import Kind, Measured, Timing
from serve.bench.measure.latency_data import Comparison, LatencyData, LatencyRow, TimedArtifact, Turn
from zoo.measure.rounds import Rounds, Visit, disturbance
from zoo.page.charts import Bar, Group, Line, bar_chart, line_chart
from zoo.page.curves import Band, Curve, curve_chart
from zoo.page.ecdf import Distribution, ecdf_chart
from zoo.page.figures import SERIES, SUMMARY_HEADS, Figures, empty_table, marks, spread, summary_cells, to_page
from zoo.page.markup import Child, Markup, tag
from zoo.wording import digits, digits_or_dash, joined, milliseconds, plain_name, times

MeasuredLatency = Measured[LatencyData]
# Charts that show every artifact have a colour for so many.
_MOST_CURVES = len(SERIES)


def section(run: MeasuredLatency) -> Markup:
    """Percentiles, distributions, throughput over batch size, what comes before the network, and how quiet it was."""
    data, artifacts = run.data, run.data.artifacts
    colours = {one.artifact: SERIES[index % len(SERIES)] for index, one in enumerate(artifacts)}
    groups = [
        Group(
            heading=one.artifact,
            detail=" · ".join([one.backend, f"{one.image_size} px", *filter(None, _facts(run, one))]),
            bars=[_bar(row, colours[one.artifact]) for row in data.rows_of(one.artifact)],
        )
        for one in artifacts
    ]
    bars = bar_chart(
        groups,
        title="Latency",
        description="Bars end at p50; the ticks are p90 and, from 100 samples on, p99. "
        f"{_first_upper(run.result.settings.get('scenario_says', 'one batch in flight'))}; copies included.",
        axis="ms",
        legend=[("mark-key p90", "p90"), ("mark-key p99", "p99")],
    )
    return tag(
        "section",
        tag("h3", f"Latency of {joined(one.artifact for one in artifacts)}"),
        bars,
        *to_page([_figures(run), *_parts(run.data)]),
        *(_distribution(turn, colours) for turn in data.turns if turn.idle_ms is None),
        *_curves(data, colours),
        _before_the_network(data),
        *(_machine_meanwhile(data) if data.turns else ()),
    )


def _first_upper(text: str) -> str:
    return text[:1].upper() + text[1:]


def _facts(run: MeasuredLatency, artifact: TimedArtifact) -> tuple[str, str, str]:
    """Precision, threads and SHA-256 of an artifact, each "" where a result, of an older version, does not say it."""
    subject = next((subject for subject in run.result.subjects if subject.name == artifact.artifact), None)
    _, _, precision, threads, sha256, _ = subject.words if subject else [""] * 6
    return precision, threads, sha256 and f"SHA-256 {sha256}…"


def _bar(row: LatencyRow, colour: str) -> Bar:
    ticks, latency = marks(row.latency), row.latency
    said = [f"{key} {milliseconds(value)}" for key, value in (("p50", latency.p50_ms), *ticks)]
    return Bar(
        label=row.short,
        value=latency.p50_ms,
        text=milliseconds(latency.p50_ms),
        colour=colour,
        spoken=f"{row.artifact}, {row.label}: {', '.join(said)}, n {latency.n}",
        marks=ticks,
    )


def _figures(run: MeasuredLatency) -> Figures:
    data = run.data
    compared = {(one.artifact, one.key): one for one in data.comparisons}
    listed = [row for artifact in data.artifacts for row in data.rows_of(artifact.artifact)]
    rows: list[list[Child]] = []
    for row in listed:
        one = compared.get((row.artifact, row.key))
        cells = [row.artifact, row.label, *summary_cells(row.latency), digits(row.pictures_per_second)]
        if data.turns:  # what was disturbed is known: a wide spread alone is no reproach
            cells[5] = spread(row.latency)
        rows.append([*cells, _compared(one) if one else "1×"] if compared else cells)
    heads = ["artifact", "called", *SUMMARY_HEADS, "pictures/s", *(["speed"] if compared else [])]
    few = any(row.latency.telling_p99_ms is None for row in listed)
    each = "picture" if listed[0].scenario == "server" else "batch"
    caption = f"Milliseconds per {each}" + ("; a p99 needs 100 samples, a p90 10" if few else "")
    return Figures(heads=heads, rows=rows, caption=caption, words=(0, 1, 8))


def _parts(data: LatencyData) -> Iterator[Figures]:
    """Where the time of a call on a GPU goes, of runners that tell."""
    rows: list[list[Child]] = []
    for row in data.rows:
        if row.parts:
            parts = (row.parts.host_to_device, row.parts.compute, row.parts.device_to_host, row.parts.end_to_end)
            n = f"{row.parts.end_to_end.n:,}"
            rows.append([row.artifact, row.label, *(digits(part.p50_ms) for part in parts), n])
    if rows:
        heads = ("artifact", "called", "to the device", "computing", "back", "together", "n")
        caption = "Milliseconds of the parts of a call, p50; the device is waited for after each, in a pass of its own"
        yield Figures(heads=heads, rows=rows, caption=caption, words=(0, 1))


def _distribution(turn: Turn, colours: Mapping[str, str]) -> Markup:
    """Every artifact's samples in one setting."""
    shown = []
    for track in turn.rounds.tracks[:_MOST_CURVES]:
        summary = turn.rounds.summary(track.name)
        shown.append(
            Distribution(
                label=track.name,
                colour=colours[track.name],
                ascending=sorted(turn.rounds.samples_ms(track.name)),
                marked=(summary.p50_ms, summary.telling_p90_ms, summary.telling_p99_ms),
            )
        )
    return ecdf_chart(
        shown,
        title=f"Distribution, {turn.label}",
        description="The share of samples up to each time, all of them; dots at p50, p90 and p99.",
        unit="ms",
    )


def _curves(data: LatencyData, colours: Mapping[str, str]) -> Iterator[Markup]:
    """Whatever was measured at several values of: batches, rates of arrival, sizes, silences."""
    calm = [row for row in data.rows if row.idle_ms is None]
    if all(row.scenario != "server" for row in calm):
        points = [(row.artifact, f"batch {row.batch_size}", row.pictures_per_second) for row in calm]
        yield from _curve("Throughput", "One caller, one batch after the other.", "pictures/s", points, colours)
    served = [row for row in calm if row.offered_per_second]
    points = [(row.artifact, f"{digits(row.offered_per_second or 0)}/s", row.latency.p99_ms) for row in served]
    yield from _curve("p99 over the load", "Pictures that arrive a second, at random.", "ms", points, colours)
    sized = [row for row in calm if row.image_size and row.batch_size == calm[0].batch_size]
    points = [(row.artifact.partition(" at ")[0], f"{row.image_size} px", row.latency.p50_ms) for row in sized]
    named = {row.artifact.partition(" at ")[0]: colours[row.artifact] for row in reversed(sized)}
    yield from _curve("p50 over the size of the pictures", f"Batch {calm[0].batch_size}.", "ms", points, named)
    idle = [row for row in data.rows if row.idle_ms is not None]
    points = [(row.artifact, f"{row.idle_ms:g} ms", row.latency.p50_ms) for row in idle]
    yield from _curve("p50 after a silence", "Nothing asked for so long before each call.", "ms", points, colours)


def _curve(
    title: str, said: str, axis: str, points: Sequence[tuple[str, str, float]], colours: Mapping[str, str]
) -> Iterator[Markup]:
    """A curve of every artifact that has all points; one point is no curve, and the table has it."""
    labels = list(dict.fromkeys(label for _, label, _ in points))
    of_artifact = {name: [(label, y) for own, label, y in points if own == name] for name in colours}
    lines = [
        Line(label=name, colour=colours[name], points=own)
        for name, own in of_artifact.items()
        if [label for label, _ in own] == labels
    ]
    if len(labels) > 1 and lines:
        yield line_chart(lines[:_MOST_CURVES], title=title, description=said, axis=axis)


def _before_the_network(data: LatencyData) -> Markup:
    first = data.artifacts[0]
    network = data.rows_of(first.artifact)[0]
    steps = (
        ("decode", data.picture.decode, "series-4"),
        ("resize", data.picture.prepare, "series-3"),
        (f"network, {network.short}", network.latency, "series-1"),
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


def _machine_meanwhile(data: LatencyData) -> Iterator[Markup]:
    """What was taken from this process in every round of the run, with the load and the clock."""
    visits = [visit for turn in data.turns for round_ in _in_rounds(turn.rounds) for visit in round_]
    lost = [(float(index), 100 * visit.vitals.lost_share) for index, visit in enumerate(visits, start=1)]
    load = [(float(index), visit.vitals.load or 0.0) for index, visit in enumerate(visits, start=1)]
    clocks = sorted({round(visit.vitals.clock_mhz) for visit in visits if visit.vitals.clock_mhz})
    mhz = (
        f"{clocks[0]:,}" if len(clocks) == 1 else f"{clocks[0]:,} to {clocks[-1]:,}" if clocks else "an unknown clock,"
    )
    switches = sum(visit.vitals.switches or 0 for visit in visits)
    robbed = sum(len(turn.rounds.robbed_rounds) for turn in data.turns)
    rounds = sum(len(turn.rounds.tracks[0].visits) for turn in data.turns)
    said = f"{robbed} of {rounds} rounds disturbed; at {mhz} MHz; {switches:,} involuntary context switches."
    # Two charts: the load is of the whole machine, and may be a thousand where hardly anything was taken from here.
    yield _over_visits(lost, "The machine meanwhile", f"Time without a processor, % of each visit; {said}")
    yield _over_visits(load, "Load meanwhile", "Of the whole machine, mean of the last minute, at each visit.")


def _over_visits(points: Sequence[tuple[float, float]], title: str, description: str) -> Markup:
    return curve_chart(
        [Curve(label=title, colour="series-2", points=points)],
        [Band(start=1, end=max(len(points), 2))],
        title=title,
        description=description,
        x_name="visit",
        height_px=150,
    ).as_figure()


def _in_rounds(rounds: Rounds) -> Iterator[tuple[Visit, ...]]:
    """The visits of every round, in the order they were made."""
    yield from zip(*(track.visits for track in rounds.tracks), strict=True)


def _file(data: LatencyData) -> str:
    return f"{data.picture.width_px} × {data.picture.height_px} {data.picture.format}"


def headlines(runs: Sequence[MeasuredLatency]) -> Iterator[str]:
    """Latency and throughput of every artifact, how they compare, and what comes before the network."""
    often = Counter(one.artifact for run in runs for one in run.data.artifacts)
    for run in runs:
        names, described, several_sizes = {}, {}, len({one.image_size for one in run.data.artifacts}) > 1
        for one in run.data.artifacts:
            *facts, sha256 = _facts(run, one)
            sha256s = [sha256] if often[one.artifact] > 1 else []  # results of different files of one name
            full = [f"{one.image_size} px", *filter(None, facts), one.backend, *filter(None, sha256s)]
            described[one.artifact] = f"{one.artifact} ({', '.join(full)})"
            short = [f"{one.image_size} px"] if several_sizes else []  # what is faster may only see less
            short += filter(None, [*facts, sha256] if sha256s else [])
            names[one.artifact] = f"{one.artifact} ({', '.join(short)})" if short else one.artifact
        yield from _speeds(run, described)
        yield from _comparisons(run, names)
        yield from _silences(run.data, names)
    data = runs[0].data
    before = milliseconds(data.picture.decode.p50_ms + data.picture.prepare.p50_ms)
    yield f"Before the network sees it, a {_file(data)} takes {before} to decode and resize."


def _speeds(run: MeasuredLatency, names: Mapping[str, str]) -> Iterator[str]:
    on = f"on {plain_name(run.result.device)}"
    for artifact, name in names.items():
        rows = [row for row in run.data.rows_of(artifact) if row.idle_ms is None]
        first, best = rows[0], max(rows, key=lambda row: row.pictures_per_second)
        said = f"({{}}; {first.latency.tail}, n = {first.latency.n:,})"
        if first.scenario == "server":
            yield from _served(rows, f"{name} {on}")
        elif first.scenario == "offline":
            rate, n = digits(best.pictures_per_second), f"n = {best.latency.n:,}"
            yield f"{name} reaches {rate} pictures/s {on} at {best.label}, {n}."
        else:
            what = "one picture" if first.batch_size == 1 else f"{first.batch_size} pictures"
            p50 = milliseconds(first.latency.p50_ms)
            yield (
                f"{name} answers {what} in {p50} {on} {said.format('p50')} and reaches "
                f"{digits(best.pictures_per_second)} pictures/s at batch {best.batch_size}."
            )


def _served(rows: Sequence[LatencyRow], name: str) -> Iterator[str]:
    for row in rows:
        offered = f"{digits(row.offered_per_second or 0)} pictures/s that arrive at random"
        if row.keeps_up:
            yield (
                f"{name} answers {offered} in {milliseconds(row.latency.p50_ms)} (p50; {row.latency.tail}, "
                f"n = {row.latency.n:,})."
            )
        else:
            yield f"{name} does not keep up with {offered}: it answers {digits(row.pictures_per_second)}."


def _comparisons(run: MeasuredLatency, names: Mapping[str, str]) -> Iterator[str]:
    seconds = float(run.result.settings.get("schedule", {}).get("duration_ms", 0.0)) / 1000
    for artifact, name in names.items():
        compared = [one for one in run.data.comparisons if one.artifact == artifact and one.idle_ms is None]
        said = [f"{_compared(one)} at {one.label}" for one in compared]
        if not said:
            continue
        unclear = [one.ratio for one in compared if one.ratio and one.ratio.verdict == "unclear"]
        if unclear:
            longest = max(unclear, key=lambda ratio: ratio.longer or float("inf"))
            said[-1] += f"; {longest.settled_by(seconds)}"
        yield f"Beside {names[compared[0].baseline]}, {name} is {joined(said)}."


def _compared(comparison: Comparison) -> str:
    if comparison.ratio:
        return comparison.ratio.words()
    if not comparison.separated:
        return "not told apart"
    speedup = comparison.speedup
    return f"{times(speedup)} as fast" if speedup > 1 else f"{times(1 / speedup)} as slow"


def _silences(data: LatencyData, names: Mapping[str, str]) -> Iterator[str]:
    for artifact, name in names.items():
        rows = [row for row in data.rows_of(artifact) if row.idle_ms is not None]
        if len(rows) > 1:
            first, *later = rows
            said = [f"{milliseconds(row.latency.p50_ms)} after {row.idle_ms:g} ms" for row in later]
            yield f"After a silence {name} takes {joined(said)}, and {milliseconds(first.latency.p50_ms)} without one."


def warnings(run: MeasuredLatency) -> Iterator[str]:
    """That the machine was not quiet, and whose warm-up did not settle."""
    doubt = disturbance(turn.rounds for turn in run.data.turns)
    if doubt:
        yield doubt
    unsettled = dict.fromkeys(
        track.name for turn in run.data.turns for track in turn.rounds.tracks if not track.warm_up.settled
    )
    if unsettled:
        yield f"The time per call of {joined(unsettled)} had not settled when the rounds began."


def tables(run: MeasuredLatency) -> list[Table]:
    """One table of every artifact and batch size."""
    heads = ("artifact", "called", "p50", "p90", "p99", "max", "pictures/s", "n", "")
    each = "picture, from its arrival" if run.data.rows[0].scenario == "server" else "batch, one batch in flight"
    table = empty_table(f"{plain_name(run.result.device)} · milliseconds per {each}", heads, words=(0, 1, 8))
    for row in run.data.rows:
        lat = row.latency
        values = (lat.p50_ms, lat.telling_p90_ms, lat.telling_p99_ms, lat.max_ms, row.pictures_per_second)
        late = "" if row.keeps_up else "[yellow]does not keep up[/]"
        table.add_row(escape(row.artifact), row.label, *map(digits_or_dash, values), f"{lat.n:,}", late)
    return [table]


KIND = Kind(
    name="latency",
    place=20,
    read=LatencyData.from_dict,
    section=section,
    headlines=headlines,
    tables=tables,
    warnings=warnings,
    timings=lambda run: [
        Timing(subject=row.artifact, setting=row.label, p50_ms=row.latency.p50_ms, round_p50_ms=row.round_p50_ms)
        for row in run.data.rows
    ],
    # Where rounds were watched, what is said of them says more than the spread of samples.
    summaries=lambda run: [] if run.data.turns else [row.latency for row in run.data.rows],
    networks=lambda run: [(one.model, one.image_size, one.num_classes) for one in run.data.artifacts],
)
