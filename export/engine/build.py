"""Owns the way from an ONNX graph to a TensorRT plan: which builder, for which GPUs; it changes no precision.

Networks are strongly typed: the types in the graph are the types in the engine (see `export.precision.rows`). TensorRT
answers a failed build with None, so our error carries what it logged.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from threading import Event
from time import perf_counter
from typing import Any

from export.engine.builders import AUTO, CLASSIC, RTX, BatchProfile, BuildCard, Builder, find_builder
from export.engine.tensorrt_api import TensorRT, installed_module, load_tensorrt
from zoo.errors import EngineBuildError, MissingCapabilityError, ZooError, unknown_name
from zoo.machine import Gpu, cuda_driver

# TensorRT-RTX's own default is every architecture from Ampere on. Turing (7.5) has to be asked for: NVIDIA's manual
# ("CPU-Only AOT and TensorRT-RTX Engines") keeps it out of portable engines, and S in fp16 grows from 43 to 48 MB.
FIRST_DEFAULT_TARGET = "8.0"

OnProgress = Callable[[str, int, int], None]
"""Called with a phase's name, the steps done and the number of steps; from another thread than the caller's."""


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


def build_plan(
    graph: bytes,
    *,
    profile: BatchProfile,
    builder: Builder,
    targets: Sequence[str] = (),
    on_progress: OnProgress | None = None,
) -> tuple[bytes, BuildCard]:
    """Build the plan of a serialised ONNX graph whose first axis is the batch: its bytes, and what is known of it.

    Ctrl-C cancels the build. The work is done in a second thread, because Python handles signals in the first only.

    Args:
        graph: the ONNX file's bytes, already in the precision wanted.
        profile: the batches the engine takes.
        builder: as `choose_builder` found it.
        targets: compute capabilities as "8.6", ahead-of-time builders only; empty means Ampere and later.
        on_progress: called from the second thread.

    Raises:
        EngineBuildError: the graph was refused or the build failed; carries the builder's own text.
        UnknownNameError: a target the builder does not know.
        MissingCapabilityError: as `load_tensorrt`.
    """
    tensorrt = load_tensorrt(builder)
    chosen = _choose_targets(tensorrt, targets) if builder.ahead_of_time else {}
    driver = cuda_driver()
    gpu = driver.gpus[0] if driver and not builder.ahead_of_time else None
    tensorrt.log.clear()
    cancelled = Event()
    start = perf_counter()
    with ThreadPoolExecutor(max_workers=1, thread_name_prefix="engine-build") as pool:
        job = pool.submit(_build, tensorrt, graph, profile, list(chosen.values()), on_progress, cancelled)
        try:
            plan = job.result()
        except KeyboardInterrupt:
            cancelled.set()  # the pool then waits for the current step only
            raise
    return plan, BuildCard(
        name=builder.id,
        version=tensorrt.version,
        targets=tuple(chosen) or ((_dotted(*gpu.compute_capability),) if gpu else ()),
        profile=profile,
        gpu=gpu.name if gpu else None,
        build_s=round(perf_counter() - start, 2),
        warnings=tensorrt.log.warnings(),
    )


def check_targets(builder: Builder, targets: Sequence[str]) -> None:
    """Check, before long work, that `builder` knows the compute capabilities asked for.

    Raises:
        UnknownNameError: it does not. MissingCapabilityError: as `load_tensorrt`.
    """
    if targets and builder.ahead_of_time:
        _choose_targets(load_tensorrt(builder), targets)


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
    # TF32 would round the inputs of fp32 convolutions to 10 bits: the plan would not be the graph that was compared.
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
    del monitor  # it had to live until here: the config holds no reference to it
    if cancelled.is_set():
        raise EngineBuildError("The engine build was cancelled.")
    if serialized is None:
        raise _refused(tensorrt, f"could not build the engine: {tensorrt.log.errors()}")
    return bytes(serialized)


def _refused(tensorrt: TensorRT, problem: str) -> EngineBuildError:
    return EngineBuildError(
        f"{tensorrt.builder.name} {tensorrt.version} {problem}",
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
