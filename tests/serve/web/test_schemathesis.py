"""Requests that schemathesis makes of the description, wrong ones among them: every answer is one that it promises."""

from __future__ import annotations

import importlib.util
import re
import subprocess
import sys
from typing import Any

import pytest


@pytest.mark.slow
def test_every_answer_is_a_described_one(server: Any) -> None:
    if importlib.util.find_spec("schemathesis") is None:
        pytest.skip("pip install schemathesis")
    url = f"http://127.0.0.1:{server.port}/openapi.json"
    # What fits the description may still be no picture, or not the model's input: it is refused, rightly.
    options = ["--exclude-checks", "positive_data_acceptance", "--max-examples", "10", "--no-color"]
    done = subprocess.run(
        [sys.executable, "-m", "schemathesis.cli", "run", url, *options],
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
    assert done.returncode == 0, done.stdout[-4000:]
    selected, tested = (re.search(rf"{word}: +(\d+)", done.stdout) for word in ("Selected", "Tested"))
    # All but the description itself.
    assert selected and tested and int(selected[1]) == int(tested[1]) == len(server.server.config.app.routes) - 1
