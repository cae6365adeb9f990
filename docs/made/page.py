"""Owns docs/report.html: the page that `zoo bench report` makes of the committed results of the harness.

Results of training and of other benchmarks are in docs/benchmarks.md.
"""

from __future__ import annotations

from made.results import BENCHMARKS
from serve.bench.kind import find_kinds
from serve.bench.report.devices import group_by_device
from serve.bench.report.page import render_page
from zoo.results import read_results

KINDS = ("stages", "fusion", "latency", "zoo")


def report() -> str:
    """The whole page."""
    results = read_results([BENCHMARKS], find_kinds())
    return render_page(group_by_device([result for result in results if result.kind in KINDS]))
