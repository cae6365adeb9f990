from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest

from serve.bench.report.report import write_report
from zoo.errors import ZooError
from zoo.results import Result, write_result

Make = Callable[..., Result]


def test_the_report_is_a_page_and_its_json(
    tmp_path: Path, stages_result: Make, latency_result: Make, train_result: Make
) -> None:
    for result in (stages_result(), latency_result(), train_result()):
        write_result(tmp_path / "benchmarks", result)
    out = tmp_path / "benchmarks" / "report.html"
    written = write_report([tmp_path / "benchmarks"], out)
    assert written["report"] == str(out)
    beside = json.loads((tmp_path / "benchmarks" / "report.json").read_text())
    assert beside["format"] == "zoo-report-1"
    assert beside["headlines"] == written["headlines"]
    assert {result["kind"] for result in beside["results"]} == {"stages", "latency", "train"}
    # The report lies among the results now, and making it again must give the same page.
    first = out.read_text()
    write_report([tmp_path / "benchmarks"], out)
    assert out.read_text() == first


def test_a_failed_report_leaves_nothing(tmp_path: Path) -> None:
    (tmp_path / "foreign.json").write_text('{"hello": "world"}')
    with pytest.raises(ZooError, match=r"foreign\.json"):
        write_report([tmp_path], tmp_path / "report.html")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["foreign.json"]
