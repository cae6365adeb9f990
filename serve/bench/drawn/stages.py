"""Owns how a stage's two forms, and the three ways of measuring them, are drawn; the figures are the kind's."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator

from serve.bench.measure.places import OPERATORS
from serve.bench.measure.ratio import Ratio
from serve.bench.measure.stage_rows import Exchange, InPlace, advantage, verdict_of, winner_of
from serve.bench.measure.stages import FormRow, StageRow, StagesData
from zoo.page.charts import Bar, Group, bar_chart, tick_text
from zoo.page.elements import pill
from zoo.page.logs import LogGroup, LogMark, LogRow, Point, Roof, log_chart, log_log_chart
from zoo.page.markup import Markup, tag
from zoo.wording import OPERATOR_NAMES, count, digits, joined, milliseconds, percent

# Who wins, in a word that has room in a tile.
SHORT = {"mbconv": "MBConv", "fused_mbconv": "Fused", "even": "even", "unclear": "unclear"}
# The methods are of one opinion on how much where the largest ratio is no more than so many times the smallest.
ALIKE = 1.25
# Layers whose sum is further from the whole than this are not the network as it runs.
SUM_WITHIN = 0.1


def squeeze_note(data: StagesData) -> str:
    """Which form has squeeze-and-excitation, in words."""
    has = {operator: sum(bool(row.form(operator).se_ratio) for row in data.rows) for operator in OPERATORS}
    said = [f"{OPERATOR_NAMES[operator]} has {_squeezed(some, len(data.rows))}" for operator, some in has.items()]
    why = {"paper": " (the network's own choice)", "both": " (--se both)", "none": " (--se none)"}[data.se]
    return f"{joined(said)}{why}."


def _squeezed(some: int, of: int) -> str:
    if some in (0, of):
        return "squeeze-and-excitation" if some else "none"
    return f"squeeze-and-excitation in {some} of {of} stages"


def times_chart(data: StagesData) -> Markup:
    """Both forms of every stage on one logarithmic axis of milliseconds."""
    return log_chart(
        [_times_group(row) for row in data.rows],
        title="Time of each stage in both forms",
        description=f"Median of the rounds, log scale; thin lines from the fastest to the slowest round; ◆ is the form "
        f"the network was published with. {squeeze_note(data)}",
        axis="ms",
        legend=[(operator, OPERATOR_NAMES[operator]) for operator in OPERATORS],
    )


def _times_group(row: StageRow) -> LogGroup:
    blocks = f"{row.num_layers} block{'s' if row.num_layers > 1 else ''}"
    rows = []
    for form in row.forms:
        name, text = OPERATOR_NAMES[form.operator], milliseconds(form.ms)
        own = tag("b", " ◆", title="as published") if form.operator == row.paper_operator else None
        spoken = (
            f"Stage {row.index}, {name}: {text}, rounds from {digits(form.best_ms)} to {milliseconds(form.worst_ms)}"
        )
        mark = LogMark(value=form.ms, low=form.best_ms, high=form.worst_ms, colour=form.operator, spoken=spoken)
        rows.append(LogRow(label=tag("span", name, own), marks=[mark], text=text))
    return LogGroup(
        heading=f"Stage {row.index}",
        detail=f"{row.in_channels}→{row.out_channels} channels, {row.out_size} px, {blocks}, expand {row.expand_ratio}",
        note=pill(row.verdict, row.winner),
        rows=rows,
    )


def methods_chart(data: StagesData) -> Markup | None:
    """The ratio of both forms by every method, on one logarithmic axis; None where there is only one method."""
    if not data.exchange:
        return None
    groups = []
    for row in data.rows:
        rows = [_method_row(row.index, name, ratio) for name, ratio in method_ratios(data, row)]
        note = pill("the methods disagree", "warning") if data.disagreement(row.index) else None
        groups.append(LogGroup(heading=f"Stage {row.index}", rows=rows, note=note))
    return log_chart(
        groups,
        title="Isolated, in place, by exchange",
        description="How many times as fast Fused-MBConv is as MBConv, log scale, with 95 % intervals. In place: the "
        "stage's layers in both whole networks, by the engine's profiler. By exchange: from the difference of whole "
        "networks that differ in this stage, without a profiler.",
        axis="×",
        centre=1.0,
        legend=[("mbconv", "MBConv faster (left)"), ("fused_mbconv", "Fused-MBConv faster (right)")],
        say=lambda tick: f"{tick_text(tick if tick >= 1 else 1 / tick)}×",
    )


def method_ratios(data: StagesData, row: StageRow) -> list[tuple[str, Ratio | None]]:
    """What each method says of a stage: the time of its Fused-MBConv as a share of its MBConv's."""
    found: list[tuple[str, Ratio | None]] = [("isolated", row.judged)]
    exchange = data.exchanged(row.index)
    if exchange and exchange.in_place:
        found.append(("in place", exchange.in_place))
    if exchange:
        found.append(("by exchange", implied_ratio(exchange, own_stage_ms(data, row))))
    return found


