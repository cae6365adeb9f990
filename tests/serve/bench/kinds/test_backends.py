from __future__ import annotations

import pytest

from serve.bench.kinds.backends import BackendsData
from serve.bench.report.devices import group_by_device, headlines
from serve.bench.report.page import render_page
from zoo.errors import RowError
from zoo.results import Result, measured_on, summarize


def row(backend: str, ms: float, agreement: float) -> dict[str, object]:
    return {
        "network": "lite0",
        "image_size": 224,
        "batch_size": 1,
        "random_weights": False,
        "backend": backend,
        "version": f"{backend} 1.0",
        "precision": "bf16" if backend == "openvino-bf16" else "fp32",
        "latency": summarize([ms] * 20).to_dict(),
        "over_baseline": {"p50": ms / 5, "low": ms / 5, "high": ms / 5, "n": 20},
        "relative_max_error": 0.1,
        "relative_mean_error": 0.01,
        "top1_agreement": agreement,
        "pictures": 252,
    }


ROWS = [row("onnxruntime", 5.0, 1.0), row("openvino", 4.0, 1.0), row("openvino-bf16", 2.5, 0.96)]


def result(rows: list[dict[str, object]]) -> Result:
    data = {"rows": rows, "baseline": "onnxruntime", "source": "crops of photographs", "absent": ["torch-aot: no g++"]}
    return Result(kind="backends", name="1 thread", environment=measured_on("CPU"), settings={}, data=data)


def test_the_fastest_back_end_is_named_with_what_it_costs() -> None:
    (runs,) = group_by_device([result(ROWS)])
    (said,) = headlines(runs)
    assert "fastest in openvino-bf16: 2.50 ms for a batch of 1, 50 % of the time in onnxruntime (n = 20)" in said
    assert "on 96 % of 252 pictures" in said
    page = render_page([runs])
    for words in ("trained weights", "0.80 (0.80 – 0.80)", "1.0e-01", "Not measured: torch-aot: no g++."):
        assert words in page


def test_without_the_baseline_nothing_is_compared() -> None:
    with pytest.raises(RowError, match="lite0 was not measured in onnxruntime"):
        BackendsData.from_dict(result(ROWS[1:]).data)
