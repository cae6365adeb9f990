"""Owns charts whose axis is logarithmic: rows of marks, and marks over two such axes. It does not know what they mean.

As in `charts`, horizontal positions are percentages and text is HTML, so that they can be read at 390 px. On a
logarithmic axis what takes 0.1 ms is as visible as what takes 20, and twice as fast is as long as twice as slow.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import pairwise

from zoo.page.charts import draw_figure, tick_text
from zoo.page.markup import Child, Markup, tag

_ROW_PX, _PLOT_PX, _PLOT_TOP_PX, _PLOT_BOTTOM_PX = 24, 320, 14, 30
# Of a decade's 1, 2 and 5 as many as there is room for at 390 px.
_MOST_TICKS = 4
# And none nearer to the next than this share of the axis: 27 px of the 180 that a chart of rows has there.
_LEAST_GAP = 0.15


@dataclass(frozen=True, kw_only=True)
class LogMark:
    """One mark of a row, above 0; `low` and `high` draw a whisker; a `hollow` one is a ring."""

    value: float
    colour: str
    spoken: str
    low: float | None = None
    high: float | None = None
    hollow: bool = False


@dataclass(frozen=True, kw_only=True)
class LogRow:
    """One line of marks, with a label to its left and a text to its right."""

    label: Child
    marks: Sequence[LogMark]
    text: Child = ""


@dataclass(frozen=True, kw_only=True)
class LogGroup:
    """Rows under one heading; `note` is to its right."""

    heading: Child
    rows: Sequence[LogRow]
    detail: str = ""
    note: Markup | None = None


@dataclass(frozen=True, kw_only=True)
class Axis:
    """A logarithmic axis from `low` to `high`."""

    low: float
    high: float

    def at(self, value: float) -> float:
        """Where a value is, a share of the axis; what lies outside is at its end."""
        share = math.log(value / self.low) / math.log(self.high / self.low)
        return min(max(share, 0.0), 1.0)

    def ticks(self, most: int = _MOST_TICKS) -> list[float]:
        """Round numbers on it, few and apart: of 0.05 … 30 the powers of ten, of 1 … 6 1, 2 and 5."""
        for steps in ((1, 2, 5), (1, 3), (1,)):
            found = [value for value in _round_numbers(self.low, self.high, steps) if self.low <= value <= self.high]
            places = [self.at(value) for value in found]
            if len(found) <= most and all(after - before >= _LEAST_GAP for before, after in pairwise(places)):
                return found
        stride = -(-len(found) // most)
        return found[::stride]


def axis_around(values: Sequence[float], *, room: float = 1.15) -> Axis:
    """An axis that holds all of some values, with a little room at both ends."""
    low, high = min(values) / room, max(values) * room
    return Axis(low=low, high=high)


def log_chart(
    groups: Sequence[LogGroup],
    *,
    title: str,
    description: str,
    axis: str,
    legend: Sequence[tuple[str, str]] = (),
    centre: float | None = None,
    say: Callable[[float], str] = tick_text,
) -> Markup:
    """Rows of marks over one logarithmic axis.

    Args:
        groups: at least one mark in all.
        title, description, legend: as in `bar_chart`.
        axis: what stands at the end of the axis.
        centre: a value that is always on the axis, with a line of its own, from which bars go to the marks.
        say: how a tick is written.
    """
    marks = [mark for group in groups for row in group.rows for mark in row.marks]
    ends = [value for mark in marks for value in (mark.value, mark.low, mark.high) if value]
    along = axis_around([*ends, *([centre / 1.5, centre * 1.5] if centre else [])])
    ticks = along.ticks()
    body: list[Markup] = []
    for group in groups:
        detail = tag("span", group.detail, class_="group-detail") if group.detail else None
        body.append(
            tag("div", tag("span", group.heading, class_="group-name"), detail, group.note, class_="group-head")
        )
        body += [_draw_row(row, along, ticks, centre) for row in group.rows]
    body.append(_draw_axis(along, ticks, axis, say))
    return draw_figure(title, description, legend, *body)


def _draw_row(row: LogRow, along: Axis, ticks: Sequence[float], centre: float | None) -> Markup:
    middle = _ROW_PX / 2
    parts = [tag("line", class_="grid", x1=_at(along, tick), x2=_at(along, tick), y1=0, y2=_ROW_PX) for tick in ticks]
    if centre:
        where = _at(along, centre)
        parts.append(tag("line", class_="border", x1=where, x2=where, y1=0, y2=_ROW_PX))
    for mark in row.marks if centre else ():
        start, end = sorted((along.at(centre or mark.value), along.at(mark.value)))
        left, width = f"{start * 100:.2f}%", f"{(end - start) * 100:.2f}%"
        faded = " faded" if mark.hollow else ""
        parts.append(tag("rect", class_=f"fill {mark.colour}{faded}", x=left, y=6, width=width, height=_ROW_PX - 12))
    for mark in row.marks:
        if mark.low and mark.high:
            ends = {"x1": _at(along, mark.low), "x2": _at(along, mark.high)}
            parts.append(tag("line", class_="whisker", y1=middle, y2=middle, **ends))
        shape = f"ring {mark.colour}" if mark.hollow else f"fill {mark.colour}"
        parts.append(tag("circle", tag("title", mark.spoken), class_=shape, cx=_at(along, mark.value), cy=middle, r=6))
    spoken = "; ".join(mark.spoken for mark in row.marks)
    drawing = tag("svg", *parts, width="100%", height=_ROW_PX, role="img", aria_label=spoken)
    label, text = tag("span", row.label, class_="bar-label"), tag("span", row.text, class_="bar-value")
    return tag("div", label, drawing, text, class_="bar-row")


def _draw_axis(along: Axis, ticks: Sequence[float], name: str, say: Callable[[float], str]) -> Markup:
    labels = []
    for tick in ticks:
        share = along.at(tick)
        anchor = "start" if share < 0.06 else "end" if share > 0.94 else "middle"
        labels.append(tag("text", say(tick), class_="tick", x=_at(along, tick), y=14, text_anchor=anchor))
    drawing = tag("svg", *labels, width="100%", height=20, aria_hidden="true")
    return tag("div", tag("span", class_="bar-label"), drawing, tag("span", name, class_="axis-unit"), class_="bar-row")


def _at(along: Axis, value: float) -> str:
    return f"{along.at(value) * 100:.2f}%"


def _round_numbers(low: float, high: float, steps: Sequence[int]) -> list[float]:
    powers = range(math.floor(math.log10(low)), math.ceil(math.log10(high)) + 1)
    # A negative power of ten is a division: 3 · 0.1 would be 0.30000000000000004.
    return [step * 10.0**power if power >= 0 else step / 10.0**-power for power in powers for step in steps]


@dataclass(frozen=True, kw_only=True)
class Point:
    """A mark over two axes, with a letter or a number inside."""

    x: float
    y: float
    colour: str
    letter: str
    spoken: str


@dataclass(frozen=True, kw_only=True)
class Roof:
    """A line that rises as `slope` · x up to `top`, and stays there."""

    slope: float
    top: float
    label: str


def log_log_chart(
    points: Sequence[Point],
    roof: Roof,
    *,
    title: str,
    description: str,
    x_name: str,
    y_name: str,
    legend: Sequence[tuple[str, str]] = (),
) -> Markup:
    """Marks below a line, both axes logarithmic."""
    x_axis = axis_around([*(point.x for point in points), roof.top / roof.slope], room=1.6)
    y_axis = axis_around([*(point.y for point in points), roof.top], room=1.6)
    bottom = _PLOT_PX - _PLOT_BOTTOM_PX

    def y(value: float) -> float:
        return bottom - (bottom - _PLOT_TOP_PX) * y_axis.at(value)

    parts: list[Markup] = []
    for tick in y_axis.ticks(6):
        parts.append(tag("line", class_="grid", x1="0%", x2="100%", y1=y(tick), y2=y(tick)))
        parts.append(tag("text", tick_text(tick), class_="tick halo", x=2, y=y(tick) - 4))
    for tick in x_axis.ticks(4):
        where = _at(x_axis, tick)
        parts.append(tag("line", class_="grid", x1=where, x2=where, y1=_PLOT_TOP_PX, y2=bottom))
        anchor = "end" if x_axis.at(tick) > 0.94 else "start" if x_axis.at(tick) < 0.06 else "middle"
        parts.append(tag("text", tick_text(tick), class_="tick", x=where, y=bottom + 16, text_anchor=anchor))
    parts.append(_draw_roof(roof, x_axis, y_axis, y))
    for point in points:
        where, height = _at(x_axis, point.x), y(point.y)
        tip = tag("title", point.spoken)
        parts.append(tag("circle", tip, class_=f"fill {point.colour} dot", cx=where, cy=height, r=9))
        parts.append(tag("text", point.letter, class_="letter", x=where, y=height + 4, text_anchor="middle"))
    said = f"{title}. {description} " + "; ".join(point.spoken for point in points)
    drawing = tag("svg", *parts, width="100%", height=_PLOT_PX, role="img", aria_label=said)
    names = tag("p", f"{y_name} over {x_name}", class_="axis-name")
    return draw_figure(title, description, [*legend, ("roof", roof.label)], drawing, names)


def _draw_roof(roof: Roof, x_axis: Axis, y_axis: Axis, y: Callable[[float], float]) -> Markup:
    """The line in a drawing of its own, which is stretched; it begins at the left or at the bottom."""
    start = max(x_axis.low, y_axis.low / roof.slope)
    corners = ((start, roof.slope * start), (roof.top / roof.slope, roof.top), (x_axis.high, roof.top))
    written = " ".join(f"{1000 * x_axis.at(x_):.1f},{y(y_):.1f}" for x_, y_ in corners)
    line = tag("polyline", class_="stroke roof", fill="none", vector_effect="non-scaling-stroke", points=written)
    box = f"0 0 1000 {_PLOT_PX}"
    return tag("svg", line, width="100%", height=_PLOT_PX, viewBox=box, preserveAspectRatio="none")
