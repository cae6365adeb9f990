"""Owns HTML and SVG as text: elements whose content is escaped unless it is markup already. It knows no page."""

from __future__ import annotations

import re
from html import escape


class Markup(str):
    """Text that is markup already and must not be escaped again."""

    __slots__ = ()


Child = str | int | None
# All but the characters of XML 1.0 (its production 2, Char).
_UNPRINTABLE = re.compile("[^\t\n\r\x20-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]")
_VOID = frozenset({"meta", "line", "rect", "circle", "path", "br", "img"})


def tag(name: str, /, *children: Child, **attributes: str | float | None) -> Markup:
    """An element. `class_` is written as class, `stroke_width` as stroke-width; None leaves it or a child out."""
    written = "".join(
        f' {key.rstrip("_").replace("_", "-")}="{escape(_number(value), quote=True)}"'
        for key, value in attributes.items()
        if value is not None
    )
    if name in _VOID and not children:
        return Markup(f"<{name}{written}/>")  # an SVG element in HTML that is not closed would hold what follows it
    return Markup(f"<{name}{written}>{join(*children)}</{name}>")


def join(*children: Child) -> Markup:
    """Children one after the other; plain text is escaped."""
    return Markup(
        "".join(
            child if isinstance(child, Markup) else escape(str(child), quote=False)
            for child in children
            if child is not None
        )
    )


def printable(text: str) -> str:
    """A document without what none may hold: control characters and halves of surrogate pairs become �."""
    return _UNPRINTABLE.sub("\N{REPLACEMENT CHARACTER}", text)


def _number(value: str | float) -> str:
    """Numbers with at most four decimals: exact to a pixel, and short in the file."""
    return f"{value:.4f}".rstrip("0").rstrip(".") if isinstance(value, float) else str(value)
