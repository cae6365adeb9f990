"""Owns one benchmark from what a user asked for to the `Result` that is kept; what is measured is its neighbours'."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

from export.backends import choose_backend, pair_with_backends
from export.runners.open import open_runner
from export.runners.runner import Runner
from export.signature import require_signature
from serve.bench.measure.artifacts import describe_artifact
from serve.bench.measure.gpu_trace import GpuTrace, is_gpu
from serve.bench.measure.latency import (
    LatencyData,
    OpenArtifact,
    TimedArtifact,
    compare_latency,
    compare_rows,
    measure_picture,
    real_pictures,
)
from serve.bench.measure.stages import StageRow, StagesData
from serve.bench.measure.timing import Schedule
from serve.bench.options import LatencyOptions, StagesOptions
from zoo.errors import ZooError
from zoo.machine import choose_device, processor_name
from zoo.model.variants import VARIANTS
from zoo.results import Result, Subject, measured_on, row_sha256
from zoo.weights.resolve import find_model_variant
from zoo.wording import joined

DEFAULT_BATCH_SIZES = (1, 8)

HOST_CLOCK = (
    "the host's clock (perf_counter_ns) around Runner.infer, one batch in flight: copies to and from the device inside"
)
STAGE_CLOCKS = {
    "cuda": "CUDA events around each replay of a CUDA graph: launches, Python and transfers outside",
    "cpu": "the host's clock (perf_counter_ns) around each call in PyTorch's eager mode",
}


def bench_latency(
    options: LatencyOptions,
    *,
    schedule: Schedule | None = None,
    say: Callable[[str], None] = lambda line: None,
    open_artifact: Callable[..., Runner] = open_runner,
) -> Result:
    """Open artifacts, check their answers, and time them in turn on real pictures.

    Args:
        options: its artifacts are paths or model ids, as `export.runners.open.open_runner` takes them; the first is
            the baseline. Without batch sizes these are 1 and 8, or 1 and the largest batch all artifacts take.
        schedule: instead of the one that the options ask for.
        say: is told what is being done, one line at a time.
        open_artifact: what opens an artifact; tests put a fake here.

    Raises:
        ZooError and its kinds: as `require_signature`, `open_runner` and `serve.bench.measure.latency.compare_latency`.
    """
    if options.require_signature:
        for artifact in options.artifacts:
            require_signature(artifact, options.require_signature)
    schedule, opened = schedule or _schedule(options), []
    with ExitStack() as stack:
        pairs = pair_with_backends(options.artifacts, options.backends)
        for name, (artifact, backend) in zip(_short_names(pairs), pairs, strict=True):
            say(f"opening {name}")
            runner = stack.enter_context(
                open_artifact(artifact, device=options.device, threads=options.threads, backend=backend)
            )
            pictures, source = real_pictures(runner.contract)
            say(f"{name}: {runner.backend}, {_device_of(runner)}, {len(pictures)} pictures of {source}")
            opened.append(OpenArtifact(name=name, runner=runner, pictures=pictures))
        sizes = sorted(set(options.batch_sizes)) or _default_sizes(opened)
        subjects = [
            describe_artifact(artifact, choose_backend(artifact, backend), one, sizes)
            for (artifact, backend), one in zip(pairs, opened, strict=True)
        ]
        devices = list(dict.fromkeys(_device_of(one.runner) for one in opened))
        picture = measure_picture(opened[0].runner.contract.preprocessing)
        with GpuTrace(next(filter(is_gpu, devices), devices[0])) as trace:
            rows = tuple(compare_latency(opened, batch_sizes=sizes, schedule=schedule, on_progress=say))
        data = LatencyData(
            artifacts=tuple(map(_timed_artifact, opened)),
            rows=rows,
            comparisons=compare_rows(rows),
            picture=picture,
            gpu=trace.to_dict(),
            gpu_reason=trace.reason,
        )
    settings = {
        "batch_sizes": sizes,
        "device": options.device,
        "schedule": schedule.to_dict(),
        "clock": HOST_CLOCK,
        "batches_in_flight": 1,
    }
    return Result(
        kind="latency",
        name=" vs ".join(subject.name for subject in subjects),
        environment=measured_on(joined(devices)),
        settings={"subjects": [subject.to_dict() for subject in subjects], **settings},
        data=data.to_dict(),
    )


def bench_stages(
    options: StagesOptions,
    *,
    schedule: Schedule | None = None,
    on_row: Callable[[StageRow], None] = lambda row: None,
) -> Result:
    """Time every stage of a network as MBConv and as Fused-MBConv.

    Args:
        options: its model is a variant's id or a checkpoint, whose row is used; the weights are not.
        schedule: instead of the one that the options ask for.
        on_row: is given the row of each stage when it is known.

    Raises:
        ZooError and its kinds: as `zoo.weights.resolve.find_model_variant`, `zoo.machine.choose_device` and
            `serve.bench.measure.stage_timing.measure_stages`.
    """
    import torch

    from serve.bench.measure.stage_timing import measure_stages

    variant = find_model_variant(options.model)
    if variant.is_resnet:
        raise ZooError(f"{variant.id} has no MBConv stages to compare.", "`zoo bench latency` times it as a whole.")
    device = torch.device(choose_device(options.device))
    if options.threads and device.type == "cuda":
        raise ZooError("--threads has no effect: stages run on the GPU, not on the processor.", "Leave it out.")
    name = torch.cuda.get_device_name() if device.type == "cuda" else processor_name()
    schedule, size = schedule or _schedule(options), options.image_size or variant.eval_size
    asked: dict[str, Any] = {"image_size": size, "batch_size": options.batch_size, "precision": options.precision}
    with torch_threads(options.threads) as threads, GpuTrace(name) as trace:
        rows = measure_stages(variant, device=device, schedule=schedule, on_row=on_row, **asked)
    data = StagesData(variant=variant, rows=tuple(rows), gpu=trace.to_dict(), gpu_reason=trace.reason, **asked)
    subject = Subject(
        name=f"{variant.id}-{size}px",
        batch_sizes=(options.batch_size,),
        precision=options.precision,
        threads=threads if device.type == "cpu" else None,
        sha256=None if variant in VARIANTS else row_sha256(variant),
    )
    settings = {
        "schedule": schedule.to_dict(),
        "clock": STAGE_CLOCKS[device.type],
        "threads": subject.threads,
        "mode": "evaluation, batch norm folded into the convolutions, channels last",
        "input": "random normal numbers of a fixed seed; batch-norm statistics of such numbers",
    }
    return Result(
        kind="stages",
        name=f"{subject.name}-b{options.batch_size}-{options.precision}",
        environment=measured_on(name),
        settings={"subjects": [subject.to_dict()], **settings},
        data=data.to_dict(),
    )


@contextmanager
def torch_threads(asked: int | None) -> Iterator[int]:
    """PyTorch's threads while the block runs, as they are in effect; they are put back afterwards."""
    import torch

    before = torch.get_num_threads()
    torch.set_num_threads(asked or before)
    try:
        yield torch.get_num_threads()
    finally:
        torch.set_num_threads(before)


