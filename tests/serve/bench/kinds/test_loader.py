from __future__ import annotations

import pytest

from serve.bench.report.devices import group_by_device, headlines
from serve.bench.report.page import render_page
from zoo.errors import ZooError
from zoo.results import Result, measured_on


def loader_result(*, packed: bool = False) -> Result:
    rows = [
        {
            "pipeline": name,
            "image_size": 128,
            "n": 3,
            "pictures_per_second": {"p50": rate, "min": rate, "max": rate},
            "cpu_ms_per_picture": {"p50": 1000 / rate, "min": 1.0, "max": 9.0},
            "ours_over_theirs": {"p50": 1200 / rate, "min": 1.0, "max": 9.0},
            "for_gpu_over_theirs": {"p50": 1500 / rate, "min": 1.0, "max": 9.0},
        }
        for name, rate in (("zoo", 1200.0), ("zoo for a GPU", 1500.0), ("torchvision", 480.0), ("timm", 600.0))
    ]
    return Result(
        kind="loader",
        name="2-workers",
        environment=measured_on("CPU"),
        settings={"workers": 2, "packed": packed},
        data={"rows": rows},
    )


def test_loaders_are_shown_beside_ours() -> None:
    (runs,) = group_by_device([loader_result()])
    assert headlines(runs)[0] == (
        "Reading pictures for training at 128 px, the zoo is 2.0× to 2.5× as fast as torchvision's and timm's loaders; "
        "2.5× to 3.1× where a GPU augments."
    )
    page = render_page([runs])
    assert "Loading pictures, 2-workers" in page
    assert "torchvision" in page
    assert "1,200/s" in page


def test_packed_pictures_are_told_from_others() -> None:
    (runs,) = group_by_device([loader_result(packed=True)])
    assert headlines(runs)[0].startswith("Reading packed pictures for training at 128 px, the zoo is")
    assert "Loading packed pictures, 2-workers" in render_page([runs])


def test_a_damaged_loader_result_is_named() -> None:
    result = loader_result()
    damaged = Result(**{**vars(result), "data": {"rows": [{"pipeline": "zoo"}]}})
    with pytest.raises(ZooError, match="loader result") as error:
        group_by_device([damaged])
    assert "python benchmarks/loader.py" in error.value.hint
