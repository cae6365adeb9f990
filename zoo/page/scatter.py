"""Owns points over a logarithmic axis, such as accuracy over time, with a line through the best; it finds none.

As in `charts`, horizontal positions are percentages and text keeps its size, so that a chart can be read at 390 px.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

from zoo.page.charts import Drawing, draw_figure, tick_text
from zoo.page.curves import axis_ticks
from zoo.page.ecdf import log_ticks
from zoo.page.markup import Markup, tag

_WIDTH_PX, _HEIGHT_PX, _TOP_PX, _BOTTOM_PX = 416, 330, 22, 26
_LEFT, _RIGHT = 10.0, 96.0  # percent of the width
# What a character of a label takes, percent of the width at 390 px, and its height: nearer labels lie over one another.
_CHARACTER_WIDTH, _LABEL_PX = 1.9, 15
# The baseline of a label above its point and, where that is taken, below; and where a point would lie under its text:
# pixels from the middle of the text, which is so far above its baseline, and percent of the width beside it.
_BASELINES_PX = (-9, 18)
_POINT_WIDTH, _POINT_PX, _MIDDLE_PX = 1.0, 9, 4


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
    drawn = scatter_drawing(points, title=title, description=description, legend=legend)
    axes = tag("p", f"{y_name} over {x_name}", class_="axis-name")
    said = f"{title}. {description}"
    drawing = tag("svg", *drawn.parts, width="100%", height=drawn.height_px, role="img", aria_label=said)
    return draw_figure(title, description, legend, drawing, axes)


def scatter_drawing(
    points: Sequence[Point],
    *,
    title: str,
    description: str,
    legend: Sequence[tuple[str, str]],
    width_px: int = _WIDTH_PX,
) -> Drawing:
    """The same without a frame, for a picture of its own."""
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
    ordered = sorted(points, key=lambda point: not point.on_line)
    places = [(x(point.x), y(point.y)) for point in ordered]
    for point, place in zip(ordered, places, strict=True):
        tip = tag("title", point.spoken)
        parts.append(tag("circle", tip, class_=f"fill {point.colour}", cx=f"{place[0]:.2f}%", cy=place[1], r=5.5))
    placed: list[tuple[float, float, float]] = []
    for point, place in zip(ordered, places, strict=True):
        half = _CHARACTER_WIDTH * len(point.label) / 2
        spots = [(place[0], place[1] + away, half) for away in _BASELINES_PX] if point.label else []
        spot = next((spot for spot in spots if _is_free(spot, placed, places)), None)
        if spot is not None:
            placed.append(spot)
            middle = f"{spot[0]:.2f}%"
            parts.append(tag("text", point.label, class_="tick halo", text_anchor="middle", x=middle, y=spot[1]))
    return Drawing(
        title=title, description=description, legend=legend, parts=parts, width_px=width_px, height_px=_HEIGHT_PX
    )


def _is_free(
    spot: tuple[float, float, float],
    labels: Sequence[tuple[float, float, float]],
    points: Sequence[tuple[float, float]],
) -> bool:
    """Whether a label of (middle, baseline, half its width) lies over no other label and over no point."""
    x, y, half = spot
    return all(
        abs(x - middle) > half + other or abs(y - baseline) > _LABEL_PX for middle, baseline, other in labels
    ) and all(
        abs(x - middle) > half + _POINT_WIDTH or abs(y - _MIDDLE_PX - height) > _POINT_PX for middle, height in points
    )
