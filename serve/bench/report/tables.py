"""Owns a result as tables for the terminal; the page of a report is its neighbour's."""

from __future__ import annotations

from collections.abc import Iterator

from rich.markup import escape
from rich.table import Table

from serve.bench.measure.stages import OPERATOR_NAMES, FormRow, StageRow
from serve.bench.report.headlines import headlines
from serve.bench.report.measured import group_by_device
from zoo.results import Result, Summary
from zoo.wording import count, digits, digits_or_dash, plain_name

_COLOURS = {"mbconv": "blue", "fused_mbconv": "dark_orange", "even": "dim"}


def latency_tables(result: Result) -> Iterator[Table | str]:
    """One table of every artifact and batch size, then what it says."""
    runs = group_by_device([result])[0]
    run = runs.latency[0]
    table = _table(f"{plain_name(runs.device)} · milliseconds per batch, one batch in flight")
    table.add_column("artifact")
    for name in ("batch", "p50", "p90", "p99", "max", "pictures/s", "n"):
        table.add_column(name, justify="right")
    table.add_column("")
    for row in run.rows:
        lat = row.latency
        values = (lat.p50_ms, lat.telling_p90_ms, lat.telling_p99_ms, lat.max_ms, row.pictures_per_second)
        figures = [digits_or_dash(value) for value in values]
        table.add_row(escape(row.artifact), str(row.batch_size), *figures, f"{lat.n:,}", _stability(lat))
    yield table
    yield from _sentences(result)


def stages_tables(result: Result) -> Iterator[Table | str]:
    """One table of every stage in both forms, the faster one coloured, then what it says."""
    runs = group_by_device([result])[0]
    run = runs.stages[0]
    table = _table(
        f"{plain_name(runs.device)} · {run.conditions} · median ms per batch (range of the rounds); ◆ as published"
    )
    for name in ("stage", "channels", "map", "blocks"):
        table.add_column(name, justify="right")
    for operator in ("mbconv", "fused_mbconv"):
        table.add_column(OPERATOR_NAMES[operator], justify="right", no_wrap=True)
        table.add_column("MACs", justify="right", style="dim")
    table.add_column("faster")
    for row in run.rows:
        cells = [f"{row.in_channels}→{row.out_channels}", f"{row.in_size}→{row.out_size}", str(row.num_layers)]
        for form in row.forms:
            cells += [_milliseconds(row, form), count(form.macs)]
        verdict = f"[{_COLOURS[row.winner]}]{row.verdict}[/]"
        table.add_row(str(row.index), *cells, verdict)
    yield table
    yield from _sentences(result)


def _table(title: str) -> Table:
    return Table(title=escape(title), title_justify="left", box=None, pad_edge=False, header_style="bold")


def _milliseconds(row: StageRow, form: FormRow) -> str:
    won, own = form.operator == row.winner, form.operator == row.paper_operator
    text = f"[bold {_COLOURS[form.operator]}]{digits(form.ms)}[/]" if won else digits(form.ms)
    return f"{text} [dim]({digits(form.best_ms)}–{digits(form.worst_ms)})[/] {'◆' if own else ' '}"


def _stability(summary: Summary) -> str:
    return "[yellow]unstable[/]" if summary.unstable else ""


def _sentences(result: Result) -> Iterator[str]:
    yield ""
    for sentence in headlines(group_by_device([result])[0]):
        yield f"• {escape(sentence)}"
