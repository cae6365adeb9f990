"""Owns the charts: bars and lines as inline SVG that stretches with the page. It does not know what they mean.

Horizontal positions are percentages and text is HTML, so that a chart can be read at 400 px as well as at 1200. Colours
are classes of the style sheet, which has a light and a dark set.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

from zoo.page.markup import Child, Markup, join, tag
from zoo.wording import digits

_BAR_PX = 22
_LINES_PX = 230
_LINES_TOP_PX = 24
_LINES_BOTTOM_PX = 32
_LABEL_PX = 15
# One slow outlier must not shorten all bars: the axis ends at this many times the longest bar, and a mark beyond it
# becomes an arrow. The table has its number.
_MARKS_REACH = 1.6


@dataclass(frozen=True, kw_only=True)
class Bar:
    """One bar. `low` and `high` draw a whisker, `marks` are (name, value) ticks; a loser is `faded`."""

    label: Child
    value: float
    text: str
    colour: str
    spoken: str
    low: float | None = None
    high: float | None = None
    marks: tuple[tuple[str, float], ...] = ()
    faded: bool = False


@dataclass(frozen=True, kw_only=True)
class Group:
    """Bars under one heading; `note` is to its right."""

    heading: Child
    detail: str = ""
    note: Markup | None = None
    bars: Sequence[Bar]


@dataclass(frozen=True, kw_only=True)
class Line:
    """One series of (x label, y) points; every series of a chart has the same x labels."""

    label: str
    colour: str
    points: Sequence[tuple[str, float]]


@dataclass(frozen=True, kw_only=True)
class Drawing:
    """A chart without a frame: its caption, its keys as (colour class, text) pairs, and SVG elements.

    Positions in `parts` are percentages of the width and pixels of the height. A page stretches it to its own width;
    drawn `width_px` wide nothing is stretched.
    """

    title: str
    description: str
    legend: Sequence[tuple[str, str]]
    parts: Sequence[Markup]
    width_px: int
    height_px: int

    def as_figure(self) -> Markup:
        """The chart as an element of a page."""
        said = ". ".join(part for part in (self.title, self.description) if part)
        drawing = tag("svg", *self.parts, width="100%", height=self.height_px, role="img", aria_label=said)
        return draw_figure(self.title, self.description, self.legend, drawing)


def bar_chart(
    groups: Sequence[Group], *, title: str, description: str, axis: str, legend: Sequence[tuple[str, str]] = ()
) -> Markup:
    """Grouped horizontal bars with one axis; `legend` is (colour class, text) pairs."""
    bars = [bar for group in groups for bar in group.bars]
    longest = max(bar.value for bar in bars)
    reach = max(max([bar.value, bar.high or 0, *(value for _, value in bar.marks)]) for bar in bars)
    end = min(reach, longest * _MARKS_REACH) or 1.0
    ticks = nice_ticks(end)
    rows: list[Markup] = []
    for group in groups:
        head = tag("span", group.heading, class_="group-name")
        detail = tag("span", group.detail, class_="group-detail") if group.detail else None
        rows.append(tag("div", head, detail, group.note, class_="group-head"))
        rows += [_bar_row(bar, end, ticks) for bar in group.bars]
    rows.append(_axis(ticks, end, axis))
    return draw_figure(title, description, legend, *rows)


def line_chart(lines: Sequence[Line], *, title: str, description: str, axis: str) -> Markup:
    """Series over ordered labels, with an axis from 0; there must be two labels or more."""
    labels = [label for label, _ in lines[0].points]
    top = max(value for line in lines for _, value in line.points) or 1.0
    bottom_px = _LINES_PX - _LINES_BOTTOM_PX

    def x(index: int) -> float:
        return 14 + 78 * index / (len(labels) - 1)  # left of the first point are the labels of the ticks

    def y(value: float) -> float:
        return bottom_px - (bottom_px - _LINES_TOP_PX) * value / top

    parts: list[Markup] = []
    for tick in nice_ticks(top):
        parts.append(tag("line", class_="grid", x1="0%", x2="100%", y1=y(tick), y2=y(tick)))
        parts.append(tag("text", tick_text(tick), class_="tick", x="0%", y=y(tick) - 4))
    for index, label in enumerate(labels):
        where = f"{x(index):.2f}%"
        parts.append(tag("text", label, class_="tick", text_anchor="middle", x=where, y=_LINES_PX - 10))
    named: list[float] = []
    for line in sorted(lines, key=lambda line: -line.points[-1][1]):
        dots = [(f"{x(index):.2f}%", y(value)) for index, (_, value) in enumerate(line.points)]
        for (x1, y1), (x2, y2) in pairwise(dots):
            parts.append(tag("line", class_=f"stroke {line.colour}", x1=x1, x2=x2, y1=y1, y2=y2))
        for (cx, cy), (label, value) in zip(dots, line.points, strict=True):
            tip = tag("title", f"{line.label}, {label}: {digits(value)} {axis}")
            parts.append(tag("circle", tip, class_=f"fill {line.colour}", cx=cx, cy=cy, r=5))
            # Of several series only the last point, where they differ most, has a label, if it lies over no other.
            if len(lines) == 1 or (label == labels[-1] and all(abs(cy - other) > _LABEL_PX for other in named)):
                named.append(cy)
                parts.append(tag("text", digits(value), class_="point", text_anchor="middle", x=cx, y=cy - 11))
    drawing = tag("svg", *parts, width="100%", height=_LINES_PX, role="img", aria_label=f"{title}. {description}")
    legend = [(line.colour, line.label) for line in lines]
    return draw_figure(title, description, legend, drawing, tag("p", axis, class_="axis-name"))


def nice_ticks(end: float, about: int = 4) -> list[float]:
    """About as many round numbers as asked, from 0 up to `end`: 0…7.3 → 0, 2, 4, 6."""
    raw = end / about
    magnitude = 10.0 ** math.floor(math.log10(raw))
    step = next(factor * magnitude for factor in (1, 2, 2.5, 5, 10) if factor * magnitude >= raw)
    return [index * step for index in range(int(end / step + 1e-9) + 1)]


def tick_text(tick: float) -> str:
    """A tick without needless digits: 0, 0.25, 10, 1,500."""
    return f"{tick:,.6f}".rstrip("0").rstrip(".")


def _bar_row(bar: Bar, end: float, ticks: Sequence[float]) -> Markup:
    def at(value: float) -> str:
        return f"{min(value / end, 1.0) * 100:.3f}%"

    faded = " faded" if bar.faded else ""
    parts = [tag("line", class_="grid", x1=at(tick), x2=at(tick), y1=0, y2=_BAR_PX) for tick in ticks]
    tip, class_ = tag("title", bar.spoken), f"fill {bar.colour}{faded}"
    parts.append(tag("rect", tip, class_=class_, x=0, y=3, width=at(bar.value), height=_BAR_PX - 6, rx=2))
    if bar.low is not None and bar.high is not None and bar.high > bar.low:
        middle, low, high = _BAR_PX / 2, at(bar.low), at(bar.high)
        parts.append(tag("line", class_="whisker", x1=low, x2=high, y1=middle, y2=middle))
        parts += [tag("line", class_="whisker", x1=x, x2=x, y1=middle - 4, y2=middle + 4) for x in (low, high)]
    parts += [_mark(name, value, end) for name, value in bar.marks]
    drawing = tag("svg", *parts, width="100%", height=_BAR_PX, role="img", aria_label=bar.spoken)
    label, text = tag("span", bar.label, class_="bar-label"), tag("span", bar.text, class_=f"bar-value{faded}")
    return tag("div", label, drawing, text, class_="bar-row")


def _mark(name: str, value: float, end: float) -> Markup:
    tip = tag("title", f"{name} {digits(value)}")
    if value > end:
        return tag("text", "›", tip, class_=f"beyond {name}", x="100%", y=_BAR_PX / 2 + 5, text_anchor="end")
    x = f"{value / end * 100:.3f}%"
    return tag("line", tip, class_=f"mark {name}", x1=x, x2=x, y1=2, y2=_BAR_PX - 2)


def _axis(ticks: Sequence[float], end: float, name: str) -> Markup:
    labels = [
        tag(
            "text",
            tick_text(tick),
            class_="tick",
            x=f"{tick / end * 100:.3f}%",
            y=14,
            # The outer labels stay inside the drawing.
            text_anchor="start" if not tick else "end" if tick > 0.95 * end else "middle",
        )
        for tick in ticks
    ]
    drawing = tag("svg", *labels, width="100%", height=20, aria_hidden="true")
    return tag("div", tag("span", class_="bar-label"), drawing, tag("span", name, class_="axis-unit"), class_="bar-row")


def draw_figure(title: str, description: str, legend: Sequence[tuple[str, str]], *body: Markup) -> Markup:
    """A chart's frame: what it shows, its legend of (colour class, text) pairs, then the drawing."""
    detail = tag("span", description, class_="muted") if description else None
    caption = tag("figcaption", tag("strong", title), " ", detail)
    keys = [tag("span", tag("i", class_=f"key {colour}"), text, class_="legend-item") for colour, text in legend]
    return tag("figure", caption, tag("div", *keys, class_="legend") if keys else None, join(*body), class_="chart")
