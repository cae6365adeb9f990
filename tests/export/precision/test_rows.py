"""The rows of precisions and builders: what the command line and the docs read, without anything heavy."""

from __future__ import annotations

import importlib
import inspect
import subprocess
import sys
from typing import get_args

import click
import pytest
from onnx import ModelProto

from export.cli import export
from export.engine.builders import AUTO, BUILDERS, BuilderId, find_builder
from export.options import ExportOptions
from export.precision.rows import PRECISIONS, PlanPrecisionId, Precision, PrecisionId, Tolerance, find_precision
from zoo.errors import RowError, UnknownNameError

HEAVY = ("torch", "onnx", "onnxruntime", "numpy", "tensorrt", "tensorrt_rtx", "PIL", "rich")


@pytest.mark.parametrize("module", ["export.precision.rows", "export.engine.builders", "export.options", "export.cli"])
def test_the_rows_and_the_command_line_load_nothing_heavy(module: str) -> None:
    program = f"import sys, {module}; print([name for name in {HEAVY!r} if name in sys.modules])"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def choices(name: str) -> list[str]:
    """What the command line offers for an option."""
    parameter = next(parameter for parameter in export.params if parameter.name == name)
    assert isinstance(parameter.type, click.Choice)
    return list(parameter.type.choices)


def test_the_command_line_offers_the_rows_and_nothing_else() -> None:
    assert choices("trt") == [row.id for row in PRECISIONS] == list(get_args(PlanPrecisionId))
    assert choices("precision") == [id for id in choices("trt") if id != "tf32"] == list(get_args(PrecisionId))
    assert choices("builder") == [AUTO, *(row.id for row in BUILDERS)] == list(get_args(BuilderId))


def test_python_is_refused_what_the_command_line_refuses() -> None:
    with pytest.raises(RowError, match="trt is 'fp17'; expected fp32, tf32, fp16, bf16, int8 or fp8"):
        ExportOptions(model="tiny", trt="fp17")
    with pytest.raises(RowError, match="builder is 'tensort'; expected auto, tensorrt or tensorrt-rtx"):
        ExportOptions(model="tiny", builder="tensort")
    with pytest.raises(RowError, match=r"profiles\[0\] is 8, 1, 2; .* the smaller one first"):
        ExportOptions(model="tiny", profiles=((8, 1, 2),))


@pytest.mark.parametrize("row", PRECISIONS, ids=lambda row: row.id)
def test_every_precision_has_its_transform_and_a_tolerance_that_can_fail(row: Precision) -> None:
    assert find_precision(row.id) is row
    assert 0 <= row.tolerance.tie_margin < row.tolerance.max_error
    assert 0 < row.tolerance.mean_error <= row.tolerance.max_error < 1
    if row.transform:
        module, function = row.transform.split(":")
        assert list(inspect.signature(getattr(importlib.import_module(module), function)).parameters) == ["model"]
    else:
        graph = ModelProto()
        assert row.apply(graph) is graph


def test_a_precision_needs_a_row_and_a_file_only(monkeypatch: pytest.MonkeyPatch) -> None:
    """The transform is found by its name when it is applied, and not before."""
    row = Precision(
        id="fp4", transform="a_file_beside_it:to_fp4", tolerance=Tolerance(max_error=1, mean_error=1, tie_margin=0)
    )
    beside = type(sys)("a_file_beside_it")
    beside.to_fp4 = lambda model: ("fp4", model)  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "a_file_beside_it", beside)
    graph = ModelProto()
    assert row.apply(graph) == ("fp4", graph)


def test_unknown_names_tell_the_nearest() -> None:
    with pytest.raises(UnknownNameError, match="fp16"):
        find_precision("f16")
    with pytest.raises(UnknownNameError, match="tensorrt"):
        find_builder("tensort")
