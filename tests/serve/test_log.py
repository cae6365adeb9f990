"""A log for programs: one JSON object a line."""

from __future__ import annotations

import json
import logging
from collections.abc import Callable
from typing import Any

import pytest

from serve.log import JsonLines, start_log


def test_a_request_is_an_object_with_the_split_of_its_time(
    start_server: Callable[..., Any], fake: Any, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO, "serve.web.access")
    running = start_server()
    running.post(fake.png(1), headers={"x-request-id": "mine"})
    running.client.get("/evil%0aline")
    running.stop()
    records = [record for record in caplog.records if record.name == "serve.web.access"]
    first, second = (json.loads(JsonLines().format(record)) for record in records)
    assert (first["method"], first["path"], first["status"], first["id"]) == ("POST", "/predict", 200, "mine")
    assert first["level"] == "info" and first["client"] == "127.0.0.1" and first["batch_size"] == 1
    parts = [first[f"{stage}_ms"] for stage in ("decode", "queue", "compute")]
    assert sum(parts) <= first["total_ms"] + 0.01 <= first["took_ms"] + 0.02
    assert (second["path"], second["status"]) == ("/evil\nline", 404)
    assert all("\n" not in JsonLines().format(record) for record in records)


def test_a_fault_is_an_object_with_its_traceback(capsys: pytest.CaptureFixture[str]) -> None:
    kept = logging.getLogger().handlers[:], logging.getLogger().level
    try:
        start_log("warning", "json")
        try:
            raise RuntimeError("broken\nin two lines")
        except RuntimeError:
            logging.getLogger("serve").exception("It failed.")
    finally:
        logging.getLogger().handlers[:], level = kept
        logging.getLogger().setLevel(level)
    (line,) = capsys.readouterr().err.splitlines()
    fields = json.loads(line)
    assert fields["message"] == "It failed." and "in two lines" in fields["traceback"]
