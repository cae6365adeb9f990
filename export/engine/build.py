"""Owns the way from an ONNX graph to a TensorRT engine: which builder, for which GPUs; it changes no precision.

The calls of TensorRT itself are in `export.engine.native`, what cannot be asked of it in `export.engine.limits`.
"""

from __future__ import annotations

from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from pathlib import Path
from threading import Event
from time import perf_counter
from typing import Any

from export.engine.builders import AUTO, CLASSIC, RTX, BuildCard, Builder, EngineSettings, find_builder
from export.engine.limits import check_limits
from export.engine.native import OnProgress, plan_of_graph
from export.engine.plan_cache import find_plan, keep_plan, plan_key
from export.engine.tensorrt_api import TensorRT, installed_module, load_tensorrt
from zoo.errors import MissingCapabilityError, ZooError, unknown_name
from zoo.files import write_text
from zoo.machine import Gpu, cuda_driver
from zoo.wording import joined

# TensorRT-RTX's own default is every architecture from Ampere on. Turing (7.5) has to be asked for: NVIDIA's manual
# ("CPU-Only AOT and TensorRT-RTX Engines") keeps it out of portable engines, and S in fp16 grows from 43 to 48 MB.
FIRST_DEFAULT_TARGET = "8.0"


@dataclass(frozen=True)
class Engine:
    """A plan's bytes, and what is known of their making."""

    plan: bytes
    card: BuildCard


def choose_builder(name: str = AUTO, *, targets: Sequence[str] = ()) -> Builder:
    """Choose who builds: TensorRT where it is installed and a GPU is there, else TensorRT-RTX, which needs none.

    Args:
        name: a builder's id, which is taken or refused, never replaced; or "auto".
        targets: compute capabilities asked for; only TensorRT-RTX builds for other GPUs than the one at hand.

    Raises:
        MissingCapabilityError: nothing can build here; the hint is the install line.
        UnknownNameError: no such builder.
    """
    driver = cuda_driver()
    gpu = driver.gpus[0] if driver else None
    if name != AUTO:
        return _insist(find_builder(name), gpu, targets)
    if gpu and not targets and installed_module(CLASSIC):
        return CLASSIC
    if installed_module(RTX):
        _refuse_unsupported(gpu, targets)
        return RTX
    if gpu:
        raise MissingCapabilityError("Neither TensorRT nor TensorRT-RTX is installed.", CLASSIC.install)
    raise MissingCapabilityError(
        "This machine has no GPU for TensorRT to build on, and TensorRT-RTX, which needs none, is not installed.",
        RTX.install,
    )


def _insist(builder: Builder, gpu: Gpu | None, targets: Sequence[str]) -> Builder:
    if not installed_module(builder):
        raise MissingCapabilityError(f"{builder.name} is not installed.", builder.install)
    if builder.ahead_of_time:
        return builder
    if gpu is None:
        raise MissingCapabilityError(
            f"{builder.name} builds on a GPU, and this machine has none.",
            f"--builder {RTX.id} builds without one ({RTX.install}).",
        )
    if targets:
        raise ZooError(
            f"{builder.name} builds for the GPU at hand only, not for {', '.join(targets)}.", f"Use --builder {RTX.id}."
        )
    return builder


def _refuse_unsupported(gpu: Gpu | None, targets: Sequence[str]) -> None:
    """Refuse to build for other GPUs unasked where TensorRT-RTX never runs on the one here (a data-centre GPU)."""
    if gpu is None or targets:
        return
    known = compute_capabilities(load_tensorrt(RTX))
    if _dotted(*gpu.compute_capability) not in known:
        raise MissingCapabilityError(
            f"TensorRT-RTX does not run on {gpu.name} (compute capability {_dotted(*gpu.compute_capability)}).",
            f"{CLASSIC.install}; or --target {' --target '.join(list(known)[-2:])} to build for another machine.",
        )


def compute_capabilities(tensorrt: TensorRT) -> dict[str, Any]:
    """The targets an ahead-of-time builder knows, as {"8.6": its own enum member}, ascending."""
    members = tensorrt.module.ComputeCapability.__members__
    numbers = sorted((int(name[2:]), member) for name, member in members.items() if name.startswith("SM"))
    return {_dotted(*divmod(number, 10)): member for number, member in numbers}


def _dotted(major: int, minor: int) -> str:
    return f"{major}.{minor}"


