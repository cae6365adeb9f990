"""Owns what becomes of results: one is kept and shown, many are made into a page; what these look like is others'."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from rich.markup import escape

from serve.bench.kind import find_kinds
from serve.bench.report.checked import blaming
from serve.bench.report.devices import group_by_device, headlines, terminal_lines
from serve.bench.report.exports import CSV_HEADS, MARKDOWN_TITLE, as_csv, as_markdown
from serve.bench.report.page import render_page
from zoo import __version__
from zoo.console import log_console, print_json, results_console
from zoo.errors import ZooError
from zoo.files import write_json, write_text
from zoo.results import REPORT_FORMAT, Result, read_results, write_result

# Bytes in which a report's files say that they are ones.
_BEGINNING = 200


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


def _check_beside(out: Path, beside: Mapping[Path, str]) -> None:
    """Refuse to replace what is no report of earlier: a result, or somebody's README.

    Args:
        out: the page.
        beside: what is written with it, and a text that a file of ours has near its beginning.
    """
    if out in beside:
        raise ZooError(
            f"-o {out} is the page, and its figures are written beside it as .json, .md and .csv.", "-o report.html"
        )
    for path, mark in beside.items():
        if path.exists() and mark.encode() not in path.read_bytes()[:_BEGINNING]:
            raise ZooError(
                f"{path} is there already, and it is no report: the page's figures would replace it.",
                "Give the page another name with -o.",
            )


def write_report(paths: Iterable[Path], out: Path) -> dict[str, Any]:
    """Write the page of every result under `paths` to `out`, and what it says beside it as .json, .md and .csv.

    Returns:
        {"report", "json", "markdown", "csv": paths, "headlines": {device: [sentence, …]}}

    Raises:
        ZooError: as `zoo.results.read_results`, a result that cannot be shown, or a place that cannot be written or is
            taken.
    """
    if out.is_dir():
        raise ZooError(f"-o {out} is a folder, and the page is a file.", f"-o {out / 'report.html'}")
    beside, markdown, table = (out.with_suffix(suffix) for suffix in (".json", ".md", ".csv"))
    _check_beside(out, {beside: REPORT_FORMAT, markdown: MARKDOWN_TITLE, table: ",".join(CSV_HEADS)})
    paths = list(paths)
    results = read_results(paths, find_kinds())
    with blaming(paths):
        devices = group_by_device(results)
        said = {runs.device: headlines(runs) for runs in devices}
        texts = {out: render_page(devices), markdown: as_markdown(devices), table: as_csv(devices)}
    for path, text in texts.items():
        write_text(path, text)
    figures = {"headlines": said, "results": [result.to_dict() for result in results]}
    write_json(beside, {"format": REPORT_FORMAT, "zoo_version": __version__, **figures})
    files = {"report": out, "json": beside, "markdown": markdown, "csv": table}
    return {**{name: str(file) for name, file in files.items()}, "headlines": said}
