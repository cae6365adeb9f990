"""Owns docs/img/architecture.svg: the packages, their rooms in layers, and who imports whom; drawn, never edited.

The units are pixels of a phone's width: there the text is 11 to 12 px. Colours follow the reader's light or dark.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from html import escape
from pathlib import Path

from made.architecture import ROOT, docstring, layers, may_import, packages

WIDTH, MARGIN, GUTTER = 414, 6, 10
LINE, CHIP, GAP, PAD = 26, 20, 4, 8  # a line of chips; a chip; between chips; inside a package
HEAD, ARROW = 46, 34  # a package's name; the room for an arrow between two packages
LETTER, PHRASE_LETTER = 7.25, 6.8  # widths at 12 px: of a monospaced letter, of another one, generously
LEGEND = (
    "An arrow: may import.",
    "A room imports those in",
    "the bands below it, none",
    "beside it. Filled: a folder.",
    "Outlined: a file.",
)

STYLE = """
text { font: 12px ui-monospace, SFMono-Regular, Menlo, Consolas, "DejaVu Sans Mono", monospace; fill: #1f2328 }
.name { font-weight: 700; font-size: 15px }
.small { font-family: system-ui, "Segoe UI", Roboto, Helvetica, Arial, sans-serif; fill: #59636e }
.zoo { fill: #dff3ee; stroke: #0f7b6c } .train { fill: #fdeed3; stroke: #a86200 }
.export { fill: #ece5fb; stroke: #6b4fbb } .serve { fill: #dcebfb; stroke: #1f6fb5 }
.layer { fill: #ffffff; fill-opacity: .55; stroke: none }
.folder { stroke-width: 0 } .file { fill: none; stroke-width: 1 }
.folder.zoo { fill: #a9ddd1 } .folder.train { fill: #f7d08c }
.folder.export { fill: #cdbdf3 } .folder.serve { fill: #a9cff2 }
.arrow { fill: none; stroke: #59636e; stroke-width: 1.6 } .tip { fill: #59636e }
@media (prefers-color-scheme: dark) {
  text { fill: #f0f3f6 } .small { fill: #b7bdc8 }
  .zoo { fill: #0d2f2a; stroke: #4fbfa9 } .train { fill: #35270c; stroke: #d9a441 }
  .export { fill: #261c46; stroke: #a48df0 } .serve { fill: #0f2940; stroke: #65abe8 }
  .layer { fill: #ffffff; fill-opacity: .05 } .file { fill: none }
  .folder.zoo { fill: #1b5c50 } .folder.train { fill: #6a4a10 }
  .folder.export { fill: #4a3691 } .folder.serve { fill: #1c5180 }
  .arrow { stroke: #b7bdc8 } .tip { fill: #b7bdc8 }
}
"""


@dataclass(frozen=True)
class Box:
    """A package's place: its left, top, width and height."""

    left: float
    top: float
    width: float
    height: float

    @property
    def bottom(self) -> float:
        """Its lower edge."""
        return self.top + self.height

    @property
    def middle(self) -> float:
        """Halfway between its sides."""
        return self.left + self.width / 2


def draw() -> str:
    """The picture: train on the left, serve above export on the right, and below them zoo, on which all stand."""
    half = (WIDTH - 2 * MARGIN - GUTTER - ARROW / 2) / 2
    serve = Box(MARGIN + half + GUTTER, MARGIN, half, height_of("serve", half))
    export = Box(serve.left, serve.bottom + ARROW, half, height_of("export", half))
    own = height_of("train", half)
    below = max(export.bottom, MARGIN + 18 * len(LEGEND) + GUTTER + own)
    train = Box(MARGIN, below - own, half, own)
    zoo = Box(MARGIN, below + ARROW, WIDTH - 2 * MARGIN, height_of("zoo", WIDTH - 2 * MARGIN))
    boxes = {"zoo": zoo, "train": train, "export": export, "serve": serve}
    if set(packages()) != set(boxes):
        raise LookupError(f"docs/made/picture.py has a place for {', '.join(boxes)}, not for {', '.join(packages())}")
    height = zoo.bottom + MARGIN
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {height:g}" width="{1.5 * WIDTH:g}" role="img">',
        "<title>The four packages, their rooms, and who may import whom</title>",
        f"<style>{STYLE}</style>",
        *(text(MARGIN + 2, MARGIN + 16 + 18 * number, line, "small") for number, line in enumerate(LEGEND)),
        *(part for name, box in boxes.items() for part in package(name, box)),
        *(arrow(boxes, one, other) for one, others in may_import().items() for other in others),
        "</svg>\n",
    ]
    return "\n".join(filter(None, parts))


def package(name: str, box: Box) -> Iterator[str]:
    """A package's box, its name, and its layers from the highest."""
    yield rectangle(box.left, box.top, box.width, box.height, name, 10)
    yield text(box.left + PAD, box.top + 20, f"{name}/", "name")
    yield text(box.left + PAD, box.top + 37, phrase(ROOT / name, box.width - 2 * PAD), "small")
    top = box.top + HEAD
    for lines in lines_of(name, box.width):
        yield rectangle(box.left + PAD / 2, top, box.width - PAD, LINE * len(lines) - 2, "layer", 5)
        for line in lines:
            left = box.left + PAD
            for room in line:
                yield from chip(name, room, left, top)
                left += width_of(room) + GAP
            if box.width > WIDTH / 2 and len(line) == 1:  # there is room beside it
                yield text(
                    left + 4, top + 16, phrase(ROOT / name / line[0], box.left + box.width - PAD - left), "small"
                )
            top += LINE


def chip(name: str, room: str, left: float, top: float) -> Iterator[str]:
    """A room: a filled box for a folder, an outlined one for a file; what is inside a room, a name alone."""
    if not room.startswith("›"):
        kind = "folder" if (ROOT / name / room).is_dir() else "file"
        yield rectangle(left, top + 2, width_of(room), CHIP, f"{name} {kind}", 5)
    yield text(left + 5, top + 16, room)


def lines_of(name: str, width: float) -> list[list[list[str]]]:
    """The rooms of a package: its layers, each in as many lines as it takes; a room's own layers stand below it."""
    inside = {room: layers().get(f"{name}.{room}", []) for layer in layers()[name] for room in layer}
    return [
        [
            *wrapped(layer, width - 2 * PAD),
            *(line for room in layer if inside[room] for line in wrapped(within(inside[room]), width - 2 * PAD)),
        ]
        for layer in layers()[name]
    ]


def within(rooms: list[list[str]]) -> list[str]:
    """“› cli”, “› report”: a room's own layers, from the highest."""
    return [f"› {', '.join(layer)}" for layer in rooms]


def phrase(path: Path, width: float) -> str:
    """The first clause of a package's or a room's docstring; "" where it does not fit."""
    words = docstring(path / "__init__.py" if path.is_dir() else path.with_suffix(".py"))
    clause = re.split(r"[:;,.]( |$)", words)[0]
    return clause[:1].lower() + clause[1:] if PHRASE_LETTER * len(clause) <= width else ""


def wrapped(rooms: list[str], width: float) -> list[list[str]]:
    """Rooms in lines no wider than `width`."""
    lines: list[list[str]] = [[]]
    for room in rooms:
        if lines[-1] and sum(width_of(other) + GAP for other in lines[-1]) + width_of(room) > width:
            lines.append([])
        lines[-1].append(room)
    return lines


def width_of(room: str) -> float:
    """A chip's width."""
    return LETTER * len(room) + (0 if room.startswith("›") else 10)


def height_of(name: str, width: float) -> float:
    """A package's height."""
    return HEAD + LINE * sum(map(len, lines_of(name, width))) + PAD / 2


def arrow(boxes: dict[str, Box], one: str, other: str) -> str:
    """From a package to one it may import: down, or around what stands between."""
    start, end = boxes[one], boxes[other]
    if (one, other) == ("serve", "zoo"):
        left, right = start.left + start.width, WIDTH - MARGIN - 6
        middle = start.top + start.height / 2
        path = f"M{left:g} {middle:g} H{right - 8:g} q8 0 8 8 V{end.top - 8:g}"
        return shaft(path, right, end.top)
    return shaft(f"M{start.middle:g} {start.bottom:g} V{end.top - 8:g}", start.middle, end.top)


def shaft(path: str, x: float, y: float) -> str:
    """A line with a tip that points down."""
    return f'<path class="arrow" d="{path}"/><path class="tip" d="M{x:g} {y - 1:g} l-5 -9 h10 z"/>'


def rectangle(left: float, top: float, width: float, height: float, kind: str, radius: int) -> str:
    """A box with round corners."""
    return f'<rect class="{kind}" x="{left:g}" y="{top:g}" width="{width:g}" height="{height:g}" rx="{radius}"/>'


def text(left: float, base: float, words: str, kind: str = "") -> str:
    """A line of text from its left; nothing for no words."""
    attribute = f' class="{kind}"' if kind else ""
    return words and f'<text{attribute} x="{left:g}" y="{base:g}">{escape(words)}</text>'
