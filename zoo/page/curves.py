"""Owns curves over a run: polylines in inline SVG that stretches with the page, with parts of the run as shaded bands.

As in `charts`, horizontal positions are percentages and text keeps its size, so that a chart can be read at 400 px.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import pairwise

from zoo.page.charts import Drawing, nice_ticks, tick_text
from zoo.page.markup import Markup, tag
from zoo.wording import digits

# A band's label needs about this share of the width to be read at 400 px.
_LABEL_SHARE = 0.11
_LABEL_PX, _BARE_TOP_PX = 30, 18
_BOTTOM_PX = 24
# The least distance between two labels of an axis.
_TICK_PX = 42
# The name of a logarithmic axis takes about this much of its width, percent, at 390 px.
_NAME_SHARE = 26.0
# Values that differ by less than this count as equal: no axis has ticks for them.
_SMALLEST = 1e-15


@dataclass(frozen=True, kw_only=True)
class Curve:
    """A series of (x, y) points in rising x; points whose y is not finite are left out.

    `dot` is the index of the point that is marked; None marks none. `shown` is the latest value as the legend says it.
    A `step` curve keeps a value until half way to the next x.
    """

    label: str
    colour: str
    points: Sequence[tuple[float, float]]
    shown: str = ""
    dot: int | None = None
    step: bool = False


@dataclass(frozen=True, kw_only=True)
class Band:
    """A part of the x axis with a name."""

    start: float
    end: float
    label: str = ""


@dataclass(frozen=True, kw_only=True)
class Mark:
    """A place of the x axis: a vertical line that the legend names, `dashed` where it is only compared with."""

    x: float
    label: str
    colour: str
    dashed: bool = False


@dataclass(frozen=True, kw_only=True)
class _Frame:
    """Turns x into percent of the width, and y into pixels from the top."""

    x_range: tuple[float, float]
    y_range: tuple[float, float]
    top_px: int
    width_px: int
    height_px: int

    def x(self, value: float) -> float:
        low, high = self.x_range
        return 100 * (value - low) / (high - low)

    def y(self, value: float) -> float:
        low, high = self.y_range
        bottom = self.height_px - _BOTTOM_PX
        return bottom - (bottom - self.top_px) * (value - low) / (high - low)


def curve_chart(
    curves: Sequence[Curve],
    bands: Sequence[Band],
    *,
    title: str,
    description: str = "",
    unit: str = "",
    x_name: str,
    width_px: int = 1000,
    height_px: int = 230,
) -> Drawing:
    """Curves from the first band's start to the last one's end, which must differ.

    The y axis begins at 0 where that costs little room. Every x has a tip with the values of all curves there.
    """
    values = [y for curve in curves for _, y in _finite(curve.points)] or [0.0]
    top = _LABEL_PX if any(band.label for band in bands) else _BARE_TOP_PX
    ticks = axis_ticks(min(values), max(values), (height_px - top - _BOTTOM_PX) // _TICK_PX)
    frame = _Frame(
        x_range=(bands[0].start, bands[-1].end),
        y_range=(min(ticks[0], *values), max(ticks[-1], *values)),
        top_px=top,
        width_px=width_px,
        height_px=height_px,
    )
    parts = [*_draw_bands(bands, frame), *_draw_grid(ticks, frame)]
    parts += [_draw_curve(curve, frame) for curve in curves]
    parts += _draw_axes(ticks, frame, x_name)
    for curve in curves:
        if curve.dot is not None:
            x, y = curve.points[curve.dot]
            parts.append(tag("circle", class_=f"fill {curve.colour}", cx=f"{frame.x(x):.2f}%", cy=frame.y(y), r=4.5))
    parts += _draw_tips(curves, frame, lambda x: f"{x_name} {x:g}", unit)
    legend = [(curve.colour, f"{curve.label} {curve.shown}".strip()) for curve in curves] if len(curves) > 1 else []
    return Drawing(
        title=title, description=description, legend=legend, parts=parts, width_px=width_px, height_px=height_px
    )


def log_curve_chart(
    curves: Sequence[Curve],
    marks: Sequence[Mark],
    *,
    title: str,
    description: str = "",
    x_name: str,
    width_px: int = 1000,
    height_px: int = 230,
) -> Drawing:
    """Curves over a logarithmic x axis, labelled at powers of ten, from the first point to the last; all x above 0.

    The marks are lines; their names are in the legend, where they never lie over one another.
    """
    places = [x for curve in curves for x, _ in curve.points]
    values = [y for curve in curves for _, y in _finite(curve.points)] or [0.0]
    ticks = axis_ticks(min(values), max(values), (height_px - _BARE_TOP_PX - _BOTTOM_PX) // _TICK_PX)
    low, high = math.log10(min(places)), math.log10(max(places))
    frame = _Frame(
        x_range=(low, max(high, low + _SMALLEST)),
        y_range=(min(ticks[0], *values), max(ticks[-1], *values)),
        top_px=_BARE_TOP_PX,
        width_px=width_px,
        height_px=height_px,
    )
    logs = [replace(curve, points=[(math.log10(x), y) for x, y in curve.points]) for curve in curves]
    parts = [*_draw_grid(ticks, frame), *(_draw_curve(curve, frame) for curve in logs)]
    for mark in marks:
        where = f"{min(max(frame.x(math.log10(mark.x)), 0.0), 100.0):.2f}%"
        line: dict[str, str | float] = {"x1": where, "x2": where, "y1": 0, "y2": height_px - _BOTTOM_PX}
        dashes = "5 4" if mark.dashed else None
        parts.append(tag("line", class_=f"stroke {mark.colour}", stroke_dasharray=dashes, **line))
    powers = [(float(power), f"1e{power}") for power in range(math.ceil(low - 1e-9), math.floor(high + 1e-9) + 1)]
    parts += _draw_y_labels(ticks, frame)
    parts += _draw_x_labels([(power, text) for power, text in powers if frame.x(power) > _NAME_SHARE], frame, x_name)
    parts += _draw_tips(logs, frame, lambda x: f"{x_name} {10**x:.3g}", "")
    legend = [(curve.colour, f"{curve.label} {curve.shown}".strip()) for curve in curves]
    legend += [(mark.colour, mark.label) for mark in marks]
    return Drawing(
        title=title, description=description, legend=legend, parts=parts, width_px=width_px, height_px=height_px
    )


def axis_ticks(low: float, high: float, about: int = 4) -> list[float]:
    """Round numbers about `low` … `high`, from 0, or from near `low` where the values use less than half of 0 … `high`.

    0.2 … 0.9 → 0, 0.25, 0.5, 0.75; 96.1 … 98.3 → 96, 97, 98; a constant is shown from 0.
    """
    if math.isclose(low, high, abs_tol=_SMALLEST):
        reach = 2 * abs(high) if abs(high) > _SMALLEST else 1.0
        low, high = (0.0, reach) if high >= 0 else (-reach, 0.0)
    if 0 <= low <= high / 2:
        return nice_ticks(high, about)
    step = nice_ticks(high - low, about)[1]
    first, last = math.floor(low / step + 1e-9), math.floor(high / step + 1e-9)
    return [index * step for index in range(first, last + 1)]


def _draw_bands(bands: Sequence[Band], frame: _Frame) -> list[Markup]:
    parts = []
    for index, band in enumerate(bands):
        x, width = frame.x(band.start), frame.x(band.end) - frame.x(band.start)
        shade = "band" if index % 2 == 0 else "band other"
        parts.append(
            tag("rect", class_=shade, x=f"{x:.2f}%", y=0, width=f"{width:.2f}%", height=frame.height_px - _BOTTOM_PX)
        )
        if index:
            where, end = f"{x:.2f}%", frame.height_px - _BOTTOM_PX
            parts.append(tag("line", class_="border", x1=where, x2=where, y1=0, y2=end))
        if band.label and width >= 100 * _LABEL_SHARE:
            middle = f"{x + width / 2:.2f}%"
            parts.append(tag("text", band.label, class_="tick", text_anchor="middle", x=middle, y=14))
    return parts


def _draw_grid(ticks: Sequence[float], frame: _Frame) -> list[Markup]:
    return [tag("line", class_="grid", x1="0%", x2="100%", y1=frame.y(tick), y2=frame.y(tick)) for tick in ticks]


def _draw_axes(ticks: Sequence[float], frame: _Frame, x_name: str) -> list[Markup]:
    """Labels of both axes, drawn over the curves, which begin where the labels of y are."""
    low, high = frame.x_range
    # Epochs are whole numbers.
    whole = [(tick, tick_text(tick)) for tick in nice_ticks(high) if tick and tick == int(tick) and low <= tick <= high]
    return [*_draw_y_labels(ticks, frame), *_draw_x_labels(whole, frame, x_name)]


def _draw_y_labels(ticks: Sequence[float], frame: _Frame) -> list[Markup]:
    return [tag("text", tick_text(tick), class_="tick halo", x=2, y=frame.y(tick) - 4) for tick in ticks]


def _draw_x_labels(places: Sequence[tuple[float, str]], frame: _Frame, x_name: str) -> list[Markup]:
    parts = []
    for place, text in places:
        anchor = "end" if frame.x(place) > 96 else "middle"  # the outermost label stays inside the drawing
        where, y = f"{frame.x(place):.2f}%", frame.height_px - 7
        parts.append(tag("text", text, class_="tick", text_anchor=anchor, x=where, y=y))
    return [*parts, tag("text", x_name, class_="tick", x=2, y=frame.height_px - 7)]


def _draw_curve(curve: Curve, frame: _Frame) -> Markup:
    """One polyline in a drawing of its own, which is stretched; the width of its stroke is not."""
    points = _finite(curve.points)
    path = list(_stairs(points, frame.x_range)) if curve.step and points else points
    written = " ".join(f"{frame.width_px / 100 * frame.x(x):.1f},{frame.y(y):.1f}" for x, y in path)
    line = tag(
        "polyline", class_=f"stroke {curve.colour}", fill="none", vector_effect="non-scaling-stroke", points=written
    )
    return tag(
        "svg",
        line,
        width="100%",
        height=frame.height_px,
        viewBox=f"0 0 {frame.width_px} {frame.height_px}",
        preserveAspectRatio="none",
    )


def _finite(points: Sequence[tuple[float, float]]) -> list[tuple[float, float]]:
    return [(x, y) for x, y in points if math.isfinite(y)]


def _draw_tips(curves: Sequence[Curve], frame: _Frame, say: Callable[[float], str], unit: str) -> list[Markup]:
    """A tip at every x with the values of all curves there; `say` names the x."""
    said: dict[float, list[str]] = {}
    for curve in curves:
        for x, y in curve.points:
            said.setdefault(x, []).append(f"{curve.label} {digits(y)}{unit}")
    places = sorted(said)
    parts = []
    for place, (start, end) in zip(places, pairwise(_edges(places, frame.x_range)), strict=True):
        tip = tag("title", f"{say(place)}: {', '.join(said[place])}")
        left, width = frame.x(start), frame.x(end) - frame.x(start)
        parts.append(
            tag("rect", tip, class_="tip", x=f"{left:.2f}%", y=0, width=f"{width:.2f}%", height=frame.height_px)
        )
    return parts


def _edges(places: Sequence[float], x_range: tuple[float, float]) -> list[float]:
    """Edges half way between neighbours, and as far beyond the outermost places, but within the range."""
    middles = [(a + b) / 2 for a, b in pairwise(places)]
    reach = (places[1] - places[0]) / 2 if len(places) > 1 else 0.5
    return [max(x_range[0], places[0] - reach), *middles, min(x_range[1], places[-1] + reach)]


def _stairs(points: Sequence[tuple[float, float]], x_range: tuple[float, float]) -> Iterator[tuple[float, float]]:
    edges = _edges([x for x, _ in points], x_range)
    for (_, y), (start, end) in zip(points, pairwise(edges), strict=True):
        yield start, y
        yield end, y
