"""Owns what becomes of results: one is kept and shown, many are made into a page; what these look like is others'."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Any

from rich.markup import escape

from serve.bench.kind import find_kinds
from serve.bench.report.devices import group_by_device, headlines, terminal_lines
from serve.bench.report.exports import as_csv, as_markdown
from serve.bench.report.page import render_page
from zoo import __version__
from zoo.console import log_console, print_json, results_console
from zoo.files import write_json, write_text
from zoo.results import REPORT_FORMAT, Result, read_results, write_result


def keep_result(result: Result, folder: Path, *, as_json: bool = False) -> None:
    """Write a result, then print it: the JSON alone, or its tables and sentences with the file's name after them.

    Raises:
        ZooError: it cannot be written; what took minutes to measure is printed before.
    """
    try:
        path = write_result(folder, result)
    finally:
        _print_result(result, as_json=as_json)
    if not as_json:
        log_console().print(escape(f"Wrote {path}. `zoo bench report {folder}` makes a page of it."), soft_wrap=True)


def _print_result(result: Result, *, as_json: bool) -> None:
    if as_json:
        print_json(result.to_dict())
        return
    console = results_console()
    for line in terminal_lines(result):
        console.print(line)


def write_report(paths: Iterable[Path], out: Path) -> dict[str, Any]:
    """Write the page of every result under `paths` to `out`, and what it says beside it as .json, .md and .csv.

    Returns:
        {"report", "json", "markdown", "csv": paths, "headlines": {device: [sentence, …]}}

    Raises:
        ZooError: as `zoo.results.read_results`, a damaged result, or a place that cannot be written.
    """
    results = read_results(paths, find_kinds())
    devices = group_by_device(results)
    said = {runs.device: headlines(runs) for runs in devices}
    page = render_page(devices)
    beside = out.with_suffix(".json")
    write_text(out, page)
    markdown, table = out.with_suffix(".md"), out.with_suffix(".csv")
    write_text(markdown, as_markdown(devices))
    write_text(table, as_csv(devices))
    figures = {"headlines": said, "results": [result.to_dict() for result in results]}
    write_json(beside, {"format": REPORT_FORMAT, "zoo_version": __version__, **figures})
    files = {"report": out, "json": beside, "markdown": markdown, "csv": table}
    return {**{name: str(file) for name, file in files.items()}, "headlines": said}
