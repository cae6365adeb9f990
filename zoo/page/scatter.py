"""Owns points over a logarithmic axis, such as accuracy over time, with a line through the best; it finds none.

As in `charts`, horizontal positions are percentages and text keeps its size, so that a chart can be read at 390 px.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

from zoo.page.charts import draw_figure, tick_text
from zoo.page.curves import axis_ticks
from zoo.page.ecdf import log_ticks
from zoo.page.markup import Markup, tag

_HEIGHT_PX, _TOP_PX, _BOTTOM_PX = 330, 22, 26
_LEFT, _RIGHT = 10.0, 96.0  # percent of the width
# Labels nearer than this to one that is there already would lie over it: percent of the width at 390 px, and pixels.
_LABEL_WIDTH, _LABEL_PX = 13.0, 15


@dataclass(frozen=True, kw_only=True)
class Point:
    """A point with a name, "" for none: x above 0. A point of the line has its label first; `spoken` is its tip."""

    label: str
    colour: str
    x: float
    y: float
    spoken: str
    on_line: bool = False


def scatter_chart(
    points: Sequence[Point],
    *,
    title: str,
    description: str,
    x_name: str,
    y_name: str,
    legend: Sequence[tuple[str, str]],
) -> Markup:
    """Points, and a dashed line through those on it in rising x; labels where there is room, tips everywhere."""
    low, high = min(point.x for point in points) / 1.15, max(point.x for point in points) * 1.15
    ys = [point.y for point in points]
    margin = (max(ys) - min(ys) or 1.0) * 0.06
    ticks = [tick for tick in axis_ticks(min(ys), max(ys), 5) if tick >= min(ys) - margin]
    bottom, top = min([*ys, *ticks]) - margin, max([*ys, *ticks]) + margin

    def x(value: float) -> float:
        return _LEFT + (_RIGHT - _LEFT) * math.log(value / low) / math.log(high / low)

    def y(value: float) -> float:
        return _HEIGHT_PX - _BOTTOM_PX - (_HEIGHT_PX - _BOTTOM_PX - _TOP_PX) * (value - bottom) / (top - bottom)

    parts: list[Markup] = []
    for tick in ticks:
        parts.append(tag("line", class_="grid", x1=f"{_LEFT}%", x2="100%", y1=y(tick), y2=y(tick)))
        parts.append(tag("text", tick_text(tick), class_="tick", x=0, y=y(tick) + 4))
    for tick in log_ticks(low, high):
        where = f"{x(tick):.2f}%"
        parts.append(tag("line", class_="grid", x1=where, x2=where, y1=_TOP_PX, y2=_HEIGHT_PX - _BOTTOM_PX))
        parts.append(tag("text", tick_text(tick), class_="tick", text_anchor="middle", x=where, y=_HEIGHT_PX - 8))
    for one, other in pairwise(sorted((point for point in points if point.on_line), key=lambda point: point.x)):
        ends: dict[str, str | float] = {"x1": f"{x(one.x):.2f}%", "x2": f"{x(other.x):.2f}%"}
        parts.append(tag("line", class_="border", **ends, y1=y(one.y), y2=y(other.y)))
    placed: list[tuple[float, float]] = []
    for point in sorted(points, key=lambda point: not point.on_line):
        place = (x(point.x), y(point.y))
        tip = tag("title", point.spoken)
        parts.append(tag("circle", tip, class_=f"fill {point.colour}", cx=f"{place[0]:.2f}%", cy=place[1], r=5.5))
        is_free = all(abs(place[0] - px) > _LABEL_WIDTH or abs(place[1] - py) > _LABEL_PX for px, py in placed)
        if point.label and is_free:
            placed.append(place)
            x_of_label = f"{place[0]:.2f}%"
            parts.append(
                tag("text", point.label, class_="tick halo", text_anchor="middle", x=x_of_label, y=place[1] - 9)
            )
    drawing = tag("svg", *parts, width="100%", height=_HEIGHT_PX, role="img", aria_label=f"{title}. {description}")
    axes = tag("p", f"{y_name} over {x_name}", class_="axis-name")
    return draw_figure(title, description, legend, drawing, axes)
