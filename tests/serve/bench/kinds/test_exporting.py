from __future__ import annotations

from typing import Any

from serve.bench.kinds.exporting import ExportingData
from serve.bench.report.devices import group_by_device, headlines
from serve.bench.report.page import render_page
from zoo.results import Result, Subject, measured_on


def run_of(cpu_s: float, peak: int) -> dict[str, Any]:
    steps = [("Start Python and import", 2.0, peak // 2), ("Build the fp16 plan", cpu_s - 2.0, peak)]
    return {"steps": [{"what": what, "wall_s": 2 * cpu, "cpu_s": cpu, "peak_bytes": held} for what, cpu, held in steps]}


ROW = {
    "network": "s",
    "image_size": 384,
    "options": "--trt fp16",
    "threads": 2,
    "compared": 64,
    "calibrated": None,
    "built_by": "tensorrt-rtx 1.7",
    "onnx_bytes": 86_000_000,
    "runs": [run_of(50.0, 1_800_000_000), run_of(40.0, 1_900_000_000), run_of(45.0, 1_700_000_000)],
}


CALIBRATED = ROW | {"options": "--precision int8", "calibrated": 128, "built_by": ""}


def exporting_result() -> Result:
    subject = Subject(name="s 384px", threads=2)
    return Result(
        kind="exporting",
        name="s at 384 px, 2 threads",
        environment=measured_on("CPU"),
        settings={"subjects": [subject.to_dict()], "runs": 3, "threads": 2},
        data=ExportingData.from_dict({"rows": [ROW, CALIBRATED]}).to_dict(),
    )


def test_medians_and_the_largest_memory_are_said() -> None:
    (runs,) = group_by_device([exporting_result()])
    said, of_int8 = headlines(runs)
    assert of_int8.startswith("`zoo export s --precision int8` at 384 px takes")
    assert said == (
        "`zoo export s --trt fp16` at 384 px takes 45.0 s of a processor and 1.90 GB of memory (n = 3), with 64 "
        "pictures through the gate."
    )
    page = render_page([runs])
    for words in ("tensorrt-rtx 1.7", "Build the fp16 plan", "43.0", "1.90"):
        assert words in page


def test_the_run_in_the_middle_is_shown_step_by_step() -> None:
    row, _ = ExportingData.from_dict(exporting_result().data).rows
    assert row.usual.cpu_s == 45.0 and row.usual.wall_s == 90.0 and row.usual.peak_bytes == 1_700_000_000
