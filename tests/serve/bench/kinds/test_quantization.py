from __future__ import annotations

from typing import Any

from serve.bench.report.devices import group_by_device, headlines
from serve.bench.report.page import render_page
from zoo.results import Result, measured_on, summarize


def row(how: str, layout: str, agreement: float, time_share: float | None) -> dict[str, Any]:
    """One form of a network that has 90 % right in float32."""
    timed = None if time_share is None else summarize([time_share * value for value in (9.0, 10.0, 11.0)]).to_dict()
    return {
        "network": "lite0 of 10 classes",
        "pictures": "cifar10/test",
        "n": 2000,
        "precision": "int8",
        "layout": layout,
        "how": how,
        "kept": ["stem", "stages.1.block.0.depthwise"],
        "kept_macs_share": 0.04,
        "agreement": agreement,
        "relative_rms_error": 0.05,
        "top1": 0.899,
        "float32_top1": 0.9025,
        "bytes": 4_900_000,
        "latency": timed,
        "float32_latency": timed and summarize([9.0, 10.0, 11.0]).to_dict(),
    }


def test_a_result_says_what_the_exported_form_keeps_and_takes() -> None:
    rows = [row("nearest step, min–max", "onnxruntime", 0.85, 0.5), row("as exported", "onnxruntime", 0.991, 0.52)]
    rows.append(row("as exported", "tensorrt", 0.98, None))
    result = Result(kind="quantization", name="all", environment=measured_on("CPU"), settings={}, data={"rows": rows})
    (runs,) = group_by_device([result])
    (said,) = headlines(runs)
    assert said == (
        "lite0 of 10 classes in int8 keeps 99.1% of its answers on 2,000 pictures (90.25% right before, 89.90% after), "
        "in 52% of float32's time in ONNX Runtime, one picture at a time."
    )
    page = render_page([runs])
    for shown in ("nearest step", "stem and stages.1.block.0.depthwise", "99.1%", "tensorrt"):
        assert shown in page
