from __future__ import annotations

from serve.bench.report.devices import group_by_device, headlines
from serve.bench.report.page import render_page
from zoo.results import Result, measured_on


def conditioning_result() -> Result:
    rows = [
        {
            "network": network,
            "image_size": 96,
            "branch_scale": scale,
            "relative_rms_error": error,
            "relative_max_error": error,
            "relative_mean_error": error / 10,
            "largest_logit": 2.5,
            "spread": 0.2,
            "classes": 21,
            "top1_agreement": 1.0,
            "passed": error < 1e-4,
            "n": 30,
        }
        for network, scale, error in (("m", 1.0, 0.7), ("m", 0.2, 3.5e-6), ("s", 0.2, 2.2e-6))
    ]
    return Result(kind="conditioning", name="all", environment=measured_on("CPU"), settings={}, data={"rows": rows})


def test_conditioning_says_the_worst_of_what_is_exported() -> None:
    (runs,) = group_by_device([conditioning_result()])
    (said,) = headlines(runs)
    assert said == (
        "fp32 computes 2 networks with random weights (all) within the gate's tolerance in 2 of 2 measurements; the "
        "largest RMS error against fp64 is 3.5e-06 (m at 96 px)."
    )
    page = render_page([runs])
    for shown in ("× 0.2", "7.0e-01", "21 of 30", "passed", "failed"):
        assert shown in page
