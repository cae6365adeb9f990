"""Owns what docs/measured.md and the README say of what was timed on what, as the committed results have it."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Mapping
from functools import cache

from made.markdown import code, table
from made.results import BENCHMARKS
from serve.bench.engine_rows import ENGINES, EngineRow, find_engine
from serve.bench.kind import find_kinds, read_data
from serve.bench.measure.frontier import FrontierData
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
# What is known of engines of a GPU without a figure of theirs, by the ids that share it; said as long as none has one.
_UNTIMED = {
    ("tensorrt", "tensorrt-rtx"): (
        "Plans of stages and of whole networks are really built, by TensorRT-RTX on a machine without a GPU, with the "
        "passport that their runner asks for. The runner, its `IProfiler` and the reading of layer names are written "
        "against the documented API and tested with fakes and with the real bindings' names. They have never run. bf16 "
        "and fp8 stages exist for TensorRT alone, so they have not been timed either."
    ),
    ("ort-cuda", "ort-cuda-graph"): (
        "Chosen, bound and refused in tests. Its profiler measures launches on a GPU, so there is no "
        "in-place figure of it, and the page says so."
    ),
}

Seen = Mapping[str, Mapping[str, set[str]]]


def said(rest: str, body: str) -> str:
    """`measured engines`, `measured devices`, `measured open`, `measured gpu`."""
    return {"engines": engines, "devices": devices, "open": still_open, "gpu": on_gpus}[rest]()


def engines() -> str:
    """A line for each engine: the devices it was timed on and the kinds of result, or that it never was."""
    seen, lines = timed(), []
    for row in ENGINES:
        where = seen.get(row.id, {})
        told = [f"{device} ({joined(sorted(kinds))})" for device, kinds in sorted(where.items())]
        lines.append([code(row.id), row.name, joined(told) or "never"])
    return table(["engine", "", "timed on"], lines)


def devices() -> str:
    """A line for each device: what it is, how many results are of it, of which kinds and days."""
    found: dict[str, list[Result]] = defaultdict(list)
    for result in committed():
        found[plain_name(result.device)].append(result)
    lines = []
    for device, results in sorted(found.items()):
        days = sorted(str(result.environment.get("time", ""))[:10] for result in results)
        kinds = joined(sorted({result.kind for result in results}))
        kind = "GPU" if any(is_of_gpu(result) for result in results) else "processor"
        span = days[0] if days[0] == days[-1] else f"{days[0]} to {days[-1]}"
        lines.append([device, kind, str(len(results)), kinds, span])
    return table(["device", "", "results", "of", "measured"], lines, right=(2,))


def still_open() -> str:
    """What is not known because no result has it; nothing once every engine has one on a GPU that can."""
    seen = timed()
    gpus = {plain_name(result.device) for result in committed() if is_of_gpu(result)}
    lines = []
    for ids, words in _UNTIMED.items():
        never = [find_engine(id).name for id in ids if id not in seen]
        if never:
            lines.append(f"- **{joined(never)}**: never timed. {words}\n")
    both = [row for row in ENGINES if row.device == "auto" and not gpus & seen.get(row.id, {}).keys()]
    if both:
        names = joined(_short(row) for row in both)
        lines.append(
            f"- **{names}** on a GPU: never timed. They compute fp32; fp16 and bf16 stages come from engines that open "
            "graphs.\n"
        )
    return "".join(lines) or "Nothing: every engine has been timed where it computes.\n"


def on_gpus() -> str:
    """Whether anything ran on a GPU, in a sentence."""
    gpus = sorted({plain_name(result.device) for result in committed() if is_of_gpu(result)})
    if not gpus:
        return "Nothing in `benchmarks/` ran on a GPU yet: every figure is of a processor.\n"
    kinds = joined(sorted({result.kind for result in committed() if is_of_gpu(result)}))
    return f"On {joined(gpus)} there are results of {kinds} in `benchmarks/`; all other figures are of a processor.\n"


@cache
def committed() -> tuple[Result, ...]:
    """Every result of benchmarks/."""
    return tuple(read_results([BENCHMARKS], find_kinds()))


def is_of_gpu(result: Result) -> bool:
    """Whether a GPU did the work: a result of a processor is of the processor that its environment names."""
    return result.device != result.environment["processor"]


def timed() -> Seen:
    """Engine → device → kinds of result."""
    seen: dict[str, dict[str, set[str]]] = defaultdict(lambda: defaultdict(set))
    for result in committed():
        for engine in _timed(result):
            seen[engine][plain_name(result.device)].add(result.kind)
    return seen


def _short(row: EngineRow) -> str:
    return row.name.partition(",")[0]


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
    elif isinstance(run.data, FrontierData):
        yield _of_runner(run.data.engine)
    elif result.kind == "backends":
        yield from (_BACKENDS[row.backend] for row in run.data.rows)
    elif result.kind == "train":
        yield "compile" if result.settings.get("compiled") else "torch"


def _of_runner(words: str) -> str:
    """The engine whose runner names itself so: “onnxruntime 1.31.1 CUDAExecutionProvider CUDA graph”."""
    if "CUDAExecutionProvider" in words:
        return "ort-cuda-graph" if words.endswith("CUDA graph") else "ort-cuda"
    compiled = {"torch.compile": "compile", "AOTInductor": "aot"}
    found = next((id for name, id in compiled.items() if words.endswith(name)), None)
    if words.endswith("bf16"):
        return "openvino-bf16"
    return found or _RUNNERS.get(words.split()[0]) or find_engine("tensorrt").id
