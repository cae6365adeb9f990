"""Owns the two consoles, results on stdout, progress and remarks on stderr, and tables that cut nothing.

`NO_COLOR` and `TERM=dumb` leave colours and bold out, of progress too. What is piped is as wide as it needs to be.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Iterable, Sequence
from typing import Any, Literal, TextIO

import click
from rich.console import Console, ConsoleOptions, RenderableType, RenderResult
from rich.measure import Measurement
from rich.padding import Padding
from rich.segment import Segment
from rich.table import Column, Table
from rich.text import Text

from zoo.files import json_text
from zoo.visible import visible_lines


class VisibleConsole(Console):
    """A console on which no text is a command to the terminal: names of files and classes come from anywhere."""

    def render(self, renderable: RenderableType, options: ConsoleOptions | None = None) -> Iterable[Segment]:
        """As Rich does, with what texts hide written as escapes; Rich's own commands are not texts."""
        for text, style, control in super().render(renderable, options):
            yield Segment(text if control else visible_lines(text), style, control)


# Of what is no terminal: wider than any line, so that nothing is wrapped at a guess.
UNBOUNDED = 1_000_000
# Columns between the columns of a table, and before what follows a row.
WIDE_GAP, INDENT = 2, 2


def results_console() -> Console:
    """A console on stdout."""
    return _console(sys.stdout, stderr=False)


def log_console() -> Console:
    """A console on stderr."""
    return _console(sys.stderr, stderr=True)


def wants_colour() -> bool:
    """Whether the environment lets a terminal have colours and bold: https://no-color.org."""
    return not os.environ.get("NO_COLOR") and os.environ.get("TERM") != "dumb"


def _console(stream: TextIO, *, stderr: bool) -> Console:
    colours: Literal["auto"] | None = "auto" if wants_colour() else None
    width = None if stream.isatty() else UNBOUNDED
    return VisibleConsole(stderr=stderr, width=width, color_system=colours, highlight=False)


def print_json(value: Any, *, indent: int | None = 2) -> None:
    """Print plain JSON types on stdout, what `--json` asks for; on one line where `indent` is None.

    Raises:
        ZooError: a number is NaN or infinite.
    """
    click.echo(json_text(value, indent=indent))


class FittingTable(Table):
    """A table without lines that cuts nothing, however narrow the terminal.

    What has spaces is wrapped at them; words, ids and figures stay whole. Where that is not enough, the last columns
    leave the table and follow each row, indented, with their heads: “params 10,464  MMACs 96.6”.
    """

    def __init__(self, *heads: str, title: str = "", show_header: bool = True) -> None:
        super().__init__(*heads, title=title, show_header=show_header)
        self.heading = title

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        """Render at the width there is."""
        if self.heading:
            yield Text.from_markup(self.heading, style="table.title")
        bounds = [self._bounds(console, options, column) for column in self.columns]
        for gap in (WIDE_GAP, 1):
            widths = _widths(bounds, options.max_width - gap * (len(bounds) - 1))
            if widths:
                yield self._part(widths, gap, range(self.row_count), show_header=self.show_header)
                return
        yield from self._stacked(bounds, options.max_width)

    def _bounds(self, console: Console, options: ConsoleOptions, column: Column) -> Measurement:
        """How wide a column must be, for its longest word, and would be, for its longest cell."""
        cells = [Measurement.get(console, options, cell) for cell in column.cells]
        head = Measurement.get(console, options, column.header if self.show_header else "")
        widest = max((cell.maximum for cell in cells), default=0)
        least = widest if column.no_wrap else max((cell.minimum for cell in cells), default=0)
        return Measurement(max(least, head.minimum), max(widest, head.maximum, column.min_width or 0))

    def _part(self, widths: Sequence[int], gap: int, rows: range, *, show_header: bool) -> Table:
        """Some rows of the first columns, as wide as told."""
        part = Table(box=None, pad_edge=False, padding=(0, gap, 0, 0), header_style="bold", show_header=show_header)
        columns = self.columns[: len(widths)]
        for column, width in zip(columns, widths, strict=True):
            part.add_column(column.header, justify=column.justify, style=column.style, width=width, overflow="fold")
        cells = [list(column.cells) for column in columns]
        for row in rows:
            part.add_row(*(of_column[row] for of_column in cells))
        return part

    def _stacked(self, bounds: Sequence[Measurement], max_width: int) -> RenderResult:
        """As many columns as fit side by side, and under each row what is in the others."""
        widths = [min(bounds[0].maximum, max_width)]
        while sum(widths) + bounds[len(widths)].maximum + WIDE_GAP * len(widths) <= max_width:
            widths.append(bounds[len(widths)].maximum)
        others = [(column.header, list(column.cells)) for column in self.columns[len(widths) :]]
        for row in range(self.row_count):
            yield self._part(widths, WIDE_GAP, range(row, row + 1), show_header=self.show_header and row == 0)
            pairs = [_pair(head, cells[row]) for head, cells in others]
            for line in _filled([pair for pair in pairs if pair], max_width - INDENT):
                yield Padding(line, (0, 0, 0, INDENT), expand=False)


def _widths(bounds: Sequence[Measurement], available: int) -> list[int]:
    """Widths of columns within their bounds, the narrow ones served first; nothing where even the least is too much."""
    if sum(bound.minimum for bound in bounds) > available:
        return []
    widths = [bound.minimum for bound in bounds]
    spare = available - sum(widths)
    by_need = sorted(range(len(bounds)), key=lambda index: bounds[index].span)
    for served, index in enumerate(by_need):
        more = min(bounds[index].span, spare // (len(bounds) - served))
        widths[index] += more
        spare -= more
    return widths


def _pair(head: RenderableType, cell: RenderableType) -> Text | None:
    """A cell with its column's head; None of an empty one, and of a drawing, which no figure depends on."""
    text = Text.from_markup(cell) if isinstance(cell, str) else cell
    if not isinstance(text, Text) or not text.plain.strip():
        return None
    name = Text.from_markup(head, style="dim") if isinstance(head, str) else Text()
    return Text(" ").join([name, text]) if name.plain else text


def _filled(pieces: Sequence[Text], width: int) -> list[Text]:
    """Lines of pieces, of which none is parted that fits into a line."""
    lines: list[Text] = []
    for piece in pieces:
        if lines and lines[-1].cell_len + WIDE_GAP + piece.cell_len <= width:
            lines[-1] = Text(" " * WIDE_GAP).join([lines[-1], piece])
        else:
            lines.append(piece)
    return lines
