from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from serve.bench.report.devices import group_by_device, headlines
from serve.bench.report.page import render_page
from zoo.errors import ZooError
from zoo.results import Result, measured_on


def progressive_result(**changes: Any) -> Result:
    times = {"progressive": 50.0, "size only": 55.0, "fixed": 100.0}
    epochs = [{"seconds": 25.0, "val_top1": 0.4}, {"seconds": 25.0, "val_top1": 0.6}]
    rows = [
        {
            "arm": arm,
            "seed": seed,
            "top1": 0.60 + 0.01 * seed,
            "seconds": seconds + seed,
            "processor_seconds": 1.0,
            "epochs": epochs,
        }
        | changes
        for seed in (0, 1, 2)
        for arm, seconds in times.items()
    ]
    return Result(kind="progressive", name="b0-64px", environment=measured_on("CPU"), settings={}, data={"rows": rows})


def test_ways_of_training_are_held_against_the_last_one() -> None:
    (runs,) = group_by_device([progressive_result()])
    assert headlines(runs)[0] == (
        "Trained the same number of epochs, b0-64px reaches 61.0 ± 1.0 % with a fixed picture size; progressive "
        "61.0 ± 1.0 % in 50 % and size only 61.0 ± 1.0 % in 55 % of that time (3 seeds each)."
    )
    page = render_page([runs])
    for said in ("Accuracy over time", "60.0, 61.0, 62.0", "size only", "1\N{NO-BREAK SPACE}min 41\N{NO-BREAK SPACE}s"):
        assert said in page


def test_arms_without_the_same_seeds_are_no_comparison() -> None:
    result = progressive_result()
    with pytest.raises(ZooError, match="different seeds"):
        group_by_device([replace(result, data={"rows": result.data["rows"][:-1]})])
