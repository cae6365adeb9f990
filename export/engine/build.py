"""Owns ONNX → TensorRT plan: which builder, for which batches and GPUs, and what it said; it changes no precision.

Networks are strongly typed: the types in the graph are the types in the engine (see `export.precision.rows`). A failed
build is None, not an exception, so the log's text becomes the error.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass
from threading import Event
from time import perf_counter
from typing import Any

from export.engine.tensorrt_api import (
    BACKENDS,
    CLASSIC,
    RTX,
    Backend,
    TensorRT,
    find_backend,
    installed_module,
    load_tensorrt,
)
from zoo.errors import EngineBuildError, MissingCapabilityError, ZooError, unknown_name
from zoo.machine import Gpu, cuda_driver

AUTO = "auto"
BUILDERS = (AUTO, *(backend.id for backend in BACKENDS))
# TensorRT-RTX's own default is every architecture from Ampere on. Turing (7.5) has to be asked for: NVIDIA's manual
# ("CPU-Only AOT and TensorRT-RTX Engines") keeps it out of portable engines, and S in fp16 grows from 43 to 48 MB.
FIRST_DEFAULT_TARGET = "8.0"

OnProgress = Callable[[str, int, int], None]
"""Called with a phase's name, the steps done and the steps there are; from another thread than the caller's."""


@dataclass(frozen=True, kw_only=True)
class BatchProfile:
    """The batches an engine takes: from `min` to `max`, tuned for `opt`.

    Raises:
        ZooError: not 1 ≤ min ≤ opt ≤ max. TensorRT would build such a profile without a word.
    """

    min: int = 1
    opt: int = 8
    max: int = 32

    def __post_init__(self) -> None:
        if not 1 <= self.min <= self.opt <= self.max:
            raise ZooError(
                f"The batch profile {self.min} {self.opt} {self.max} is not ordered: it needs 1 ≤ min ≤ opt ≤ max.",
                "For example --profile 1 8 32.",
            )


@dataclass(frozen=True, kw_only=True)
class Plan:
    """A serialised engine and what must be known of it.

    `targets` are the compute capabilities it runs on; `gpu` is the one it was built on, None if built without.
    """

    data: bytes
    builder: str
    version: str
    targets: tuple[str, ...]
    profile: BatchProfile
    gpu: str | None
    build_s: float
    warnings: tuple[str, ...]

    def to_dict(self) -> dict[str, Any]:
        """Everything but the bytes, as plain JSON types."""
        return {
            "name": self.builder,
            "version": self.version,
            "targets": list(self.targets),
            "profile": asdict(self.profile),
            "gpu": self.gpu,
            "build_s": round(self.build_s, 2),
            "warnings": list(self.warnings),
        }


def choose_builder(name: str = AUTO, *, targets: Sequence[str] = ()) -> Backend:
    """Choose who builds: TensorRT where it is installed and a GPU is there, else TensorRT-RTX, which needs none.

    Args:
        name: one of `BUILDERS`; anything but "auto" insists.
        targets: compute capabilities asked for; only TensorRT-RTX builds for other GPUs than the one at hand.

    Raises:
        MissingCapabilityError: it cannot build here; the hint is the install line.
        UnknownNameError: no such builder.
    """
    driver = cuda_driver()
    gpu = driver.gpus[0] if driver else None
    if name != AUTO:
        return _insist(find_backend(name), gpu, targets)
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


def _insist(backend: Backend, gpu: Gpu | None, targets: Sequence[str]) -> Backend:
    if not installed_module(backend):
        raise MissingCapabilityError(f"{backend.name} is not installed.", backend.install)
    if backend.ahead_of_time:
        return backend
    if gpu is None:
        raise MissingCapabilityError(
            f"{backend.name} builds on a GPU, and this machine has none.",
            f"--builder {RTX.id} builds without one ({RTX.install}).",
        )
    if targets:
        raise ZooError(
            f"{backend.name} builds for the GPU at hand only, not for {', '.join(targets)}.", f"Use --builder {RTX.id}."
        )
    return backend


def _refuse_unsupported(gpu: Gpu | None, targets: Sequence[str]) -> None:
    """A data-centre GPU that TensorRT-RTX never runs on: building for others unasked would be a surprise."""
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


def build_plan(
    graph: bytes,
    *,
    profile: BatchProfile,
    backend: Backend,
    targets: Sequence[str] = (),
    on_progress: OnProgress | None = None,
) -> Plan:
    """Build a serialised ONNX graph whose first axis is the batch.

    Ctrl-C cancels the build: the work is done in a second thread, because a signal reaches only the first.

    Args:
        graph: the ONNX file's bytes, already in the precision wanted.
        profile: the batches the engine takes.
        backend: as `choose_builder` found it.
        targets: compute capabilities as "8.6", ahead-of-time builders only; empty means Ampere and later.
        on_progress: called as the build goes on, from the second thread.

    Raises:
        EngineBuildError: the graph was refused or the build failed; carries the builder's own text.
        UnknownNameError: a target the builder does not know.
        MissingCapabilityError: as `load_tensorrt`.
    """
    tensorrt = load_tensorrt(backend)
    chosen = _choose_targets(tensorrt, targets) if backend.ahead_of_time else {}
    driver = cuda_driver()
    gpu = driver.gpus[0] if driver and not backend.ahead_of_time else None
    tensorrt.log.clear()
    cancelled = Event()
    start = perf_counter()
    with ThreadPoolExecutor(max_workers=1, thread_name_prefix="engine-build") as pool:
        job = pool.submit(_build, tensorrt, graph, profile, list(chosen.values()), on_progress, cancelled)
        try:
            data = job.result()
        except KeyboardInterrupt:
            cancelled.set()  # the pool's exit then waits for the step in hand, no longer
            raise
    return Plan(
        data=data,
        builder=backend.id,
        version=tensorrt.version,
        targets=tuple(chosen) or ((_dotted(*gpu.compute_capability),) if gpu else ()),
        profile=profile,
        gpu=gpu.name if gpu else None,
        build_s=perf_counter() - start,
        warnings=tensorrt.log.warnings(),
    )


def _choose_targets(tensorrt: TensorRT, targets: Sequence[str]) -> dict[str, Any]:
    known = compute_capabilities(tensorrt)
    for target in targets:
        if target not in known:
            raise unknown_name("compute capability", target, known, f"This builder knows {', '.join(known)}.")
    ascending = list(known)
    chosen = targets or ascending[ascending.index(FIRST_DEFAULT_TARGET) :]
    return {name: known[name] for name in ascending if name in chosen}


def _build(
    tensorrt: TensorRT,
    graph: bytes,
    profile: BatchProfile,
    targets: list[Any],
    on_progress: OnProgress | None,
    cancelled: Event,
) -> bytes:
    module: Any = tensorrt.module
    builder = module.Builder(tensorrt.logger)
    network = builder.create_network(1 << int(module.NetworkDefinitionCreationFlag.STRONGLY_TYPED))
    parser = module.OnnxParser(network, tensorrt.logger)
    if not parser.parse(graph):
        said = [parser.get_error(index) for index in range(parser.num_errors)]
        text = "; ".join(": ".join(filter(None, (error.node_name(), error.desc()))) for error in said)
        raise _refused(tensorrt, f"does not take this graph: {text or tensorrt.log.errors()}")
    config = builder.create_builder_config()
    # TF32 rounds the inputs of fp32 convolutions to 10 bits. An fp32 graph is built as one, or parity says nothing.
    config.clear_flag(module.BuilderFlag.TF32)
    # Names and shapes of layers in the engine, so that a profile can be summed by stage; costs no speed.
    config.profiling_verbosity = module.ProfilingVerbosity.DETAILED
    config.progress_monitor = monitor = _monitor(module, on_progress, cancelled)
    _add_profile(tensorrt, builder, network, config, profile)
    if targets:
        config.num_compute_capabilities = len(targets)
        if not all(config.set_compute_capability(target, index) for index, target in enumerate(targets)):
            raise _refused(tensorrt, f"does not take the targets: {tensorrt.log.errors()}")
    serialized = builder.build_serialized_network(network, config)
    del monitor  # the config holds no reference of its own: until here the monitor must live
    if cancelled.is_set():
        raise EngineBuildError("The engine build was cancelled.")
    if serialized is None:
        raise _refused(tensorrt, f"could not build the engine: {tensorrt.log.errors()}")
    return bytes(serialized)


def _refused(tensorrt: TensorRT, problem: str) -> EngineBuildError:
    return EngineBuildError(
        f"{tensorrt.backend.name} {tensorrt.version} {problem}",
        "`zoo doctor` shows versions; the .onnx is not affected.",
    )


def _add_profile(tensorrt: TensorRT, builder: Any, network: Any, config: Any, batches: BatchProfile) -> None:
    profile = builder.create_optimization_profile()
    for index in range(network.num_inputs):
        tensor = network.get_input(index)
        shape = tuple(tensor.shape)[1:]
        profile.set_shape(tensor.name, (batches.min, *shape), (batches.opt, *shape), (batches.max, *shape))
    if config.add_optimization_profile(profile) < 0:
        raise _refused(tensorrt, f"does not take the batch profile: {tensorrt.log.errors()}")


def _monitor(module: Any, on_progress: OnProgress | None, cancelled: Event) -> Any:
    class Monitor(module.IProgressMonitor):  # type: ignore[misc]
        def __init__(self) -> None:
            module.IProgressMonitor.__init__(self)
            self.steps: dict[str, int] = {}

        def phase_start(self, phase_name: str, parent_phase: str | None, num_steps: int) -> None:
            self.steps[phase_name] = num_steps

        def phase_finish(self, phase_name: str) -> None:
            self.steps.pop(phase_name, None)

        def step_complete(self, phase_name: str, step: int) -> bool:
            if on_progress:
                on_progress(phase_name, step + 1, self.steps.get(phase_name, step + 1))
            return not cancelled.is_set()

    return Monitor()
