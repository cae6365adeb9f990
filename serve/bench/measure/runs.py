"""Owns one benchmark from the names a user gives to the `Result` that is kept; what is measured is its neighbours'."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING, Any

from export.runners.open import open_runner
from export.runners.runner import Runner
from serve.bench.measure.gpu_trace import GpuTrace, is_gpu
from serve.bench.measure.latency import Subject, compare_latency, compare_rows, measure_picture, real_pictures
from serve.bench.measure.timing import Schedule
from zoo.errors import ZooError
from zoo.machine import Device, processor_name
from zoo.results import Result, measured_on
from zoo.weights.resolve import find_model_variant

if TYPE_CHECKING:
    from serve.bench.measure.stage_timing import Precision
    from serve.bench.measure.stages import StageRow

Say = Callable[[str], None]
DEFAULT_BATCH_SIZES = (1, 8)

HOST_CLOCK = (
    "the host's clock (perf_counter_ns) around Runner.infer, one batch in flight: copies to and from the device inside"
)
STAGE_CLOCKS = {
    "cuda": "CUDA events around each replay of a CUDA graph: launches, Python and transfers outside",
    "cpu": "the host's clock (perf_counter_ns) around each call in PyTorch's eager mode",
}


def bench_latency(
    artifacts: Sequence[str],
    *,
    batch_sizes: Sequence[int] = (),
    device: Device = "auto",
    threads: int | None = None,
    schedule: Schedule | None = None,
    say: Say = lambda line: None,
    open_artifact: Callable[..., Runner] = open_runner,
) -> Result:
    """Open artifacts, check their answers, and time them in turn on real pictures.

    Args:
        artifacts: paths or model ids, as `export.runners.open.open_runner` takes them; the first is the baseline.
        batch_sizes: empty takes 1 and 8, or 1 and the largest batch all of them take.
        device: as in `open_runner`.
        threads: as in `open_runner`.
        schedule: how long to measure each artifact at each batch size.
        say: hears what is being done, one line at a time.
        open_artifact: the seam to `open_runner`.

    Raises:
        ZooError and its kinds: as `open_runner` and `serve.bench.measure.latency.compare_latency`.
    """
    schedule = schedule or Schedule()
    names = _short_names(artifacts)
    with ExitStack() as stack:
        subjects = []
        for name, artifact in zip(names, artifacts, strict=True):
            say(f"opening {name}")
            runner = stack.enter_context(open_artifact(artifact, device=device, threads=threads))
            pictures, source = real_pictures(runner.contract)
            say(f"{name}: {runner.backend}, {_device_of(runner)}, {len(pictures)} pictures of {source}")
            subjects.append(Subject(name=name, runner=runner, pictures=pictures))
        sizes = sorted(set(batch_sizes)) or _default_sizes(subjects)
        devices = list(dict.fromkeys(_device_of(subject.runner) for subject in subjects))
        gpu = next((name for name in devices if is_gpu(name)), devices[0])
        picture = measure_picture(subjects[0].runner.contract.preprocessing)
        with GpuTrace(gpu) as trace:
            rows = list(compare_latency(subjects, batch_sizes=sizes, schedule=schedule, on_progress=say))
        described = [_describe(subject) for subject in subjects]
    return Result(
        kind="latency",
        name=" vs ".join(names),
        environment=measured_on(" and ".join(devices)),
        settings={
            "batch_sizes": sizes,
            "device": device,
            "threads": threads,
            "schedule": schedule.to_dict(),
            "clock": HOST_CLOCK,
            "batches_in_flight": 1,
        },
        data={
            "artifacts": described,
            "rows": [row.to_dict() for row in rows],
            "comparisons": compare_rows(rows),
            "picture": picture,
            "gpu": trace.to_dict(),
            "gpu_reason": trace.reason,
        },
    )


def bench_stages(
    model: str,
    *,
    image_size: int | None = None,
    batch_size: int = 1,
    device: Device = "auto",
    precision: Precision = "fp32",
    threads: int | None = None,
    schedule: Schedule | None = None,
    on_row: Callable[[StageRow], None] = lambda row: None,
) -> Result:
    """Time every stage of MODEL as MBConv and as Fused-MBConv.

    Args:
        model: a variant's id or a checkpoint, whose row is used; the weights are not.
        image_size: side of the pictures in pixels; the variant's eval size by default.
        batch_size: pictures at once.
        device: "auto" takes a GPU that works.
        precision: of weights, activations and multiplications.
        threads: PyTorch's threads on a processor; None leaves them.
        schedule: how long to measure each form of each stage.
        on_row: hears of each stage when it is known.

    Raises:
        ZooError and its kinds: as `zoo.weights.resolve.find_model_variant`, `zoo.machine.choose_device` and
            `serve.bench.measure.stage_timing.measure_stages`.
    """
    import torch

    from serve.bench.measure.stage_timing import measure_stages
    from serve.bench.measure.stages import total_ms
    from zoo.machine import choose_device

    variant = find_model_variant(model)
    if variant.is_resnet:
        raise ZooError(f"{variant.id} has no MBConv stages to compare.", "`zoo bench latency` times it as a whole.")
    chosen = torch.device(choose_device(device))
    image_size, schedule = image_size or variant.eval_size, schedule or Schedule(duration_ms=1000.0)
    threads_before = torch.get_num_threads()
    threads = threads or threads_before
    name = torch.cuda.get_device_name() if chosen.type == "cuda" else processor_name()
    torch.set_num_threads(threads)
    try:
        with GpuTrace(name) as trace:
            rows = measure_stages(
                variant,
                image_size=image_size,
                batch_size=batch_size,
                device=chosen,
                precision=precision,
                schedule=schedule,
                on_row=on_row,
            )
    finally:
        torch.set_num_threads(threads_before)
    return Result(
        kind="stages",
        name=f"{variant.id}-{image_size}px-b{batch_size}-{precision}",
        environment=measured_on(name),
        settings={
            "schedule": schedule.to_dict(),
            "clock": STAGE_CLOCKS[chosen.type],
            "threads": threads if chosen.type == "cpu" else None,
            "mode": "evaluation, batch norm folded into the convolutions, channels last",
            "input": "random normal numbers of a fixed seed; batch-norm statistics of such numbers",
        },
        data={
            "model": variant.id,
            "variant": variant.to_dict(),
            "image_size": image_size,
            "batch_size": batch_size,
            "precision": precision,
            "rows": [row.to_dict() for row in rows],
            "total_ms": total_ms(rows),
            "gpu": trace.to_dict(),
            "gpu_reason": trace.reason,
        },
    )


def _default_sizes(subjects: Sequence[Subject]) -> list[int]:
    limits = [limit for subject in subjects if (limit := subject.runner.max_batch_size) is not None]
    return sorted({min(size, *limits) if limits else size for size in DEFAULT_BATCH_SIZES})


def _device_of(runner: Runner) -> str:
    """A runner on a processor calls it "CPU"; a result names which one."""
    return runner.device if is_gpu(runner.device) else processor_name()


def _describe(subject: Subject) -> dict[str, Any]:
    contract = subject.runner.contract
    return {
        "artifact": subject.name,
        "model": contract.model,
        "backend": subject.runner.backend,
        "device": _device_of(subject.runner),
        "image_size": contract.preprocessing.image_size,
        "num_classes": len(contract.classes),
    }


def _short_names(artifacts: Sequence[str]) -> list[str]:
    """File names without their folders, as far as they tell the artifacts apart."""
    short = [Path(artifact).name for artifact in artifacts]
    often = Counter(short)
    return [name if often[name] == 1 else artifact for name, artifact in zip(short, artifacts, strict=True)]
