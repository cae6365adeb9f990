from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from export.runners.tensorrt import TensorRTRunner
from serve.bench.engine_rows import find_engine
from serve.bench.measure.engines import Bench, prepare_artifact
from serve.bench.measure.forms import build_form, contract_of
from serve.bench.measure.layer_names import place_of
from serve.bench.measure.pictures import random_pictures
from serve.bench.measure.places import places
from serve.bench.measure.profilers import (
    WARM_UP_CALLS,
    LayerSample,
    of_tensorrt,
    open_profiled,
    read_onnxruntime,
    read_torch,
)
from zoo.model.variants import find_variant

TINY = find_variant("tiny")
PLACE = list(places(TINY, 16))[2]


def a_node(name: str, op: str, us: int) -> dict[str, Any]:
    return {"cat": "Node", "name": f"{name}_kernel_time", "dur": us, "args": {"op_name": op}}


def test_a_profile_of_onnx_runtime_is_read_call_by_call() -> None:
    run = {"cat": "Session", "name": "model_run", "dur": 99}
    events = [
        {"cat": "Session", "name": "session_initialization", "dur": 5},
        a_node("stages.1.block.0.fused.conv/Conv_nchwc", "Conv", 40),
        {"cat": "Node", "name": "stages.1.block.0.fused.conv/Conv_nchwc_fence_before", "dur": 1, "args": {}},
        a_node("ReorderOutput", "ReorderOutput", 8),
        run,
        a_node("stages.1.block.0.fused.conv/Conv_nchwc", "Conv", 50),
        run,
    ]
    first, second = read_onnxruntime(events)
    assert first == [
        LayerSample("stages.1.block.0.fused.conv/Conv_nchwc", "Conv", 0.04),
        LayerSample("ReorderOutput", "ReorderOutput", 0.008),
    ]
    assert second == [LayerSample("stages.1.block.0.fused.conv/Conv_nchwc", "Conv", 0.05)]


@pytest.mark.parametrize("engine", ["ort-cpu", "torch"])
def test_a_real_profile_names_every_layer_of_the_stage(engine: str, tmp_path: Path) -> None:
    bench = Bench(engine=find_engine(engine), precision="fp32", batch_size=2, folder=tmp_path, device="cpu", threads=1)
    stage = build_form(TINY, PLACE, PLACE.stage)
    prepared = prepare_artifact(stage, contract_of(stage, PLACE), bench, "stage")
    pictures = random_pictures(2, prepared.contract.preprocessing.image_size)
    with open_profiled(prepared, bench) as profiled:
        for _ in range(WARM_UP_CALLS + 4):
            profiled.run(pictures)
        calls = profiled.finish()
    assert len(calls) == 4
    for call in calls:
        found = [place_of(layer.name) for layer in call]
        assert {place.stage for place in found if place.known} <= {3, None}
        for block in (0, 1):
            operators = {place.operator for place in found if (place.stage, place.block) == (3, block)}
            assert operators >= {"expand", "depthwise", "se", "project"}
        assert all(layer.ms >= 0 for layer in call)
        assert sum(layer.ms for layer in call) > 0
    hooks = [hook for module in stage.modules() for hook in (*module._forward_hooks, *module._forward_pre_hooks)]
    assert not hooks


def an_event(name: str, ms: float, parent: Any = None, *, mark: bool = True) -> Any:
    fields = {"name": name, "cpu_time_total": ms * 1000, "device_time_total": ms * 500, "cpu_parent": parent}
    return SimpleNamespace(**fields, is_user_annotation=mark, device_type="DeviceType.CPU")


def test_a_module_has_its_own_time_without_the_modules_inside_it() -> None:
    outer = an_event("stages.1.block.0/Block", 10)
    operation = an_event("aten::something", 7, outer, mark=False)
    inner = an_event("stages.1.block.0.fused/ConvNormAct", 6, operation)
    found = {layer.name: layer.ms for layer in read_torch([outer, operation, inner], on_gpu=False)}
    assert found == pytest.approx({"stages.1.block.0/Block": 4, "stages.1.block.0.fused/ConvNormAct": 6})
    on_gpu = {layer.name: layer.ms for layer in read_torch([outer, operation, inner], on_gpu=True)}
    assert on_gpu == pytest.approx({"stages.1.block.0/Block": 2, "stages.1.block.0.fused/ConvNormAct": 3})


class FakeTensorRT:
    """An execution context that reports its layers to the profiler it was given, as TensorRT's does."""

    def __init__(self) -> None:
        self.context = SimpleNamespace(profiler=None)
        self.made = 0
        outer = self

        class IProfiler:
            def __init__(self) -> None:
                outer.made += 1

        self.module = SimpleNamespace(IProfiler=IProfiler)

    def runner(self) -> TensorRTRunner:
        runner = object.__new__(TensorRTRunner)
        fields: Any = vars(runner)
        fields["_tensorrt"], fields["_context"] = SimpleNamespace(module=self.module), self.context
        fields["infer"] = self.infer
        return runner

    def infer(self, pictures: Any) -> None:
        assert self.context.profiler, "nobody listens"
        self.context.profiler.report_layer_time("stages.1.block.0.fused.conv/Conv", 0.25)
        self.context.profiler.report_layer_time("Reformatting CopyNode", 0.5)


def test_tensorrt_reports_layer_by_layer_to_an_iprofiler() -> None:
    fake = FakeTensorRT()
    profiled = of_tensorrt(fake.runner())
    assert fake.made == 1  # its own __init__ was called, which the bindings ask for
    for _ in range(WARM_UP_CALLS + 2):
        profiled.run(np.zeros((1, 8, 8, 3), np.uint8))
    calls = profiled.finish()
    assert len(calls) == 2
    assert calls[0] == [
        LayerSample("stages.1.block.0.fused.conv/Conv", "layer", 0.25),
        LayerSample("Reformatting CopyNode", "layer", 0.5),
    ]


@pytest.mark.parametrize("module_name", ["tensorrt_rtx"])
def test_the_real_bindings_have_what_is_called(module_name: str) -> None:
    bindings = pytest.importorskip(module_name)
    assert {"report_layer_time"} <= set(dir(bindings.IProfiler))
    assert "profiler" in dir(bindings.IExecutionContext)
    assert "enqueue_emits_profile" in dir(bindings.IExecutionContext)
