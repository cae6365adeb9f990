"""Owns how a confusion matrix looks, as a table of a page and as a picture of its own; it counts nothing itself."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from zoo.page.charts import nice_ticks, tick_text
from zoo.page.markup import Markup, tag
from zoo.page.picture import LETTER_PX, count_letters, heading, render_picture, shortened
from zoo.wording import percent

Counts = NDArray[np.int64]  # (K, K): entry i, j counts pictures of class i that were taken for class j
# A matrix of more classes than this has cells that nobody can read; its largest entries say more.
MATRIX_CLASSES = 20
# Above it a cell of the picture has less than a pixel.
DRAWN_CLASSES = 1000
CAPTION = "Rows are true classes, columns what they were taken for"
# The picture in pixels: its margin and head, a cell with a count in it, all cells without, the longest name in letters.
_MARGIN, _HEAD, _CELL, _SIDE, _LETTERS = 32, 104, 40, 640, 20
_LEAST_WIDTH = 560
_LEVELS = 16  # of one colour


def find_shades(confusion: Counts) -> NDArray[np.float64]:
    """How strongly each cell (K, K) is coloured, 0…1.

    On the diagonal it is the share of the class. Mistakes are few: theirs is a share of the largest, or none were seen.
    """
    shares = confusion / np.maximum(confusion.sum(1, keepdims=True), 1)
    right = np.eye(len(confusion), dtype=bool)
    worst = float(np.where(right, 0.0, shares).max()) or 1.0
    shades: NDArray[np.float64] = np.where(right, shares, shares / worst)
    return shades


def render_matrix(confusion: Counts, classes: Sequence[str]) -> Markup:
    """The matrix as a table, with the share of right answers at the end of each row."""
    shades, rows = find_shades(confusion), []
    for i, name in enumerate(classes):
        cells = []
        for j in range(len(classes)):
            count, shade = int(confusion[i, j]), shades[i, j]
            kind = "right" if i == j else "cell" if count else "cell none"
            strong = " strong" if shade > 0.5 else ""
            style = f"--share:{100 * shade:.0f}%"
            cells.append(tag("td", str(count), class_=kind + strong, style=style, title=_tip(confusion, classes, i, j)))
        rows.append(tag("tr", tag("th", name, title=name), *cells, tag("td", _recall(confusion, i), class_="share")))
    heads = (tag("th", tag("span", name), title=name) for name in classes)
    head = tag("tr", tag("th"), *heads, tag("th", "right", class_="share"))
    long = max(map(len, classes)) > 4
    caption = tag("caption", tag("span", f"{CAPTION}; pictures."))
    matrix = tag(
        "table", caption, tag("thead", head), tag("tbody", *rows), class_=f"confusion{' upright' if long else ''}"
    )
    return tag("div", matrix, class_="scroll")


def draw_matrix(confusion: Counts, classes: Sequence[str], title: str) -> str:
    """The matrix as an SVG file: counts in the cells of up to `MATRIX_CLASSES` classes, colours alone of more."""
    right, total = int(confusion.trace()), int(confusion.sum())
    head = f"{right:,} of {total:,} right ({100 * right / max(total, 1):.1f} %)."
    few = len(classes) <= MATRIX_CLASSES
    caption = f"{CAPTION}; pictures." if few else f"{CAPTION}."
    parts, width, height = _draw_counts(confusion, classes) if few else _draw_colours(confusion)
    width = max(width, _LEAST_WIDTH)
    return render_picture([*heading(title, [head, caption], width), *parts], title=title, width=width, height=height)


def _tip(confusion: Counts, classes: Sequence[str], i: int, j: int) -> str:
    return f"{confusion[i, j]} of {confusion[i].sum()}: {classes[i]} taken for {classes[j]}"


def _recall(confusion: Counts, i: int) -> str:
    total = int(confusion[i].sum())
    return percent(confusion[i, i] / total) if total else "–"


def _draw_counts(confusion: Counts, classes: Sequence[str]) -> tuple[list[Markup], int, int]:
    names = [shortened(name, _LETTERS) for name in classes]
    longest = max(map(count_letters, names))
    left, side = _MARGIN + LETTER_PX * longest + 12, _CELL * len(classes)
    upright = longest > 4
    top = _HEAD + (LETTER_PX * longest + 8 if upright else 20)
    shades, parts = find_shades(confusion), []
    for i, (name, short) in enumerate(zip(classes, names, strict=True)):
        x, y, tip = left + _CELL * i + _CELL / 2, top + _CELL * i + _CELL / 2 + 4.5, tag("title", name)
        parts.append(tag("text", tip, short, x=left - 10, y=y, text_anchor="end"))
        turn = {"transform": f"rotate(-90 {x + 4.5} {top - 8})", "x": x + 4.5} if upright else {"x": x}
        parts.append(tag("text", tip, short, y=top - 8, text_anchor="start" if upright else "middle", **turn))
        parts.append(tag("text", _recall(confusion, i), class_="muted", x=left + side + 12, y=y))
        parts += [_draw_cell(confusion, classes, shades, (i, j), (left, top)) for j in range(len(classes))]
    parts.append(tag("text", "right", class_="muted", x=left + side + 12, y=top - 8))
    return parts, left + side + 52 + _MARGIN, top + side + _MARGIN


def _draw_cell(
    confusion: Counts,
    classes: Sequence[str],
    shades: NDArray[np.float64],
    cell: tuple[int, int],
    corner: tuple[int, int],
) -> Markup:
    i, j = cell
    x, y, shade = corner[0] + _CELL * j, corner[1] + _CELL * i, float(shades[i, j])
    place: dict[str, int] = {"x": x + 1, "y": y + 1, "width": _CELL - 2, "height": _CELL - 2, "rx": 4}
    parts = [tag("title", _tip(confusion, classes, i, j)), tag("rect", class_="surface", **place)]
    if confusion[i, j]:
        colour, strong = ("blue", "strong on-blue") if i == j else ("orange", "strong on-orange")
        parts.append(tag("rect", class_=f"fill {colour}", fill_opacity=shade, **place))
        middle: dict[str, int | str] = {"x": x + _CELL // 2, "y": y + _CELL // 2 + 4, "text_anchor": "middle"}
        parts.append(tag("text", str(confusion[i, j]), class_=strong if shade > 0.5 else None, **middle))
    return tag("g", *parts)


def _draw_colours(confusion: Counts) -> tuple[list[Markup], int, int]:
    """One path for each strength of each colour: whole pixels, or edges would blur."""
    count = len(confusion)
    cell = max(_SIDE // count, 1)
    side, left, top = cell * count, _MARGIN + 56, _HEAD + 12
    levels = np.ceil(_LEVELS * find_shades(confusion)).astype(int)
    diagonal = np.eye(count, dtype=bool)
    paths = []
    for colour, own in (("blue", diagonal), ("orange", ~diagonal)):
        for level in range(1, _LEVELS + 1):
            squares = "".join(f"M{j} {i}h1v1h-1z" for i, j in zip(*np.nonzero(own & (levels == level)), strict=True))
            if squares:
                paths.append(tag("path", class_=f"fill {colour}", fill_opacity=level / _LEVELS, d=squares))
    place = f"translate({left} {top}) scale({cell})"
    parts = [
        tag("rect", class_="surface", x=left, y=top, width=side, height=side),
        tag("g", *paths, transform=place, shape_rendering="crispEdges"),
        tag("text", "predicted class", class_="muted", x=left + side / 2, y=top + side + 40, text_anchor="middle"),
        tag("text", "true class", class_="muted", x=_MARGIN, y=top - 8),
    ]
    for tick in nice_ticks(count - 1):
        at = cell * (tick + 0.5)
        parts.append(tag("text", tick_text(tick), class_="tick", x=left + at, y=top + side + 18, text_anchor="middle"))
        parts.append(tag("text", tick_text(tick), class_="tick", x=left - 8, y=top + at + 4, text_anchor="end"))
    return parts, left + side + _MARGIN, top + side + 40 + _MARGIN
