"""Owns docs/img/stages.svg: which block is faster in every stage of a network, drawn from the result `chosen`.

The units are pixels of a phone's width, as those of the picture of the architecture. The axis is a ratio on a log
scale: a stage of 0.3 ms is as wide as one of 20 ms, and twice as fast is as long to the left as to the right.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence

from made.results import BENCHMARKS
from serve.bench.measure.stages import StageRow, StagesData
from zoo.page.markup import Markup, tag
from zoo.page.picture import heading, render_picture
from zoo.results import Result, read_results
from zoo.wording import digits, plain_name, with_threads

# S in the engine that ships on a processor; of several sizes the largest one counts.
SHOWN = "stages-s-*px-ort-cpu-b1-fp32-*.json"
WIDTH, MARGIN, SCALE = 480, 32, 1.35
HEAD, ROW, BAR, FOOT = 144, 27, 17, 92
LEFT, RIGHT = 178, WIDTH - MARGIN - 8  # of the plot
CHANNELS = MARGIN + 78
COLOURS = {"mbconv": "blue", "fused_mbconv": "orange", "even": "grey", "unclear": "grey"}


def chosen() -> tuple[Result, StagesData]:
    """The committed result that the picture shows."""
    found = [(result, StagesData.from_dict(result.data)) for result in read_results(BENCHMARKS.glob(SHOWN))]
    return max(found, key=lambda one: (one[1].image_size, one[0].device))


def draw() -> str:
    """The picture: a row for a stage, its published form as a strip on the left, its bar towards the faster form."""
    result, data = chosen()
    axis = Axis(data.rows)
    bottom = HEAD + ROW * len(data.rows)
    parts = [
        *heading("Which block is faster where?", conditions(result, data), WIDTH),
        keys(),
        tag("text", "channels", class_="tick", x=CHANNELS, y=HEAD - 8),
        *axis.grid(bottom),
        *(part for number, row in enumerate(data.rows) for part in stage(row, HEAD + ROW * number, axis)),
        *foot(data, bottom, axis),
    ]
    return render_picture(parts, title=spoken(data), width=WIDTH, height=bottom + FOOT, scale=SCALE)


def conditions(result: Result, data: StagesData) -> list[str]:
    """What was measured on what, in two lines."""
    threads = result.settings["threads"]
    engine = data.backend or f"PyTorch {result.environment['packages']['torch']}"
    return [
        f"{data.variant.name} at {data.image_size} px, batch {data.batch_size}, {data.precision}",
        f"{plain_name(result.device)}, {with_threads(threads)}, {engine}",
    ]


class Axis:
    """Where a ratio stands: 1 between the two forms, powers of two at equal distances, as many as the bars need."""

    def __init__(self, rows: Sequence[StageRow]) -> None:
        ends = [math.log2(end) for row in rows for end in span(row)]
        self.low, self.high = min(-1, math.floor(min(ends))), max(1, math.ceil(max(ends)))

    def at(self, ratio: float) -> float:
        """Pixels from the left of a time of MBConv over one of Fused-MBConv."""
        return LEFT + (RIGHT - LEFT) * (math.log2(ratio) - self.low) / (self.high - self.low)

    def grid(self, bottom: int) -> Iterator[Markup]:
        """A line and a label at every power of two."""
        for power in range(self.low, self.high + 1):
            x = self.at(2.0**power)
            yield tag("line", class_="grid", x1=x, x2=x, y1=HEAD - 4, y2=bottom + 2)
            yield tag("text", f"{2 ** abs(power)}×", class_="tick", x=x, y=bottom + 16, text_anchor="middle")


def span(row: StageRow) -> tuple[float, float]:
    """The interval that holds the ratio at 95 %; the ratio itself where there is none."""
    ratio = row.judged
    return (1 / ratio.high, 1 / ratio.low) if ratio else (row.fused_speedup, row.fused_speedup)


def stage(row: StageRow, top: int, axis: Axis) -> Iterator[Markup]:
    """One stage: its published form, its name, its channels, and its bar with its interval."""
    base = top + 14
    yield tag("rect", class_=f"fill {COLOURS[row.paper_operator]}", x=MARGIN, y=top - 2, width=7, height=ROW - 2)
    yield tag("text", f"Stage {row.index}", class_="strong", x=MARGIN + 15, y=base)
    yield tag("text", f"{row.in_channels}→{row.out_channels}", class_="tick", x=CHANNELS, y=base)
    one, end = axis.at(1), axis.at(row.fused_speedup)
    colour = f"fill {COLOURS[row.winner]}"
    yield tag("rect", class_=colour, x=min(one, end), y=top + 1, width=max(abs(end - one), 1.0), height=BAR)
    low, high = (axis.at(ratio) for ratio in span(row))
    middle = top + 1 + BAR / 2
    yield tag("line", class_="whisker", x1=low, x2=high, y1=middle, y2=middle)
    yield tag("line", class_="whisker", x1=one, x2=one, y1=top - 3, y2=top + BAR + 5)
    yield tag("text", row.advantage or row.winner, class_="point", x=max(high, one) + 6, y=base)


def keys() -> Markup:
    """What the colours are."""
    names = {"orange": "Fused-MBConv", "blue": "MBConv", "grey": "even"}
    parts = [
        part
        for colour, name in names.items()
        for part in (tag("tspan", "■", class_=f"fill {colour}", dx=12), tag("tspan", name, dx=5))
    ]
    return tag("text", *parts, tag("tspan", "left strip: as published", class_="muted", dx=14), x=MARGIN - 12, y=108)


def foot(data: StagesData, bottom: int, axis: Axis) -> Iterator[Markup]:
    """The names of the axis, and how many calls a bar rests on."""
    one, y = axis.at(1), bottom + 34
    yield tag("text", "← MBConv faster", class_="tick", x=one - 10, y=y, text_anchor="end")
    yield tag("text", "Fused faster →", class_="tick", x=one + 10, y=y)
    calls = [form.latency.n for row in data.rows for form in row.forms]
    said = (
        "Ratio of times, log scale. Thin line: its 95 % interval.",
        f"n = {min(calls):,} to {max(calls):,} calls a time.",
    )
    for number, line in enumerate(said):
        yield tag("text", line, class_="tick", x=MARGIN, y=bottom + 58 + 18 * number)


def spoken(data: StagesData) -> str:
    """What a reader hears who does not see the picture."""
    said = [
        f"stage {row.index} {row.verdict}, {digits(row.mbconv.ms)} and {digits(row.fused_mbconv.ms)} ms"
        for row in data.rows
    ]
    return f"MBConv or Fused-MBConv, {data.conditions}: {'; '.join(said)}"
