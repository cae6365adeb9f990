"""Owns how a network in memory becomes a runner of an engine, in one precision; which engines there are is rows.

Graphs are made by the project's own exporter and opened by `open_runner`, as artifacts are; what is timed is `infer`.
"""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

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
from export.runners.open import open_runner
from export.runners.pytorch import TorchRunner
from export.runners.runner import Runner
from serve.bench.engine_rows import EngineRow, find_engine
from zoo.errors import MissingCapabilityError, VerdictError, ZooError
from zoo.files import write_bytes
from zoo.machine import Device, choose_device, cuda_driver, environment
from zoo.model.network import Network
from zoo.wording import joined

_COMPILERS = {"torch": None, "torch-compile": JUST_IN_TIME, "torch-aot": AHEAD_OF_TIME}


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
    if engine.device == "cuda" or device == "cuda":
        choose_device("cuda")
    if engine.builder:
        choose_builder(engine.builder)
    elif engine.opens_graphs:
        choose_backend("stage.onnx", engine.backend)


@contextmanager
def open_network(
    network: Network,
    contract: Contract,
    engine: EngineRow,
    *,
    precision: str,
    batch_size: int,
    device: Device = "auto",
    threads: int | None = None,
    profile: bool = False,
) -> Iterator[Runner]:
    """Run a network in an engine while the block lasts; whatever was written for it is gone afterwards.

    Args:
        network: in evaluation mode; it may be moved to the device.
        precision: of `engine.precisions`.
        batch_size: what a plan is built for; other engines take any.
        profile: let ONNX Runtime keep a profile; see `serve.bench.measure.profilers`.

    Raises:
        ZooError and its kinds: as the exporter, the precision, the builder and the runner.
    """
    with ExitStack() as stack:
        if not engine.opens_graphs:
            compiler, where = _COMPILERS[engine.backend], choose_device(device)
            yield stack.enter_context(
                TorchRunner(network, contract, device=where, threads=threads, compiler=compiler)
            )
            return
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="zoo-bench-")))
        graph = in_precision(export_onnx(network, contract, checkpoint={}), contract, precision, engine)
        artifact = folder / "network.onnx"
        write_bytes(artifact, graph.SerializeToString())
        if engine.builder:
            artifact = _build_plan(artifact, contract, engine, precision, batch_size)
        if profile and engine.profiler == "onnxruntime":
            from export.runners.onnx_runtime import OnnxRunner

            yield stack.enter_context(
                OnnxRunner(artifact, device="cpu", threads=threads, profile=folder / "profile")
            )
            return
        on = engine.device if engine.backend == "onnxruntime" else "auto"
        yield stack.enter_context(open_runner(str(artifact), backend=engine.backend, device=on, threads=threads))


def in_precision(graph: ModelProto, contract: Contract, precision: str, engine: EngineRow) -> ModelProto:
    """A graph in a precision, as an export gives it to this engine; 8 bits are calibrated on random pictures."""
    row = find_precision(precision)
    if not row.calibrated:
        return row.apply(graph)
    from serve.bench.measure.forms import random_pictures

    pictures = random_pictures(8, contract.preprocessing.image_size, contract.preprocessing.channels)
    calibrated = calibrate(graph, as_input(pictures, contract))
    layout = TENSORRT if engine.builder else ONNX_RUNTIME
    quantized = calibrated.quantized(layout=layout, float8=precision == "fp8")
    return to_fp16(quantized) if engine.builder else quantized


def _build_plan(onnx_file: Path, contract: Contract, engine: EngineRow, precision: str, batch_size: int) -> Path:
    """Build the plan beside the .onnx, with the passport that its runner asks for."""
    profile = BatchProfile(min=batch_size, opt=batch_size, max=batch_size)
    built = engine_from_onnx(
        onnx_file.read_bytes(),
        builder=choose_builder(engine.builder),
        settings=EngineSettings(profiles=(profile,)),
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
            f"{name} in {precision} by {runner.backend} answers {answers.shape}, expected {reference.shape}, all finite.",
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
