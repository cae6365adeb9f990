from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from serve.bench.report.comparison import compare_results
from serve.bench.report.report import write_report
from zoo.errors import ZooError
from zoo.results import Result, write_result

Make = Callable[..., Result]
Edit = Callable[[dict[str, Any]], object]


def rename_the_artifact(fields: dict[str, Any]) -> None:
    fields["data"]["artifacts"][0]["artifact"] = "another.onnx"


# Values that their fields can hold, and that something else does not fit.
EDITS: dict[str, Edit] = {
    "an artifact without rows": rename_the_artifact,
    "a command that is no text": lambda fields: fields["environment"].update(command={"a": 1}),
    "subjects that are none": lambda fields: fields["settings"].update(subjects=5),
    "a subject that is no row": lambda fields: fields["settings"].update(subjects=["s.onnx"]),
    "a schedule that says nothing": lambda fields: fields["settings"].update(schedule={}),
    "a schedule of words": lambda fields: fields["settings"].update(schedule={"duration_ms": "long"}),
    "clocks that are no range": lambda fields: fields["data"].update(gpu={"sm_clock_mhz": 3}),
}


@pytest.mark.parametrize("edit", EDITS.values(), ids=EDITS)
def test_a_result_edited_by_hand_is_named_by_its_file(edit: Edit, latency_result: Make, tmp_path: Path) -> None:
    write_result(tmp_path, latency_result(["good.onnx"]))
    fields = latency_result(["s.onnx"]).to_dict()
    edit(fields)
    edited = tmp_path / "edited.json"
    edited.write_text(json.dumps(fields))
    with pytest.raises(ZooError, match=r"edited\.json: .") as error:
        write_report([tmp_path], tmp_path / "page" / "report.html")
    assert "`zoo bench latency`" in error.value.hint
    assert not (tmp_path / "page").exists()


def test_what_a_comparison_does_not_use_may_be_damaged(latency_result: Make, tmp_path: Path) -> None:
    before = write_result(tmp_path, latency_result(["s.onnx"]))
    fields = latency_result(["s.onnx"]).to_dict()
    fields["environment"] |= {"command": {"a": 1}, "packages": None}
    (tmp_path / "after.json").write_text(json.dumps(fields))
    assert compare_results(before, tmp_path / "after.json", 5.0).verdict == "even"
    fields["settings"]["subjects"] = 5
    (tmp_path / "after.json").write_text(json.dumps(fields))
    with pytest.raises(ZooError, match=r"after\.json: The latency result"):
        compare_results(before, tmp_path / "after.json", 5.0)


def test_the_page_is_a_file(latency_result: Make, tmp_path: Path) -> None:
    write_result(tmp_path, latency_result(["s.onnx"]))
    with pytest.raises(ZooError, match="is a folder") as error:
        write_report([tmp_path], tmp_path)
    assert error.value.hint.endswith("report.html")
