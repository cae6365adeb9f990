"""The demo, step by step as `make demo` runs it, with the smallest network and the shortest schedule."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]


@pytest.mark.slow
def test_the_demo_runs_from_nothing_to_a_report(tmp_path: Path) -> None:
    pytest.importorskip("tensorrt_rtx", reason="the demo builds a plan: needs the rtx extra")
    command = [sys.executable, str(ROOT / "examples" / "demo.py"), "tiny", "--", "--epochs", "4"]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=300, check=False)
    assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-2000:]
    made = tmp_path / "demo"
    for name in ("tiny.onnx", "tiny.plan", "tiny.json", "runs/tiny/curves.svg", "benchmarks/report.html"):
        assert (made / name).stat().st_size > 1000, name
    assert json.loads((made / "tiny.json").read_text())["parity"]["onnx"]["passed"]
    for said in (
        "$ zoo train tiny --epochs 4",
        "$ zoo serve --engine tiny.onnx",
        "The server's answer to",
        "report.html",
    ):
        assert said in done.stdout
