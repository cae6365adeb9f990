"""Owns a report as text that other programs read: Markdown for people's own pages, CSV for spreadsheets."""

from __future__ import annotations

import csv
import io
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

from rich.table import Table
from rich.text import Text

from serve.bench.report.devices import DeviceRuns
from zoo.page.figures import Figures
from zoo.wording import plain_name


@dataclass(frozen=True, kw_only=True)
class PlainTable:
    """One table of one result; `words` are the columns that are text, the others are figures."""

    device: str
    kind: str
    result: str
    caption: str
    heads: Sequence[str]
    rows: Sequence[Sequence[str]]
    words: Sequence[int]


def find_tables(devices: Sequence[DeviceRuns]) -> Iterator[PlainTable]:
    """Every table of every result, as its kind makes it."""
    for runs in devices:
        for kind, of_kind in runs.kinds:
            for run in of_kind:
                for shown in kind.tables(run):
                    caption, heads, rows, words = _of_page(shown) if isinstance(shown, Figures) else _of_terminal(shown)
                    yield PlainTable(
                        device=plain_name(runs.device),
                        kind=kind.name,
                        result=run.result.name,
                        caption=caption,
                        heads=heads,
                        rows=rows,
                        words=words,
                    )


_Parts = tuple[str, Sequence[str], Sequence[Sequence[str]], Sequence[int]]


def _of_page(figures: Figures) -> _Parts:
    return figures.caption, figures.heads, figures.texts(), figures.words


def _of_terminal(table: Table) -> _Parts:
    columns = [[_plain(cell) for cell in column.cells] for column in table.columns]
    rows = [list(row) for row in zip(*columns, strict=True)]
    words = [index for index, column in enumerate(table.columns) if column.justify == "left"]
    return _plain(table.title), [_plain(column.header) for column in table.columns], rows, words


def _plain(cell: object) -> str:
    return Text.from_markup(str(cell)).plain if isinstance(cell, str) else str(cell or "")


def as_markdown(headlines: Mapping[str, Sequence[str]], tables: Sequence[PlainTable]) -> str:
    """What is said of every device, then every table."""
    parts = ["# Benchmarks"]
    for device, sentences in headlines.items():
        parts.append(f"## {plain_name(device)}")
        parts.append("\n".join(f"- {sentence}" for sentence in sentences))
        parts += [_markdown_table(table) for table in tables if table.device == plain_name(device)]
    return "\n\n".join(parts) + "\n"


def _markdown_table(table: PlainTable) -> str:
    """One table in GitHub's form, its caption above; a bar inside a cell would end it."""

    def line(cells: Sequence[str]) -> str:
        return "| " + " | ".join(cell.replace("|", "\\|").replace("\n", " ") for cell in cells) + " |"

    rule = line(["---" if index in table.words else "---:" for index in range(len(table.heads))])
    return "\n".join([f"{table.caption}\n", line(table.heads), rule, *map(line, table.rows)])


def as_csv(tables: Sequence[PlainTable]) -> str:
    """Every cell on a line of its own, with where it stands: tables of any shape in one file."""
    written = io.StringIO()
    writer = csv.writer(written, lineterminator="\n")
    writer.writerow(("device", "kind", "result", "table", "row", "column", "value"))
    for table in tables:
        for number, row in enumerate(table.rows, start=1):
            for head, cell in zip(table.heads, row, strict=True):
                writer.writerow((table.device, table.kind, table.result, table.caption, number, head, cell))
    return written.getvalue()
