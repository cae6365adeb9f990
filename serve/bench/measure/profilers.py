"""Owns what an engine says of its single layers, call by call: ONNX Runtime's profile, PyTorch's, TensorRT's.

It knows no stage: `serve.bench.measure.layer_names` says where a layer is. TensorRT's has not been run on a GPU yet.
"""

from __future__ import annotations

import json
import os
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from export.runners.onnx_runtime import OnnxRunner
from export.runners.runner import Runner
from export.runners.tensorrt import TensorRTRunner
from serve.bench.measure.engines import Bench, Prepared, open_prepared
from zoo.model.network import Network

# Calls before the first that counts: an engine allocates and chooses in them.
WARM_UP_CALLS = 3
# What PyTorch computes outside of the network, and in it outside of every module.
_OUTSIDE, _ROOT = "preprocessing", "pool"
_SILENT = "99"
_ORT_SUFFIX = "_kernel_time"


@dataclass(frozen=True)
class LayerSample:
    """One layer in one call: the engine's name of it, what kind it calls it, ms."""

    name: str
    kind: str
    ms: float


Call = Sequence[LayerSample]


@dataclass
class Profiled:
    """A runner whose calls are taken apart. `finish` gives every call but those of the warm-up, once."""

    runner: Runner
    run: Callable[[NDArray[np.uint8]], None]
    finish: Callable[[], list[Call]]


@contextmanager
def open_profiled(prepared: Prepared, bench: Bench) -> Iterator[Profiled]:
    """Open what was prepared in an engine that has a profiler, while the block lasts."""
    with ExitStack() as stack:
        trace = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="zoo-profile-"))) / "trace"
        runner = stack.enter_context(open_prepared(prepared, bench, profile=trace))
        if bench.engine.profiler == "onnxruntime":
            assert isinstance(runner, OnnxRunner)
            yield of_onnxruntime(runner)
        elif bench.engine.profiler == "tensorrt":
            assert isinstance(runner, TensorRTRunner)
            yield of_tensorrt(runner)
        else:
            yield of_torch(runner, prepared.network)


def of_onnxruntime(runner: OnnxRunner) -> Profiled:
    """By its own profiler, which reads the host's clock around every node."""

    def run(pictures: NDArray[np.uint8]) -> None:
        runner.infer(pictures)

    def finish() -> list[Call]:
        return read_onnxruntime(json.loads(runner.finish_profile().read_text(encoding="utf-8")))[WARM_UP_CALLS:]

    return Profiled(runner, run, finish)


def read_onnxruntime(events: Sequence[Mapping[str, Any]]) -> list[Call]:
    """The calls of a profile: nodes stand before the `model_run` they are of, microseconds each.

    A node's event is called after it, with `_kernel_time` behind.
    """
    calls: list[Call] = []
    nodes: list[LayerSample] = []
    for event in events:
        if event.get("cat") == "Node" and event["name"].endswith(_ORT_SUFFIX):
            kind = str(event.get("args", {}).get("op_name", ""))
            nodes.append(LayerSample(event["name"].removesuffix(_ORT_SUFFIX), kind, event["dur"] / 1000))
        elif event.get("cat") == "Session" and event["name"] == "model_run":
            calls.append(nodes)
            nodes = []
    return calls


def of_tensorrt(runner: TensorRTRunner) -> Profiled:
    """By an `IProfiler` of its execution context: CUDA events around every layer of the engine."""
    calls: list[list[LayerSample]] = []
    runner.profile_layers(lambda name, ms: calls[-1].append(LayerSample(name, "layer", ms)))

    def run(pictures: NDArray[np.uint8]) -> None:
        calls.append([])
        runner.infer(pictures)

    return Profiled(runner, run, lambda: list(calls[WARM_UP_CALLS:]))


@dataclass
class _Marks:
    """Open annotations of modules, innermost last: PyTorch's profiler then knows which module an operation is of."""

    open: list[Any] = field(default_factory=list)

    def enter(self, name: str) -> None:
        from torch.profiler import record_function

        mark = record_function(name)
        mark.__enter__()  # type: ignore[no-untyped-call]
        self.open.append(mark)

    def leave(self) -> None:
        self.open.pop().__exit__(None, None, None)


def of_torch(runner: Runner, network: Network) -> Profiled:
    """By PyTorch's profiler, with hooks that name the module at work; on a GPU it is the time of its kernels."""
    os.environ.setdefault("KINETO_LOG_LEVEL", _SILENT)  # it would print two lines a call
    marks, calls, hooks = _Marks(), list[Call](), list[Any]()
    for path, module in network.named_modules():
        name = f"{path}/{type(module).__name__}" if path else _ROOT

        def before(_module: Any, _args: Any, name: str = name) -> None:
            marks.enter(name)

        hooks.append(module.register_forward_pre_hook(before))
        hooks.append(module.register_forward_hook(lambda *_: marks.leave()))

    def run(pictures: NDArray[np.uint8]) -> None:
        from torch.profiler import ProfilerActivity, profile, record_function

        on_gpu = runner.threads is None
        activities = [ProfilerActivity.CPU, *([ProfilerActivity.CUDA] if on_gpu else [])]
        with profile(activities=activities) as profiled, record_function(_OUTSIDE):
            runner.infer(pictures)
        calls.append(read_torch(profiled.events(), on_gpu=on_gpu))

    def finish() -> list[Call]:
        for hook in hooks:
            hook.remove()
        return calls[WARM_UP_CALLS:]

    return Profiled(runner, run, finish)


def read_torch(events: Sequence[Any], *, on_gpu: bool) -> Call:
    """One call from PyTorch's events: what each annotated module took by itself, without the modules inside it."""

    def total(event: Any) -> float:
        return float(event.device_time_total if on_gpu else event.cpu_time_total) / 1000

    marks = [event for event in events if event.is_user_annotation and not str(event.device_type).endswith("CUDA")]
    own = {id(mark): total(mark) for mark in marks}
    for mark in marks:
        above = mark.cpu_parent
        while above is not None and id(above) not in own:
            above = above.cpu_parent
        if above is not None:
            own[id(above)] -= total(mark)
    return [LayerSample(mark.name, mark.name.rpartition("/")[2], max(own[id(mark)], 0.0)) for mark in marks]
