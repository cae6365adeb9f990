"""Owns docs/report.html: the page that `zoo bench report` makes of the committed results."""

from __future__ import annotations

from made.results import BENCHMARKS
from serve.bench.kind import find_kinds
from serve.bench.report.devices import group_by_device
from serve.bench.report.page import render_page
from zoo.results import read_results


def report() -> str:
    """The whole page."""
    return render_page(group_by_device(read_results([BENCHMARKS], find_kinds())))