def differing(data: StagesData) -> list[int]:
    """Stages in which the methods agree on the faster form, and not on how much faster it is."""
    found = []
    for row in data.rows:
        ratios = [ratio.value for _, ratio in method_ratios(data, row) if ratio]
        if max(ratios, default=1.0) > ALIKE * min(ratios, default=1.0) and not data.disagreement(row.index):
            found.append(row.index)
    return found


def own_stage_ms(data: StagesData, row: StageRow) -> float:
    """What a stage takes in its own form: in the network where a profiler said so, else by itself."""
    exchange = data.exchanged(row.index)
    if exchange and exchange.own_in_place_ms:
        return exchange.own_in_place_ms
    return row.form(row.paper_operator).ms


def implied_ratio(exchange: Exchange, stage_ms: float) -> Ratio | None:
    """The ratio of a stage's forms that a whole network's ratio amounts to, if the own form takes `stage_ms` of it.

    The other form takes what the networks differ by more or less. Of a network of 10 ms whose stage takes 2 and that
    takes 11 with the other form, the other form takes 3 and the ratio is 1.5. None where it would take less than
    nothing.
    """
    ratio, own = exchange.ratio, exchange.own_ms
    is_fused = exchange.own_operator == "fused_mbconv"

    def of_stage(whole: float) -> float:
        # `whole` is fused over MBConv: with a network that has Fused-MBConv, the other one takes own / whole.
        other = stage_ms + (own / whole - own if is_fused else own * whole - own)
        return stage_ms / other if is_fused else other / stage_ms

    values = [of_stage(whole) for whole in (ratio.low, ratio.value, ratio.high)]
    if min(values) <= 0:
        return None
    low, value, high = sorted(values)
    return Ratio(value=value, low=low, high=high, rounds=ratio.rounds, paired=ratio.paired)


def _method_row(index: int, name: str, ratio: Ratio | None) -> LogRow:
    if ratio is None:
        return LogRow(label=name, marks=[], text="unclear")
    winner = winner_of(ratio)
    spoken = f"Stage {index}, {name}: {verdict_of(ratio)}, {ratio.words()}"
    mark = LogMark(
        value=1 / ratio.value,
        low=1 / ratio.high,
        high=1 / ratio.low,
        colour=winner,
        spoken=spoken,
        hollow=name != "isolated",
    )
    return LogRow(label=name, marks=[mark], text=advantage(ratio) or winner)


def in_place_chart(data: StagesData, in_place: InPlace) -> Markup:
    """What each part of the network takes of the whole, by the profiler."""
    colours = {row.index: row.paper_operator for row in data.rows}
    parts = [("before the stages", in_place.beside_ms("before"), "series-4")]
    parts += [(f"stage {row.index}", in_place.stage_ms(row.index), colours[row.index]) for row in data.rows]
    parts += [("after the stages", in_place.beside_ms("after"), "series-4")]
    parts += [("not attributed", in_place.nowhere_ms, "series-3")]
    bars = [
        Bar(
            label=name,
            value=ms,
            text=percent(ms / in_place.sum_ms),
            colour=colour,
            spoken=f"{name}: {milliseconds(ms)}, {percent(ms / in_place.sum_ms)} of all layers",
        )
        for name, ms, colour in parts
    ]
    return bar_chart(
        [Group(heading=f"{data.model} as published", detail=sum_note(in_place), bars=bars)],
        title="In place",
        description=f"The layers of the whole network by {PROFILERS[in_place.profiler]}, summed by part; medians of "
        f"{in_place.calls} calls.",
        axis="ms",
    )


PROFILERS = {
    "onnxruntime": "ONNX Runtime's profiler",
    "torch": "PyTorch's profiler",
    "tensorrt": "TensorRT's IProfiler",
}


def sum_note(in_place: InPlace) -> str:
    """The sum of the parts against the whole, in words."""
    share = in_place.sum_ms / in_place.whole_ms
    return (
        f"all layers {milliseconds(in_place.sum_ms)}, {percent(share)} of the {milliseconds(in_place.whole_ms)} "
        f"that it takes without a profiler"
    )


def sum_doubt(in_place: InPlace) -> str:
    """That the layers are not the network as it runs, where their sum is far from the whole; "" where it is near."""
    share = in_place.sum_ms / in_place.whole_ms
    if abs(share - 1) <= SUM_WITHIN:
        return ""
    why = "the profiler takes time of its own" if share > 1 else "layers run at the same time, or are not all told"
    return (
        f"In place, the layers add up to {percent(share)} of what the network takes without a profiler ({why}): shares "
        "are rough."
    )


