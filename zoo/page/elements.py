"""Owns what every page is made of: frame, tables, labels, an environment's table. It knows no page's contents."""

from __future__ import annotations

import base64
import io
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from zoo.page.markup import Child, Markup, tag

if TYPE_CHECKING:
    from PIL import Image

_STYLES = [Path(__file__).with_name(name) for name in ("page.css", "drawing.css", "matrix.css")]


def render_document(
    *,
    kicker: str,
    title: str,
    subtitle: str,
    main: Sequence[Child],
    footer: str,
    style: Path | None = None,
    refresh_s: int | None = None,
) -> str:
    """A whole page as text: one HTML file that needs no other, light or dark as the reader's system is.

    Args:
        style: a style sheet of the page's own; it follows the common one.
        refresh_s: seconds after which the browser loads the file again, for a page that is still being written.
    """
    sheets = [*_STYLES, *([style] if style else [])]
    again = tag("meta", http_equiv="refresh", content=str(refresh_s)) if refresh_s else None
    head = tag(
        "head",
        tag("meta", charset="utf-8"),
        tag("meta", name="viewport", content="width=device-width, initial-scale=1"),
        tag("meta", name="color-scheme", content="light dark"),
        again,
        tag("title", title),
        tag("style", Markup("".join(sheet.read_text(encoding="utf-8") for sheet in sheets))),
    )
    header = tag("header", tag("p", kicker, class_="kicker"), tag("h1", title), tag("p", subtitle, class_="muted"))
    body = tag("body", header, tag("main", *main), tag("footer", footer))
    return f"<!doctype html>\n{tag('html', head, body, lang='en')}\n"


def table(
    heads: Sequence[Child],
    rows: Sequence[Sequence[Child]],
    *,
    caption: str = "",
    words: Sequence[int] = (0,),
    prose: bool = False,
) -> Markup:
    """A table that scrolls on a narrow page. The columns in `words` are text, the others figures; `prose` may wrap."""

    def cells(name: str, row: Sequence[Child]) -> list[Markup]:
        return [tag(name, cell, class_=None if index in words else "num") for index, cell in enumerate(row)]

    head = tag("thead", tag("tr", *cells("th", heads)))
    body = tag("tbody", *(tag("tr", *cells("td", row)) for row in rows))
    title = tag("caption", tag("span", caption)) if caption else None
    return tag("div", tag("table", title, head, body, class_="prose" if prose else None), class_="scroll")


def embedded_image(image: Image.Image, kind: str, *, alt: str, class_: str | None = None) -> Markup:
    """An img element that carries its own bytes; `kind` is PNG or JPEG."""
    buffer = io.BytesIO()
    image.save(buffer, kind, **({"optimize": True} if kind == "PNG" else {"quality": 80}))
    data = base64.b64encode(buffer.getvalue()).decode()
    return tag("img", src=f"data:image/{kind.lower()};base64,{data}", alt=alt, class_=class_, loading="lazy")


def pill(text: str, colour: str) -> Markup:
    """A small coloured label."""
    return tag("span", text, class_=f"pill {colour}")


def environment_table(environment: Mapping[str, Any]) -> Markup:
    """What `zoo.machine.environment` returns, as rows; unknown and empty values are left out."""
    known = {key: value for key, value in environment.items() if value not in (None, [], {})}
    rows: list[list[Child]] = [[key.replace("_", " "), plain(value)] for key, value in known.items()]
    return table(("", ""), rows, words=(0, 1), prose=True)


def plain(value: Any) -> str:
    """A JSON value as people write it: lists and mappings with commas, numbers with six digits, yes and no."""
    if isinstance(value, Mapping):
        return ", ".join(f"{key} {plain(part)}" for key, part in value.items())
    if isinstance(value, list):
        return ", ".join(map(plain, value))
    if isinstance(value, bool):
        return "yes" if value else "no"
    return f"{value:.6g}" if isinstance(value, float) else str(value)
