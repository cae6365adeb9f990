"""Owns the calls of TensorRT that make a plan of a graph, the same for every release and form; it chooses nothing.

Networks are strongly typed: the types in the graph are the types in the engine (see `export.precision.rows`). TensorRT
answers a failed build with None, so our error carries what it logged.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from threading import Event
from typing import Any

from export.engine.builders import BatchProfile, EngineSettings
from export.engine.tensorrt_api import TensorRT
from export.engine.timing_cache import lend_timings, store_timings
from zoo.errors import EngineBuildError

OnProgress = Callable[[str, int, int], None]
"""Called with a phase's name, the steps done and the number of steps; from another thread than the caller's."""


def plan_of_graph(
    tensorrt: TensorRT,
    graph: bytes | Path,
    settings: EngineSettings,
    *,
    targets: Sequence[Any] = (),
    timing_cache: Path | None = None,
    on_progress: OnProgress | None = None,
    cancelled: Event,
) -> bytes:
    """Build the plan of a serialised ONNX graph; blocks for seconds to many minutes.

    Args:
        tensorrt: who builds; its log gets the messages.
        graph: the ONNX file's bytes, or the file, where its weights are beside it.
        settings: what the engine is to be.
        targets: compute capabilities as the enum members of an ahead-of-time builder.
        timing_cache: a file of measurements: read if it is there, and written with those of this build added.
        on_progress: called from this thread.
        cancelled: set by another thread, it ends the build at its next step.

    Raises:
        EngineBuildError: the graph was refused, the build failed or was cancelled; carries the builder's own text.
        ZooError: the timing cache cannot be used or written.
    """
    module: Any = tensorrt.module
    builder = module.Builder(tensorrt.logger)
    network = builder.create_network(1 << int(module.NetworkDefinitionCreationFlag.STRONGLY_TYPED))
    _parse(tensorrt, network, graph)
    config = builder.create_builder_config()
    _configure(module, config, settings)
    config.progress_monitor = monitor = _monitor(module, on_progress, cancelled)
    for batches in settings.profiles:
        _add_profile(tensorrt, builder, network, config, batches)
    _set_targets(tensorrt, config, targets)
    lent = lend_timings(tensorrt, config, timing_cache) if timing_cache else None
    serialized = builder.build_serialized_network(network, config)
    del monitor  # it had to live until here: the config holds no reference to it
    if lent:
        store_timings(tensorrt, config, lent)  # of a build that failed or was stopped too: they took as long to measure
    if cancelled.is_set():
        raise EngineBuildError("The engine build was cancelled.")
    if serialized is None:
        failed = refused(tensorrt, f"could not build the engine: {tensorrt.log.errors()}")
        if settings.workspace_mib is not None:
            failed.hint = f"--workspace {settings.workspace_mib} may be too little: allow more, or leave it out."
        raise failed
    return bytes(serialized)


def refused(tensorrt: TensorRT, problem: str) -> EngineBuildError:
    """Describe what TensorRT would not do."""
    return EngineBuildError(
        f"{tensorrt.builder.name} {tensorrt.version} {problem}",
        "`zoo doctor` shows versions; the .onnx is not affected.",
    )


def parser_errors(tensorrt: TensorRT, parser: Any) -> str:
    """What an ONNX parser, or a refitter from ONNX, has to say: nodes and reasons."""
    said = [parser.get_error(index) for index in range(parser.num_errors)]
    text = "; ".join(": ".join(filter(None, (error.node_name(), error.desc()))) for error in said)
    return text or tensorrt.log.errors()


def _parse(tensorrt: TensorRT, network: Any, graph: bytes | Path) -> None:
    parser = tensorrt.module.OnnxParser(network, tensorrt.logger)
    if not parser.parse(*as_parsed(graph)):
        raise refused(tensorrt, f"does not take this graph: {parser_errors(tensorrt, parser)}")


def as_parsed(graph: bytes | Path) -> tuple[bytes] | tuple[bytes, str]:
    """A graph as TensorRT's parsers take it: of a file its path too, which says where weights beside it are."""
    return (graph.read_bytes(), str(graph)) if isinstance(graph, Path) else (graph,)


def _configure(module: Any, config: Any, settings: EngineSettings) -> None:
    # On by default. It rounds the inputs of fp32 convolutions to 10 bits: only a plan in tf32 may do that.
    if settings.tf32:
        config.set_flag(module.BuilderFlag.TF32)
    else:
        config.clear_flag(module.BuilderFlag.TF32)
    # Names and shapes of layers in the engine, so that a profile can be summed by stage; costs no speed.
    config.profiling_verbosity = module.ProfilingVerbosity.DETAILED
    if settings.workspace_mib is not None:
        config.set_memory_pool_limit(module.MemoryPoolType.WORKSPACE, settings.workspace_mib << 20)
    if settings.optimization_level is not None:
        config.builder_optimization_level = settings.optimization_level
    if settings.compat:
        levels = module.HardwareCompatibilityLevel
        is_same = settings.compat == "same"
        config.hardware_compatibility_level = levels.SAME_COMPUTE_CAPABILITY if is_same else levels.AMPERE_PLUS
    flags = module.BuilderFlag
    if settings.version_compatible:
        config.set_flag(flags.VERSION_COMPATIBLE)
    if settings.weights == "refittable":
        config.set_flag(flags.REFIT)
    elif settings.weights == "stripped":  # its own weights come back, so kernels may still be chosen by their values
        config.set_flag(flags.STRIP_PLAN)
        config.set_flag(flags.REFIT_IDENTICAL)


def _add_profile(tensorrt: TensorRT, builder: Any, network: Any, config: Any, batches: BatchProfile) -> None:
    profile = builder.create_optimization_profile()
    for index in range(network.num_inputs):
        tensor = network.get_input(index)
        shape = tuple(tensor.shape)[1:]
        profile.set_shape(tensor.name, (batches.min, *shape), (batches.opt, *shape), (batches.max, *shape))
    if config.add_optimization_profile(profile) < 0:
        raise refused(tensorrt, f"does not take the batch profile: {tensorrt.log.errors()}")


def _set_targets(tensorrt: TensorRT, config: Any, targets: Sequence[Any]) -> None:
    if not targets:
        return
    config.num_compute_capabilities = len(targets)
    if not all(config.set_compute_capability(target, index) for index, target in enumerate(targets)):
        raise refused(tensorrt, f"does not take the targets: {tensorrt.log.errors()}")


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