def engine_from_onnx(
    graph: bytes | Path,
    *,
    builder: Builder,
    settings: EngineSettings | None = None,
    timing_cache: Path | None = None,
    cache: bool = False,
    least_capability: str = "",
    log_file: Path | None = None,
    on_progress: OnProgress | None = None,
) -> Engine:
    """Build the engine of a serialised ONNX graph whose first axis is the batch.

    Ctrl-C cancels the build. The work is done in a second thread, because Python handles signals in the first only.

    Args:
        graph: the ONNX file's bytes, already in the precision wanted; or the file, where its weights are beside it.
        builder: as `choose_builder` found it.
        settings: what the engine is to be; None is one profile, 1 to 32 pictures tuned for 8.
        timing_cache: a file of measurements that this build uses and adds to; see `export.engine.timing_cache`.
        cache: take the plan from `export.engine.plan_cache` if it was built before, and keep it there.
        least_capability: as `check_settings`.
        log_file: where the builder's messages go, of a build that fails too.
        on_progress: called from the second thread.

    Raises:
        EngineBuildError: the graph was refused or the build failed; carries the builder's own text.
        UnknownNameError: a target the builder does not know.
        MissingCapabilityError: as `load_tensorrt`.
        ZooError: a setting that this builder cannot honour, or a timing cache of another release or GPU.
    """
    settings = settings or EngineSettings()
    tensorrt = load_tensorrt(builder)
    targets = check_settings(builder, settings, timing_cache, least_capability=least_capability)
    driver = cuda_driver()
    gpu = driver.gpus[0] if driver and not builder.ahead_of_time else None
    key = plan_key(graph, settings, tensorrt, targets=list(targets), gpu=gpu) if cache else None
    if key and (kept := find_plan(key)):
        plan, card, said = kept
        if log_file:
            write_text(log_file, said)
        return Engine(plan, replace(card, from_cache=True))
    tensorrt.log.clear()
    start = perf_counter()
    try:
        plan = _in_second_thread(tensorrt, graph, settings, list(targets.values()), timing_cache, on_progress)
    finally:
        if log_file:
            write_text(log_file, tensorrt.log.text())
    card = BuildCard(
        name=builder.id,
        version=tensorrt.version,
        targets=tuple(targets) or ((_dotted(*gpu.compute_capability),) if gpu else ()),
        profile=settings.profiles[0],
        gpu=gpu.name if gpu else None,
        build_s=round(perf_counter() - start, 2),
        warnings=tensorrt.log.warnings(),
        settings=settings,
        timing_cache=timing_cache.name if timing_cache else None,
    )
    problem = keep_plan(key, plan, card, tensorrt.log.text()) if key else None
    return Engine(plan, replace(card, warnings=(*card.warnings, problem)) if problem else card)


def _in_second_thread(
    tensorrt: TensorRT,
    graph: bytes | Path,
    settings: EngineSettings,
    targets: list[Any],
    timing_cache: Path | None,
    on_progress: OnProgress | None,
) -> bytes:
    cancelled = Event()
    with ThreadPoolExecutor(max_workers=1, thread_name_prefix="engine-build") as pool:
        job = pool.submit(
            plan_of_graph,
            tensorrt,
            graph,
            settings,
            targets=targets,
            timing_cache=timing_cache,
            on_progress=on_progress,
            cancelled=cancelled,
        )
        try:
            return job.result()
        except BaseException:  # Ctrl-C, or what SIGTERM is turned into
            cancelled.set()  # the pool then waits for the current step only
            raise


def check_settings(
    builder: Builder, settings: EngineSettings, timing_cache: Path | None = None, *, least_capability: str = ""
) -> dict[str, Any]:
    """Check, before long work, that `builder` can do what is asked; return its targets as `compute_capabilities`.

    Args:
        builder: as `choose_builder` found it.
        settings: what the engine is to be.
        timing_cache: a file of measurements, if there is one.
        least_capability: the oldest GPUs that compute in the graph's precision ("8.9"), as its row has it; "" is all.

    Raises:
        UnknownNameError: a target it does not know.
        ZooError: it cannot honour a setting, or a GPU is too old for the precision; says which.
        MissingCapabilityError: as `load_tensorrt`.
    """
    tensorrt, driver = load_tensorrt(builder), cuda_driver()
    check_limits(tensorrt, settings, driver=driver, timing_cache=timing_cache)
    if builder.ahead_of_time:
        return _choose_targets(tensorrt, settings.targets, least_capability)
    if driver:
        _refuse_older([_dotted(*driver.gpus[0].compute_capability)], least_capability)
    return {}


def _refuse_older(capabilities: Sequence[str], least: str) -> None:
    """Refuse GPUs that do not compute in a precision: the builder would say so after minutes, in words of its own."""
    if older := [each for each in capabilities if _number(each) < _number(least)]:
        raise ZooError(
            f"GPUs of compute capability {joined(older)} do not compute in this precision: it takes {least} or later.",
            "Build for later ones, or choose another precision: --trt fp16.",
        )


def _number(capability: str) -> tuple[int, ...]:
    """Turn "8.9" into (8, 9), so that 12.0 is the later one; "" is before all."""
    return tuple(map(int, capability.split("."))) if capability else ()


def _choose_targets(tensorrt: TensorRT, targets: Sequence[str], least: str) -> dict[str, Any]:
    known = compute_capabilities(tensorrt)
    for target in targets:
        if target not in known:
            raise unknown_name("compute capability", target, known, f"This builder knows {', '.join(known)}.")
    _refuse_older(targets, least)
    first = max(FIRST_DEFAULT_TARGET, least, key=_number)
    chosen = targets or [name for name in known if _number(name) >= _number(first)]
    return {name: member for name, member in known.items() if name in chosen}
