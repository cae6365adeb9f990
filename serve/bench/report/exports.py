"""Owns a report for other programs: its sentences and tables as Markdown, its tables as CSV; it draws nothing."""

from __future__ import annotations

import csv
import io
import re
from collections.abc import Iterator, Sequence
from html import unescape

from rich.table import Table
from rich.text import Text

from serve.bench.report.devices import DeviceRuns, headlines
from zoo.cells import guarded
from zoo.page.figures import Figures
from zoo.page.markup import join
from zoo.wording import plain_name

MARKDOWN_TITLE = "# Benchmark report"
CSV_HEADS = ("device", "kind", "result", "table", "row", "column", "value")


def as_markdown(devices: Sequence[DeviceRuns]) -> str:
    """Every device's sentences, then every result's tables."""
    lines = [MARKDOWN_TITLE]
    for runs in devices:
        lines += ["", f"## {_escaped(plain_name(runs.device))}", ""]
        lines += [f"- {_escaped(sentence)}" for sentence in headlines(runs)]
        for kind, name, caption, heads, rows in _tables(runs):
            lines += ["", f"### {kind}: {_escaped(name)}", ""]
            lines += [f"{_escaped(caption)}:", ""] if caption else []
            lines += [_line(heads), _line(["---"] * len(heads)), *map(_line, rows)]
    return "\n".join(lines) + "\n"


def as_csv(devices: Sequence[DeviceRuns]) -> str:
    """A line for every cell of every table: the tables of the kinds have different columns."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(CSV_HEADS)
    for runs in devices:
        for kind, name, caption, heads, rows in _tables(runs):
            for number, row in enumerate(rows, start=1):
                writer.writerows(
                    map(_cell, (runs.device, kind, name, caption, str(number), head, cell))
                    for head, cell in zip(heads, row, strict=True)
                )
    return text.getvalue()


def _tables(runs: DeviceRuns) -> Iterator[tuple[str, str, str, list[str], list[list[str]]]]:
    """Kind, name, caption, heads and rows of every table, as plain text."""
    for kind, of_kind in runs.kinds:
        for run in of_kind:
            for table in kind.tables(run):
                yield (kind.name, run.result.name, *plain_table(table))


def plain_table(table: Figures | Table) -> tuple[str, list[str], list[list[str]]]:
    """A table's caption, heads and cells as plain text."""
    if isinstance(table, Figures):
        rows = [[unescape(re.sub(r"<[^>]+>", "", join(cell))) for cell in row] for row in table.rows]
        return table.caption, list(table.heads), rows
    heads = [Text.from_markup(str(column.header)).plain for column in table.columns]
    columns = [[Text.from_markup(str(cell)).plain for cell in column.cells] for column in table.columns]
    caption = Text.from_markup(str(table.title or "")).plain
    return caption, heads, [list(row) for row in zip(*columns, strict=True)]


def _line(cells: Sequence[str]) -> str:
    escaped = (_escaped(cell).replace("|", "\\|").replace("\n", " ") for cell in cells)
    return f"| {' | '.join(escaped)} |"


def _escaped(text: str) -> str:
    """A text that Markdown shows as it is: tags in a name are no tags of the page."""
    return text.replace("&", "&amp;").replace("<", "&lt;")


def _cell(text: str) -> str:
    """A cell that no spreadsheet takes for a formula; numbers stay numbers."""
    try:
        float(text)
    except ValueError:
        return guarded(text)
    return text
