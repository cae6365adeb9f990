"""Owns distributions as curves: the share of samples up to a time, over a logarithmic axis; it summarises nothing.

As in `charts`, horizontal positions are percentages and text keeps its size, so that a chart can be read at 390 px.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from zoo.page.charts import draw_figure, tick_text
from zoo.page.markup import Markup, tag
from zoo.wording import digits

_HEIGHT_PX, _TOP_PX, _BOTTOM_PX = 220, 14, 24
_LEFT, _RIGHT = 9.0, 98.0  # percent of the width: the labels of the shares are left of the curves
_WIDTH = 1000
# Points of a curve at most: more cannot be told apart, and each takes bytes of the page.
_POINTS = 160
_SHARES = (0.5, 0.9, 0.99)
# Steps of a logarithmic axis within a power of ten, from few to many; at 390 px seven labels have room.
_STEPS = ((1,), (1, 3), (1, 2, 5), (1, 1.5, 2, 3, 4, 5, 7), tuple(1 + tenth / 10 for tenth in range(90)))
_MOST_TICKS = 7


@dataclass(frozen=True, kw_only=True)
class Distribution:
    """Samples in ascending order, all above 0, and the values at 50, 90 and 99 %; None where too few tell one."""

    label: str
    colour: str
    ascending: Sequence[float]
    marked: tuple[float | None, float | None, float | None]


def ecdf_chart(distributions: Sequence[Distribution], *, title: str, description: str, unit: str) -> Markup:
    """The share of samples up to each time; dots at p50, p90 and p99, whose values are in their tips."""
    low = min(one.ascending[0] for one in distributions)
    high = max(one.ascending[-1] for one in distributions)
    low, high = (low / 1.1, high * 1.1) if high <= low * 1.001 else (low, high)

    def x(value: float) -> float:
        return _LEFT + (_RIGHT - _LEFT) * math.log(value / low) / math.log(high / low)

    parts: list[Markup] = []
    for share in (0.0, *_SHARES, 1.0):
        y = _y(share)
        parts.append(tag("line", class_="grid", x1=f"{_LEFT}%", x2=f"{_RIGHT}%", y1=y, y2=y))
        if share not in (0.99,):  # it would lie over 100 %
            parts.append(tag("text", f"{share:.0%}", class_="tick", x=0, y=y + 4))
    for tick in log_ticks(low, high):
        where = f"{x(tick):.2f}%"
        parts.append(tag("line", class_="grid", x1=where, x2=where, y1=_y(1.0), y2=_y(0.0)))
        parts.append(tag("text", tick_text(tick), class_="tick", text_anchor="middle", x=where, y=_HEIGHT_PX - 7))
    for one in distributions:
        parts.append(_curve(one, [(x(value), share) for value, share in _points(one.ascending)]))
        for share, value in zip(_SHARES, one.marked, strict=True):
            if value is not None:
                tip = tag("title", f"{one.label}, p{share * 100:.0f}: {digits(value)} {unit}")
                parts.append(tag("circle", tip, class_=f"fill {one.colour}", cx=f"{x(value):.2f}%", cy=_y(share), r=5))
    drawing = tag("svg", *parts, width="100%", height=_HEIGHT_PX, role="img", aria_label=f"{title}. {description}")
    legend = [(one.colour, _key(one, unit)) for one in distributions]
    return draw_figure(title, description, legend, drawing, tag("p", unit, class_="axis-name"))


def log_ticks(low: float, high: float) -> list[float]:
    """Round numbers from `low` to `high`, as many as have room: 6.5 … 43 → 7, 10, 15, 20, 30, 40."""
    found: list[float] = []
    for steps in _STEPS:
        decades = range(math.floor(math.log10(low)), math.ceil(math.log10(high)) + 1)
        ticks = [step * 10.0**decade for decade in decades for step in steps]
        inside = [tick for tick in ticks if low <= tick <= high]
        if len(inside) > _MOST_TICKS:
            return found or inside[:: -(-len(inside) // _MOST_TICKS)]
        found = inside
    return found


def _y(share: float) -> float:
    return _TOP_PX + (_HEIGHT_PX - _TOP_PX - _BOTTOM_PX) * (1 - share)


def _key(one: Distribution, unit: str) -> str:
    named = zip(("p50", "p90", "p99"), one.marked, strict=True)
    said = [f"{name} {digits(value)}" for name, value in named if value is not None]
    return f"{one.label}: {', '.join(said)} {unit}"


def _points(ascending: Sequence[float]) -> list[tuple[float, float]]:
    """(value, share of the samples up to it), the slowest ones all: a tail is what a curve is for."""
    n = len(ascending)
    step = max(1, n // _POINTS)
    chosen = sorted({*range(0, n, step), *range(max(0, n - 20), n)})
    return [(ascending[0], 0.0), *((ascending[index], (index + 1) / n) for index in chosen)]


def _curve(one: Distribution, points: Sequence[tuple[float, float]]) -> Markup:
    """One polyline in a drawing of its own, which is stretched; the width of its stroke is not."""
    written = " ".join(f"{_WIDTH / 100 * x:.1f},{_y(share):.1f}" for x, share in points)
    line = tag(
        "polyline", class_=f"stroke {one.colour}", fill="none", vector_effect="non-scaling-stroke", points=written
    )
    whole = {"viewBox": f"0 0 {_WIDTH} {_HEIGHT_PX}", "preserveAspectRatio": "none"}
    return tag("svg", line, width="100%", height=_HEIGHT_PX, **whole)