def roofline_chart(data: StagesData) -> Markup | None:
    """Every form of every stage under the device's roof; None where no peak was measured."""
    peaks = data.peaks
    points = list(_points(data))
    if peaks is None or not points:
        return None
    return log_log_chart(
        points,
        Roof(
            slope=peaks.bytes_per_s / 1e9,
            top=peaks.flops_per_s / 1e9,
            label=f"roof: {digits(peaks.flops_per_s / 1e9)} GFLOP/s, {digits(peaks.bytes_per_s / 1e9)} GB/s",
        ),
        title="Roofline",
        description=f"Achieved speed of every stage over its arithmetic intensity; numbers are stages. Both peaks were "
        f"measured on the spot: {peaks.flops_by}; {peaks.bytes_by}.",
        x_name="floating-point operations per byte moved",
        y_name="GFLOP/s",
        legend=[(operator, OPERATOR_NAMES[operator]) for operator in OPERATORS],
    )


def above_the_roof(data: StagesData) -> str:
    """That some forms were faster than the peaks, which is then the peaks' fault; "" where none was."""
    shares = [share for row in data.rows for form in row.forms if (share := form.roof_share(data.peaks))]
    above = sum(share > 1 for share in shares)
    if not above:
        return ""
    return (
        f"{above} of {len(shares)} forms lie above the roof: the peaks were measured while the machine was slower, or "
        "the engine keeps more between layers than is counted."
    )


def _points(data: StagesData) -> Iterator[Point]:
    for row in data.rows:
        for form in row.forms:
            if form.intensity is not None:
                yield Point(
                    x=form.intensity,
                    y=form.flops_per_s / 1e9,
                    colour=form.operator,
                    letter=str(row.index),
                    spoken=f"Stage {row.index}, {OPERATOR_NAMES[form.operator]}: {roof_words(form, data)}",
                )


def roof_words(form: FormRow, data: StagesData) -> str:
    """Intensity, speed, and the share of the roof, in words."""
    share = form.roof_share(data.peaks)
    of_roof = f", {percent(share)} of the roof" if share is not None else ""
    return f"{digits(form.intensity or 0)} FLOP/byte, {digits(form.flops_per_s / 1e9)} GFLOP/s{of_roof}"


def crossover_maps(data: StagesData) -> list[Markup]:
    """A heat map for each stage that was mapped and each batch: channels down, map size across."""
    wholes = dict.fromkeys((cell.stage, cell.batch_size) for cell in data.crossover)
    return [_heat_map(data, stage, batch) for stage, batch in wholes]


def _heat_map(data: StagesData, stage: int, batch: int) -> Markup:
    cells = {(c.channels, c.size): c for c in data.crossover if (c.stage, c.batch_size) == (stage, batch)}
    channels, sizes = _sorted(key[0] for key in cells), _sorted(key[1] for key in cells)
    (own,) = (row for row in data.rows if row.index == stage)
    rows = []
    for wide in channels:
        tiles = []
        for size in sizes:
            ratio = cells[wide, size].ratio
            here = " here" if (wide, size) == (own.out_channels, own.out_size) else ""
            strength = f"--share:{heat(ratio):.0f}%"
            winner, by = winner_of(ratio), advantage(ratio)
            words = (tag("span", SHORT[winner]), tag("small", by) if by else None)
            tiles.append(tag("td", *words, class_=f"heat {winner}{here}", style=strength, title=verdict_of(ratio)))
        rows.append(tag("tr", tag("th", count(wide)), *tiles))
    head = tag("tr", tag("th", "channels"), *(tag("th", f"{size} px") for size in sizes))
    block = f"one block of stage {stage}: kernel {own.kernel_size}, expand {own.expand_ratio}"
    said = (
        f"Batch {batch}, {block}. Which form is faster, and how many times as fast as the other; a stronger colour is "
        "more. The frame is the stage's own place."
    )
    caption = tag("figcaption", tag("strong", f"Who wins around stage {stage}"), " ", tag("span", said, class_="muted"))
    return tag(
        "figure", caption, tag("table", tag("thead", head), tag("tbody", *rows), class_="heat-map"), class_="chart"
    )


def heat(ratio: Ratio | None) -> float:
    """How strongly a cell is coloured, percent: 10 where the forms are nearly alike, 60 from four times as fast on."""
    if ratio is None:
        return 0.0
    return 10 + 50 * min(abs(math.log2(ratio.value)) / 2, 1.0)


def _sorted(values: Iterable[int]) -> list[int]:
    return sorted(set(values))
