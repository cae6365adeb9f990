"""Owns the rows of engines that the harness compares forms in: a back end, where it computes, in what; it opens none.

They import nothing heavy, so that the command line can read them; opening is `serve.bench.measure.engines`.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated, Literal

from export.backends import BackendId, find_backend
from zoo.errors import look_up
from zoo.machine import Device
from zoo.rows import Row, Some, Text

# Whose figures of single layers there are: `serve.bench.measure.profilers` reads each.
Profiler = Literal["onnxruntime", "torch", "tensorrt"]


@dataclass(frozen=True, kw_only=True)
class EngineRow(Row):
    """One engine: a back end of `export.backends` on one kind of device.

    `builder` makes the plans of those that open one. `precisions` are those its runner really computes in. `profiler`
    is None where an engine does not say what its layers take, and `why` then says so.
    """

    id: Text
    name: Text
    backend: BackendId
    device: Device
    builder: str = ""
    precisions: Annotated[tuple[str, ...], Some()]
    profiler: Profiler | None = None
    why: str = ""

    @property
    def opens_graphs(self) -> bool:
        """Whether it is given an ONNX graph, or a plan made of one; the others are given PyTorch's modules."""
        return find_backend(self.backend).opens != "checkpoint"

    def graph_precision(self, asked: str) -> str:
        """What its graph is in, for a precision asked for: a back end that rounds float32 by itself gets float32."""
        return "fp32" if find_backend(self.backend).computes else asked


_NO_NODES = "its runner keeps no profile"
_NO_PROFILE = "what PyTorch compiles has no layers of ours any more"
# ONNX Runtime computes bf16 graphs on no processor, and its profiler measures launches on a GPU, not kernels
# (onnxruntime/core/framework/sequential_executor.cc reads the host's clock around each kernel's Compute).
ENGINES = (
    EngineRow(
        id="ort-cpu",
        name="ONNX Runtime on the processor",
        backend="onnxruntime",
        device="cpu",
        precisions=("fp32", "fp16", "int8"),
        profiler="onnxruntime",
    ),
    EngineRow(
        id="ort-cuda",
        name="ONNX Runtime on CUDA",
        backend="onnxruntime",
        device="cuda",
        precisions=("fp32", "fp16"),
        why="its profiler measures launches on a GPU, not kernels",
    ),
    EngineRow(
        id="ort-cuda-graph",
        name="ONNX Runtime in a CUDA graph",
        backend="onnxruntime-cuda-graph",
        device="cuda",
        precisions=("fp32", "fp16"),
        why="a CUDA graph is one launch",
    ),
    EngineRow(
        id="tensorrt",
        name="TensorRT",
        backend="tensorrt",
        device="cuda",
        builder="tensorrt",
        precisions=("fp32", "fp16", "bf16", "int8", "fp8"),
        profiler="tensorrt",
    ),
    EngineRow(
        id="tensorrt-rtx",
        name="TensorRT-RTX",
        backend="tensorrt",
        device="cuda",
        builder="tensorrt-rtx",
        precisions=("fp32", "fp16", "bf16", "int8", "fp8"),
        profiler="tensorrt",
    ),
    EngineRow(
        id="torch", name="PyTorch, eager", backend="torch", device="auto", precisions=("fp32",), profiler="torch"
    ),
    EngineRow(
        id="compile",
        name="torch.compile",
        backend="torch-compile",
        device="auto",
        precisions=("fp32",),
        why=_NO_PROFILE,
    ),
    EngineRow(id="aot", name="AOTInductor", backend="torch-aot", device="auto", precisions=("fp32",), why=_NO_PROFILE),
    EngineRow(
        id="openvino",
        name="OpenVINO",
        backend="openvino",
        device="cpu",
        precisions=("fp32", "fp16", "int8"),
        why=_NO_NODES,
    ),
    EngineRow(
        id="openvino-bf16",
        name="OpenVINO in bf16",
        backend="openvino-bf16",
        device="cpu",
        precisions=("bf16",),
        why=_NO_NODES,
    ),
)
# What a field or an option may hold. A type checker cannot read the rows, so for it an id is any text.
if TYPE_CHECKING:
    EngineId = str
else:
    EngineId = Literal[tuple(row.id for row in ENGINES)]


def find_engine(id: str) -> EngineRow:
    """Look an engine up by its id.

    Raises:
        UnknownNameError: there is none; names the nearest.
    """
    return look_up({row.id: row for row in ENGINES}, id, kind="engine", hint="`zoo bench stages --help` lists them.")
