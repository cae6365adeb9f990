from __future__ import annotations

import csv
import json
from collections.abc import Callable
from pathlib import Path

import pytest
from rich.cells import cell_len

from serve.bench.report.devices import terminal_lines
from serve.bench.report.report import write_report
from zoo.console import results_console
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


@pytest.mark.parametrize("width", [60, 80, None])
def test_the_tables_of_a_terminal_cut_nothing(
    width: int | None,
    stages_result: Callable[..., Result],
    latency_result: Callable[..., Result],
    at_width: Callable[[int | None], None],
    capfd: pytest.CaptureFixture[str],
) -> None:
    """Every artifact, channel and time is whole, whatever the width."""
    long = "an-artifact-with-a-name-that-is-long-but-fits.onnx"
    at_width(width)
    for result, wanted in (
        (stages_result(), {"24→48", "160→256", "192→96", "3.60", "1.80", "8.80", "Fused-MBConv"}),
        (latency_result((long, "s.plan")), {long, "s.plan", "4.00", "32.0", "200"}),
    ):
        for line in terminal_lines(result):
            results_console().print(line)
        said = capfd.readouterr().out
        assert wanted <= set(said.replace("(", " ").split()), result.kind
        assert "…" not in said
        assert not width or max(map(cell_len, said.splitlines())) <= width


def test_the_report_is_written_for_other_programs_too(tmp_path: Path, latency_result: Make, train_result: Make) -> None:
    for result in (latency_result(names=("a|b.onnx",)), train_result()):
        write_result(tmp_path / "results", result)
    written = write_report([tmp_path / "results"], tmp_path / "report.html")
    markdown = Path(written["markdown"]).read_text()
    assert markdown.startswith("# Benchmark report\n\n## NVIDIA H100\n\n- ")
    assert "| a\\|b.onnx | batch 1 | 4.00 |" in markdown
    assert "### train: s-folder-bf16" in markdown
    with Path(written["csv"]).open(newline="") as file:
        rows = list(csv.DictReader(file))
    cells = {(row["kind"], row["row"], row["column"]): row["value"] for row in rows}
    assert cells["latency", "2", "p50"] == "32.0"
    assert cells["train", "1", "image size"] == "128 px"
    assert {row["device"] for row in rows} == {"NVIDIA H100"}


def test_a_name_is_no_tag_in_markdown_and_no_formula_in_a_spreadsheet(tmp_path: Path, latency_result: Make) -> None:
    write_result(tmp_path / "results", latency_result(names=("=1+1|<img src=x>.onnx", "-1.onnx")))
    written = write_report([tmp_path / "results"], tmp_path / "report.html")
    markdown = Path(written["markdown"]).read_text()
    assert "<img" not in markdown and "&lt;img src=x>" in markdown
    assert "<img" not in Path(written["report"]).read_text()
    with Path(written["csv"]).open(newline="") as file:
        values = {row["value"] for row in csv.DictReader(file)}
    assert {"'=1+1|<img src=x>.onnx", "'-1.onnx"} <= values
    assert not any(value.startswith(("=", "+", "@")) for value in values)


@pytest.mark.parametrize("out", ["s.html", "s.json", "page.md", "page.csv"])
def test_a_report_never_replaces_a_result(out: str, stages_result: Make, tmp_path: Path) -> None:
    kept = tmp_path / "s.json"
    kept.write_text(json.dumps(stages_result().to_dict()))
    before = kept.read_text()
    with pytest.raises(ZooError, match=r"no report|is the page"):
        write_report([kept], tmp_path / out)
    assert kept.read_text() == before
    assert list(tmp_path.iterdir()) == [kept]
    write_report([kept], tmp_path / "page.html")
    write_report([kept], tmp_path / "page.html")  # a report of earlier is replaced
