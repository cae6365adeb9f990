"""Owns how a network in memory becomes a runner of an engine, in one precision; which engines there are is rows.

Graphs are made by the project's own exporter and opened by `open_runner`, as artifacts are; what is timed is `infer`.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from onnx import ModelProto

from export.backends import choose_backend
from export.contract import Contract
from export.engine.build import choose_builder, compute_capabilities, engine_from_onnx
from export.engine.builders import CLASSIC, RTX, BatchProfile, EngineSettings
from export.engine.tensorrt_api import installed_module, load_tensorrt
from export.graph import export_onnx
from export.interface import as_input
from export.passport import CheckpointCard, FileCard, FileCards, Parities, Passport, passport_path, write_passport
from export.precision.fp16 import to_fp16
from export.precision.qdq import ONNX_RUNTIME, TENSORRT
from export.precision.quantize import calibrate
from export.precision.rows import find_precision
from export.runners.compiled import AHEAD_OF_TIME, JUST_IN_TIME
from export.runners.onnx_runtime import OnnxRunner
from export.runners.open import open_runner
from export.runners.pytorch import TorchRunner
from export.runners.runner import Runner
from serve.bench.engine_rows import EngineRow, find_engine
from serve.bench.measure.pictures import random_pictures
from zoo.errors import MissingCapabilityError, VerdictError, ZooError
from zoo.files import write_bytes
from zoo.machine import Device, choose_device, cuda_driver, environment
from zoo.model.network import Network
from zoo.wording import joined

_COMPILERS = {"torch": None, "torch-compile": JUST_IN_TIME, "torch-aot": AHEAD_OF_TIME}
# Ranges of random weights on random pictures decide no accuracy here, only that there are some.
CALIBRATION_PICTURES = 8
# Networks that are compared at once, each compiled for one picture and for more.
COMPILED_AT_ONCE = 64


def best_engine(device: Device = "auto") -> EngineRow:
    """The best engine at hand: TensorRT, TensorRT-RTX, ONNX Runtime on CUDA, PyTorch on a GPU, else the processor's.

    Raises:
        MissingCapabilityError: "cuda" without a GPU that works.
    """
    driver = cuda_driver()
    if device == "cpu" or (device == "auto" and driver is None):
        return find_engine("ort-cpu")
    if driver is None:
        raise MissingCapabilityError(
            "No engine computes on a GPU here: there is no NVIDIA GPU that works.",
            "`zoo doctor` says why; --device cpu measures on the processor.",
        )
    if installed_module(CLASSIC):
        return find_engine("tensorrt")
    if installed_module(RTX):
        own = ".".join(map(str, driver.gpus[0].compute_capability))
        if own in compute_capabilities(load_tensorrt(RTX)):
            return find_engine("tensorrt-rtx")
    import onnxruntime

    return find_engine("ort-cuda" if "CUDAExecutionProvider" in onnxruntime.get_available_providers() else "torch")


def check_engine(engine: EngineRow, precision: str, device: Device) -> None:
    """Refuse, before long work, what an engine cannot do here.

    Raises:
        ZooError: a precision it does not compute in, or a device it does not compute on.
        MissingCapabilityError: it is not installed, or there is no GPU.
    """
    if precision not in engine.precisions:
        raise ZooError(
            f"{engine.name} ({engine.id}) is not measured in {precision}.",
            f"It is in {joined(engine.precisions, 'or')}; `zoo bench stages --help` lists the engines.",
        )
    if "auto" not in (device, engine.device) and device != engine.device:
        where = {"cpu": "the processor", "cuda": "a GPU"}[engine.device]
        raise ZooError(f"--on {engine.id} computes on {where}, and --device is {device}.", "Leave --device out.")
    if engine.device == "cuda" and cuda_driver() is None:
        raise MissingCapabilityError(
            f"--on {engine.id} computes on an NVIDIA GPU, and this machine has none that works.",
            "`zoo doctor` says why; --on ort-cpu measures on the processor.",
        )
    if device == "cuda":
        choose_device("cuda")
    if engine.builder:
        choose_builder(engine.builder)
    elif engine.opens_graphs:
        choose_backend("stage.onnx", engine.backend)


@dataclass(frozen=True, kw_only=True)
class Bench:
    """Where and how everything of one result is run: an engine, a precision, a batch, and a folder for artifacts."""

    engine: EngineRow
    precision: str
    batch_size: int
    folder: Path
    device: Device = "auto"
    threads: int | None = None


@dataclass(frozen=True, kw_only=True)
class Prepared:
    """A network with what an engine opens: its .onnx or .plan; None where the engine takes the network itself."""

    network: Network
    contract: Contract
    artifact: Path | None


def prepare_artifact(network: Network, contract: Contract, bench: Bench, name: str) -> Prepared:
    """Make what the engine opens, once: the graph by the project's exporter, in the precision, and the plan of it.

    Raises:
        ZooError and its kinds: as the exporter, the precision and the builder.
    """
    if not bench.engine.opens_graphs:
        return Prepared(network=network, contract=contract, artifact=None)
    network.to("cpu")
    graph = in_precision(export_onnx(network, contract, checkpoint={}), contract, bench)
    artifact = bench.folder / f"{name}.onnx"
    write_bytes(artifact, graph.SerializeToString())
    if bench.engine.builder:
        artifact = _build_plan(artifact, contract, bench)
    return Prepared(network=network, contract=contract, artifact=artifact)


def open_prepared(prepared: Prepared, bench: Bench, *, profile: Path | None = None) -> Runner:
    """Open what was prepared as a runner, which is a context manager.

    Args:
        profile: where ONNX Runtime keeps its profile; see `serve.bench.measure.profilers`.

    Raises:
        ZooError and its kinds: as `open_runner`.
    """
    engine, artifact = bench.engine, prepared.artifact
    if artifact is None:
        where, compiler = choose_device(bench.device), _COMPILERS[engine.backend]
        with _all_compiled():
            return TorchRunner(
                prepared.network, prepared.contract, device=where, threads=bench.threads, compiler=compiler
            )
    if profile and engine.profiler == "onnxruntime":
        return OnnxRunner(artifact, device="cpu", threads=bench.threads, profile=profile)
    device: Device = engine.device if engine.backend == "onnxruntime" else "auto"
    return open_runner(str(artifact), backend=engine.backend, device=device, threads=bench.threads)


def forget_compiled(bench: Bench) -> None:
    """Begin afresh before networks are compared: `torch.compile` keeps all of a process in one list.

    Every call walks through that list, so that earlier networks would slow the later ones.
    """
    if bench.engine.backend == "torch-compile":
        import torch

        torch.compiler.reset()


@contextmanager
def _all_compiled() -> Iterator[None]:
    """Let `torch.compile` compile more than eight networks, after which it would silently go on without compiling."""
    import torch

    config: Any = torch._dynamo.config
    with config.patch(recompile_limit=COMPILED_AT_ONCE, fail_on_recompile_limit_hit=True):
        yield


def in_precision(graph: ModelProto, contract: Contract, bench: Bench) -> ModelProto:
    """A graph in a precision, as an export gives it to this engine; 8 bits are calibrated on random pictures."""
    row = find_precision(bench.engine.graph_precision(bench.precision))
    if not row.calibrated:
        return row.apply(graph)
    preprocessing = contract.preprocessing
    pictures = random_pictures(CALIBRATION_PICTURES, preprocessing.image_size, preprocessing.channels)
    calibrated = calibrate(graph, as_input(pictures, contract))
    layout = TENSORRT if bench.engine.builder else ONNX_RUNTIME
    quantized = calibrated.quantized(layout=layout, float8=row.id == "fp8")
    return to_fp16(quantized) if bench.engine.builder else quantized


def _build_plan(onnx_file: Path, contract: Contract, bench: Bench) -> Path:
    """Build the plan beside the .onnx, with the passport that its runner asks for."""
    profile = BatchProfile(min=bench.batch_size, opt=bench.batch_size, max=bench.batch_size)
    precision = bench.precision
    built = engine_from_onnx(
        onnx_file.read_bytes(),
        builder=choose_builder(bench.engine.builder),
        settings=EngineSettings(profiles=(profile,)),
        least_capability=find_precision(precision).least_capability,
    )
    plan = onnx_file.with_suffix(".plan")
    write_bytes(plan, built.plan)
    passport = Passport(
        contract=contract,
        files=FileCards(onnx=FileCard.of(onnx_file, precision), plan=FileCard.of(plan, precision)),
        builder=built.card,
        parity=Parities(notes=dict.fromkeys(("onnx", "graph", "plan"), "not run: made for a benchmark")),
        checkpoint=CheckpointCard(source="random weights", sha256=None, provenance={}),
        random_weights=True,
        environment=environment(),
    )
    write_passport(passport_path(plan), passport)
    return plan


def check_answers(
    runner: Runner, reference: NDArray[np.float32], pictures: NDArray[np.uint8], *, precision: str, name: str
) -> float:
    """Compare with PyTorch in fp32 before anything is timed; return the largest error, a share of the largest answer.

    Raises:
        VerdictError: misshapen, not finite, or further off than the precision may be.
    """
    answers = np.array(runner.infer(pictures))
    hint = "It was not timed. Try another --precision or another engine (--on)."
    if answers.shape != reference.shape or not np.isfinite(answers).all():
        raise VerdictError(
            f"{name} in {precision} by {runner.backend} answers {answers.shape}, expected {reference.shape}, finite.",
            hint,
        )
    error = float(np.abs(answers - reference).max() / max(float(np.abs(reference).max()), 1e-12))
    allowed = find_precision(precision).tolerance.max_error
    if error > allowed:
        raise VerdictError(
            f"{name} in {precision} by {runner.backend} differs from PyTorch by {error:.1e} of its largest answer; "
            f"{precision} may by {allowed:.0e}.",
            hint,
        )
    return error


def reference_answers(network: Network, contract: Contract, pictures: NDArray[np.uint8]) -> NDArray[np.float32]:
    """What PyTorch on the processor answers in fp32."""
    with TorchRunner(network, contract, device="cpu") as runner:
        return np.array(runner.infer(pictures))
