from __future__ import annotations

import csv
import io
from collections.abc import Callable

from rich.table import Table

from serve.bench.report.devices import group_by_device, headlines
from serve.bench.report.texts import PlainTable, as_csv, as_markdown, find_tables
from zoo.results import Result

Make = Callable[..., Result]


def test_every_table_is_in_both_texts(stages_result: Make, latency_result: Make) -> None:
    devices = group_by_device([stages_result(), latency_result()])
    tables = list(find_tables(devices))
    assert {table.kind for table in tables} == {"stages", "latency"}
    said = {runs.device: headlines(runs) for runs in devices}
    page = as_markdown(said, tables)
    assert page.startswith("# Benchmarks\n\n## NVIDIA H100\n\n- ")
    assert "MBConv 2.4× faster" in page
    assert all(table.caption in page for table in tables)
    rows = list(csv.DictReader(io.StringIO(as_csv(tables))))
    (sixth,) = [row["value"] for row in rows if row["column"] == "faster" and row["row"] == "11"]
    assert sixth == "MBConv 2.4× faster"
    assert len(rows) == sum(len(table.rows) * len(table.heads) for table in tables)


def test_a_bar_in_a_cell_ends_no_cell() -> None:
    table = PlainTable(
        device="CPU", kind="x", result="y", caption="A | b", heads=("a|b", "n"), rows=[("c|d", "1")], words=(0,)
    )
    lines = as_markdown({"CPU": ["Said."]}, [table]).splitlines()
    assert lines[-3:] == ["| a\\|b | n |", "| --- | ---: |", "| c\\|d | 1 |"]


def test_a_terminals_table_loses_its_colours() -> None:
    drawn = Table(title="[bold]T[/]")
    drawn.add_column("[dim]name[/]")
    drawn.add_column("ms", justify="right")
    drawn.add_row("[red]a[/]", "1.5")
    from serve.bench.report.texts import _of_terminal

    assert _of_terminal(drawn) == ("T", ["name", "ms"], [["a", "1.5"]], [0])
