"""Owns results of the paper's Table 3 measured here; `serve.bench.measure.fusion` times its networks."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from serve.bench.engine_rows import find_engine
from serve.bench.kind import Kind, Measured, Timing
from serve.bench.measure.ratio import Ratio
from serve.bench.measure.table3 import (
    COLUMNS,
    SOURCE,
    SPEED,
    TABLE_3,
    FusionData,
    FusionRow,
    PassData,
    agreement,
    measured_order,
    published,
    published_order,
)
from zoo.page.charts import Bar, Group, bar_chart
from zoo.page.figures import Figures, to_page
from zoo.page.markup import Child, Markup, tag
from zoo.wording import count, digits, joined, percent, plain_name, times, with_threads

MeasuredFusion = Measured[FusionData]


def section(run: MeasuredFusion) -> Markup:
    """Speed of the four networks here and in the paper, and the figures."""
    data = run.data
    return tag(
        "section",
        tag("h3", f"Table 3 of the paper: B4 with more and more Fused-MBConv, {data.image_size} px"),
        tag("p", data.warning, class_="note warned") if data.warning else None,
        bar_chart(
            [*_here(data), *_there()],
            title="Speed beside the network without Fused-MBConv",
            description=f"Pictures a second as a share of the first network's, here and in the paper ({SPEED}). The "
            "paper states neither kernel nor squeeze-and-excitation of the fused blocks: here they keep SE, and have "
            "the kernels that come nearest to its parameter counts.",
            axis="× none",
        ),
        *to_page(tables(run)),
        tag("p", f"Published figures: {SOURCE}; {SPEED}.", class_="note"),
    )


def _here(data: FusionData) -> Iterator[Group]:
    for told in data.passes:
        rows = data.of(told.done)
        speeds = {published(row.variant).fused: row.pictures_per_second for row in rows}
        where = f"{find_engine(told.engine).name}, {_conditions(told)}"
        yield _group(f"Here, {told.done}", where, speeds, "series-1")


def _conditions(told: PassData) -> str:
    """“batch 1, fp32, 1 thread”."""
    said = (f"batch {told.batch_size}", told.precision, with_threads(told.threads))
    return ", ".join(filter(None, said))


def _there() -> Iterator[Group]:
    for column in COLUMNS:
        yield _group(f"Paper, {column}", "", {row.fused: row.speed(column) for row in TABLE_3}, "series-2")


def _group(heading: str, detail: str, speeds: dict[str, float], colour: str) -> Group:
    base = next(iter(speeds.values()))
    bars = []
    for fused, speed in speeds.items():
        name, text = f"fused {fused}" if fused != "none" else "no fused", f"{speed / base:.2f}×"
        spoken = f"{heading}, {name}: {digits(speed)} pictures/s, {text} of none"
        bars.append(Bar(label=name, value=speed / base, text=text, colour=colour, spoken=spoken))
    return Group(heading=heading, detail=detail, bars=bars)


def tables(run: MeasuredFusion) -> list[Figures]:
    """The table as published and as measured, side by side."""
    data = run.data
    rows: list[list[Child]] = []
    for line in TABLE_3:
        own = {row.done: row for row in data.rows if row.variant == line.variant}
        first = next(iter(own.values()))
        cells: list[Child] = [line.fused, f"{first.num_params / 1e6:.1f}", digits(line.params_m), count(first.macs)]
        for told in data.passes:
            row = own[told.done]
            cells += [digits(row.ms), digits(row.pictures_per_second), _speed(row.ratio)]
        rows.append([*cells, digits(line.v100), digits(line.tpu_v3), f"{line.top1:.1f}"])
    heads = ["fused", "params M", "paper's", "MACs"]
    for told in data.passes:
        heads += [f"{told.done} ms", f"{told.done} pictures/s", f"{told.done} × none"]
    heads += ["V100", "TPUv3", "top-1"]
    caption = (
        f"B4 at {data.image_size} px; parameters counted here and as published; V100, TPUv3, top-1 are the paper's"
    )
    return [Figures(heads=heads, rows=rows, caption=caption, words=(0,))]


def _speed(ratio: Ratio | None) -> str:
    return "1" if ratio is None else f"{1 / ratio.value:.2f} ({1 / ratio.high:.2f}–{1 / ratio.low:.2f})"


def headlines(runs: Sequence[MeasuredFusion]) -> Iterator[str]:
    """Whether the paper's order holds, pass by pass."""
    for run in runs:
        for told in run.data.passes:
            rows = run.data.of(told.done)
            where = f"{find_engine(told.engine).name} on {plain_name(run.result.device)}"
            yield (
                f"B4 at {run.data.image_size} px, {told.done} in {where} ({_conditions(told)}): "
                f"{_pays(rows, run)}; the fastest first: {_order(told, rows)}. {_agreement(told, rows)}"
            )
    said = [f"{joined(published_order(column), 'then')} on {column}" for column in COLUMNS]
    yield f"The paper's Table 3 has, the fastest first, {joined(said)}."


def _order(told: PassData, rows: Sequence[FusionRow]) -> str:
    """“1–3 ≈ none, 1–5 then 1–7”: what no interval tells apart has ≈ between."""
    return joined((" ≈ ".join(group) for group in measured_order(told.rounds, rows)), "then")


def _agreement(told: PassData, rows: Sequence[FusionRow]) -> str:
    said = [(column, *agreement(told.rounds, rows, column)) for column in COLUMNS]
    pairs = said[0][2]
    return f"Of {pairs} pairs of networks {joined(f'{same} are ordered as on {column}' for column, same, _ in said)}."


def _pays(rows: Sequence[FusionRow], run: MeasuredFusion) -> str:
    """Whether some Fused-MBConv beats none, by the intervals."""
    best = min((row for row in rows if row.ratio), key=lambda row: row.ms, default=None)
    if best is None or best.ratio is None:
        return "there is nothing to compare"
    name, ratio = published(best.variant).fused, best.ratio
    if ratio.verdict == "faster":
        return f"fusing stages {name} pays, {times(1 / ratio.value)} as fast as none"
    if ratio.verdict == "slower":
        return f"no fusing pays: stages {name}, the best, take {percent(ratio.value - 1)} more time"
    seconds = float((run.result.settings.get("schedule") or {}).get("duration_ms", 5000.0)) / 1000
    said = f"stages {name}, the best, take {ratio.low:.2f} – {ratio.high:.2f} of the time without"
    if ratio.verdict == "even":
        return f"fusing is even: {said}"
    return f"whether fusing pays is unclear: {said}; {ratio.settled_by(seconds)}"


def timings(run: MeasuredFusion) -> Iterator[Timing]:
    """Each network in each pass."""
    for told in run.data.passes:
        setting = f"{run.data.image_size} px, batch {told.batch_size}, {told.precision}, {told.engine}"
        for row in run.data.of(told.done):
            medians = told.rounds.medians_ms(row.variant)
            subject = f"{row.variant}, {told.done}"
            yield Timing(subject=subject, setting=setting, p50_ms=row.ms, round_p50_ms=medians)


KIND = Kind(
    name="fusion",
    place=12,
    read=FusionData.from_dict,
    section=section,
    headlines=headlines,
    tables=tables,
    warnings=lambda run: [run.data.warning] if run.data.warning else [],
    timings=timings,
    networks=lambda run: [(row.variant, run.data.image_size, 1000) for row in run.data.rows],
)