def _schedule(options: LatencyOptions | StagesOptions) -> Schedule:
    return Schedule(warmup_ms=options.warmup_ms, duration_ms=options.duration_s * 1000, rounds=options.rounds)


def _default_sizes(opened: Sequence[OpenArtifact]) -> list[int]:
    limits = [limit for one in opened if (limit := one.runner.max_batch_size) is not None]
    return sorted({min(size, *limits) if limits else size for size in DEFAULT_BATCH_SIZES})


def _device_of(runner: Runner) -> str:
    """A runner on a processor calls it "CPU"; a result names which one."""
    return runner.device if is_gpu(runner.device) else processor_name()


def _timed_artifact(opened: OpenArtifact) -> TimedArtifact:
    contract = opened.runner.contract
    return TimedArtifact(
        artifact=opened.name,
        model=contract.model,
        backend=opened.runner.backend,
        device=_device_of(opened.runner),
        image_size=contract.preprocessing.image_size,
        num_classes=len(contract.classes),
    )


def _short_names(pairs: Sequence[tuple[str, str]]) -> list[str]:
    """File names without their folders, as far as they tell artifacts apart, and back ends where one has several."""
    artifacts, backends = dict.fromkeys(artifact for artifact, _ in pairs), Counter(pairs)
    often = Counter(Path(artifact).name for artifact in artifacts)
    names = []
    for artifact, backend in pairs:
        short = Path(artifact).name
        name = short if often[short] == 1 else artifact
        alone = sum(other == artifact for other, _ in backends) == 1
        names.append(name if alone else f"{name} {backend}")
    return names
