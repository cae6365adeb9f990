"""Owns charts as an SVG file of their own, light or dark as its reader likes; it knows shapes, not what they mean.

Viewers that are no browsers know neither HTML nor CSS variables: here text is SVG's and every colour is written out.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Mapping, Sequence
from functools import cache
from pathlib import Path

from zoo.page.charts import Drawing
from zoo.page.markup import Markup, tag

_MARGIN_PX, _GAP_PX, _PAD_PX = 32, 16, 16
_HEADING_PX, _CAPTION_PX, _LEGEND_PX = 84, 26, 24
# Drawings as wide as the picture, and such that three stand side by side.
_WIDTH_PX = 1000
WHOLE_PX = _WIDTH_PX - 2 * _MARGIN_PX - 2 * _PAD_PX
THIRD_PX = (_WIDTH_PX - 2 * _MARGIN_PX - 2 * _GAP_PX) // 3 - 2 * _PAD_PX
# Letters of 13 px text are about this wide.
LETTER_PX = 8


def render_charts(drawings: Sequence[Drawing], *, title: str, subtitle: str) -> str:
    """A picture as text: drawings side by side where there is room, else under one another."""
    parts = heading(title, [subtitle], _WIDTH_PX)
    x, y, bottom = _MARGIN_PX, _HEADING_PX, _HEADING_PX
    for drawing in drawings:
        width = drawing.width_px + 2 * _PAD_PX
        height = 2 * _PAD_PX + _CAPTION_PX + _LEGEND_PX * bool(drawing.legend) + drawing.height_px
        if x + width > _WIDTH_PX - _MARGIN_PX:
            x, y = _MARGIN_PX, bottom + _GAP_PX
        parts.append(_chart(drawing, x, y, width, height))
        x, bottom = x + width + _GAP_PX, max(bottom, y + height)
    return render_picture(parts, title=title, width=_WIDTH_PX, height=bottom + _MARGIN_PX)


def render_picture(parts: Sequence[Markup], *, title: str, width: int, height: int, scale: float = 1) -> str:
    """A whole SVG file that needs nothing beside it; `scale` times as large where there is room."""
    ground = tag("rect", class_="page", width="100%", height="100%")
    size = {"width": f"{width * scale:g}", "height": f"{height * scale:g}", "viewBox": f"0 0 {width} {height}"}
    style = tag("style", Markup(_style()))
    return tag("svg", tag("title", title), style, ground, *parts, xmlns="http://www.w3.org/2000/svg", **size) + "\n"


def heading(title: str, lines: Sequence[str], width: int) -> list[Markup]:
    """Title and lines at the head of a picture; of the title as much as there is room for."""
    letters = (width - 2 * _MARGIN_PX) // 13
    said = tag("text", tag("title", title), shortened(title, letters), class_="heading", x=_MARGIN_PX, y=42)
    return [
        said,
        *(tag("text", line, class_="muted", x=_MARGIN_PX, y=64 + 20 * number) for number, line in enumerate(lines)),
    ]


def count_letters(text: str) -> int:
    """How many letters wide a text is; letters of East Asia and emoji count twice."""
    return sum(2 if unicodedata.east_asian_width(letter) in "WF" else 1 for letter in text)


def shortened(text: str, letters: int) -> str:
    """As much of a text as has room in so many letters."""
    if count_letters(text) <= letters:
        return text
    room = next(end for end in range(len(text), -1, -1) if count_letters(text[:end]) < letters)
    return text[:room] + "…"


def _chart(drawing: Drawing, x: int, y: int, width: int, height: int) -> Markup:
    caption = tag(
        "text",
        tag("tspan", drawing.title, class_="strong"),
        tag("tspan", drawing.description, class_="muted", dx=8),
        x=_PAD_PX,
        y=_PAD_PX + 12,
    )
    keys: list[Markup] = []
    for colour, text in drawing.legend:
        keys.append(tag("tspan", "■", class_=f"fill {colour}", dx=16 if keys else 0))
        keys.append(tag("tspan", text, dx=6))
    legend = tag("text", *keys, x=_PAD_PX, y=_PAD_PX + _CAPTION_PX + 10) if keys else None
    top = height - _PAD_PX - drawing.height_px
    plot = tag("svg", *drawing.parts, x=_PAD_PX, y=top, width=drawing.width_px, height=drawing.height_px)
    ground = tag("rect", class_="surface", width=width, height=height, rx=10)
    return tag("g", ground, caption, legend, plot, transform=f"translate({x} {y})")


@cache
def _style() -> str:
    """The rules in light colours, then in dark ones for readers who like them dark."""
    folder = Path(__file__).parent
    page, drawing, picture = (
        (folder / f"{name}.css").read_text(encoding="utf-8") for name in ("page", "drawing", "picture")
    )
    blocks = page.split("}")[:2]  # the colours for light, then those for dark
    light, dark = (_resolve(drawing + picture, dict(re.findall(r"--([\w-]+): (#\w+)", block))) for block in blocks)
    return f"{light}@media (prefers-color-scheme: dark) {{\n{dark}}}\n"


def _resolve(rules: str, colours: Mapping[str, str]) -> str:
    return re.sub(r"var\(--([\w-]+)\)", lambda name: colours[name[1]], rules)
