"""`zoo export` as a process that gets real signals while torch's exporter works."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
from pathlib import Path

import pytest

PATIENCE_S = 120.0


@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_a_stopped_export_leaves_nothing_behind(number: signal.Signals, code: int, tmp_path: Path) -> None:
    process = subprocess.Popen(
        [sys.executable, "-m", "zoo", "export", "tiny", "--random-weights", "--num-pictures", "4", "-o", "new/folder"],
        stderr=subprocess.PIPE,
        text=True,
        cwd=tmp_path,
        env=os.environ | {"PYTHONPATH": str(Path(__file__).parents[2])},
    )
    killer = threading.Timer(PATIENCE_S, process.kill)
    killer.start()
    assert process.stderr
    # A step is told when it is done; the next one is the exporter's.
    said = next((line for line in process.stderr if "Choose pictures" in line), "")
    assert said and list((tmp_path / "new/folder").glob(".tiny-export-*"))
    process.send_signal(number)
    rest = process.stderr.read()
    process.stderr.close()
    assert process.wait() == code
    killer.cancel()
    assert rest.split() == ["Stopped."]
    assert list(tmp_path.iterdir()) == []
