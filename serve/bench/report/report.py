"""Owns the report: results in, one page and one JSON file out; what the page looks like is `page`."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Any

from serve.bench.report.headlines import headlines
from serve.bench.report.measured import group_by_device
from serve.bench.report.page import render_page
from zoo import __version__
from zoo.files import write_json, write_text
from zoo.results import REPORT_FORMAT, read_results


def write_report(paths: Iterable[Path], out: Path) -> dict[str, Any]:
    """Write the page of every result under `paths` to `out`, and what it says beside it as .json.

    Returns:
        {"report", "json": paths, "headlines": {device: [sentence, …]}}

    Raises:
        ZooError: as `zoo.results.read_results`, a damaged result, or a place that cannot be written.
    """
    results = read_results(paths)
    devices = group_by_device(results)
    said = {runs.device: headlines(runs) for runs in devices}
    page = render_page(devices)
    beside = out.with_suffix(".json")
    write_text(out, page)
    write_json(
        beside,
        {
            "format": REPORT_FORMAT,
            "zoo_version": __version__,
            "headlines": said,
            "results": [result.to_dict() for result in results],
        },
    )
    return {"report": str(out), "json": str(beside), "headlines": said}
