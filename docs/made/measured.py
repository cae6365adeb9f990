"""Owns the table of docs/measured.md: which engine was timed on what, as the committed results have it."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator

from made.markdown import code, table
from made.results import BENCHMARKS
from serve.bench.engine_rows import ENGINES, find_engine
from serve.bench.kind import find_kinds, read_data
from serve.bench.measure.latency_data import LatencyData
from serve.bench.measure.latency_table_data import LatencyTableData
from serve.bench.measure.stages import StagesData
from serve.bench.measure.table3 import FusionData
from zoo.results import Result, read_results
from zoo.wording import joined, plain_name

# What `benchmarks/backends.py` and older results call an engine.
_BACKENDS = {
    "onnxruntime": "ort-cpu",
    "openvino": "openvino",
    "openvino-bf16": "openvino-bf16",
    "torch": "torch",
    "torch-compile": "compile",
    "torch-aot": "aot",
}
# How a runner names itself begins so.
_RUNNERS = {"onnxruntime": "ort-cpu", "openvino": "openvino", "torch": "torch", "TensorRT-RTX": "tensorrt-rtx"}


def engines(rest: str, body: str) -> str:
    """A line for each engine: the devices it was timed on and the kinds of result, or that it never was."""
    seen: dict[str, dict[str, set[str]]] = defaultdict(lambda: defaultdict(set))
    for result in read_results([BENCHMARKS], find_kinds()):
        for engine in _timed(result):
            seen[engine][plain_name(result.device)].add(result.kind)
    lines = []
    for row in ENGINES:
        where = seen.get(row.id, {})
        said = [f"{device} ({joined(sorted(kinds))})" for device, kinds in sorted(where.items())]
        lines.append([code(row.id), row.name, joined(said) or "never"])
    return table(["engine", "", "timed on"], lines)


def _timed(result: Result) -> Iterator[str]:
    """The engines whose times are in a result."""
    _, run = read_data(result)
    if isinstance(run.data, StagesData):
        yield run.data.engine
    elif isinstance(run.data, LatencyTableData):
        yield run.data.table.engine
    elif isinstance(run.data, FusionData):
        yield from (told.engine for told in run.data.passes)
    elif isinstance(run.data, LatencyData):
        yield from (_of_runner(artifact.backend) for artifact in run.data.artifacts)
    elif result.kind == "backends":
        yield from (_BACKENDS[row.backend] for row in run.data.rows)


def _of_runner(words: str) -> str:
    """The engine whose runner names itself so: “onnxruntime 1.31.1 CUDAExecutionProvider CUDA graph”."""
    if "CUDAExecutionProvider" in words:
        return "ort-cuda-graph" if words.endswith("CUDA graph") else "ort-cuda"
    compiled = {"torch.compile": "compile", "AOTInductor": "aot"}
    found = next((id for name, id in compiled.items() if words.endswith(name)), None)
    if words.endswith("bf16"):
        return "openvino-bf16"
    return found or _RUNNERS.get(words.split()[0]) or find_engine("tensorrt").id
