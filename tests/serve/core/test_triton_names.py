"""The names that Triton's dashboards ask for."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any

from prometheus_client.parser import text_string_to_metric_families

PATIENCE_S = 60.0
Start = Callable[..., Any]
LABELS = '{model="fake",version="1"}'


def test_a_scraper_reads_them_and_they_count_what_happened(start_server: Start, fake: Any) -> None:
    running = start_server(fake(fails_on=frozenset({13})), max_batch_size=4)
    for byte in (1, 2, 3):
        assert running.post(fake.png(byte)).status_code == 200
    assert running.post(b"broken").status_code == 400
    assert running.post(fake.png(13)).status_code == 500
    found = {
        sample.name.removesuffix("_total"): sample.value  # the parser puts it on every counter
        for family in text_string_to_metric_families(running.client.get("/metrics").text)
        for sample in family.samples
        if sample.name.startswith("nv_") and "reason" not in sample.labels
    }
    assert found["nv_inference_request_success"] == 3
    assert found["nv_inference_count"] == found["nv_inference_exec_count"] == 3
    assert found["nv_inference_pending_request_count"] == 0
    for stage in ("request", "compute_input"):
        assert found[f"nv_inference_{stage}_duration_us"] > 0
    assert running.metric(f'nv_inference_request_failure{LABELS[:-1]},reason="BACKEND"}}') == 1
    assert running.metric(f'nv_inference_request_failure{LABELS[:-1]},reason="OTHER"}}') == 1
    assert running.metric(f'nv_inference_request_failure{LABELS[:-1]},reason="REJECTED"}}') == 0


def test_every_name_has_a_type(start_server: Start) -> None:
    text = start_server().client.get("/metrics").text
    for name in set(re.findall(r"^(nv_\w+)[{ ]", text, re.MULTILINE)):
        assert f"# TYPE {name} " in text and f"# HELP {name} " in text
