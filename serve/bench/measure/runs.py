"""Owns one benchmark from what a user asked for to the `Result` that is kept; what is measured is its neighbours'."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from serve.bench.measure.gpu_trace import GpuTrace
from serve.bench.measure.stages import StageRow, StagesData
from serve.bench.measure.timing import Schedule
from serve.bench.options import StagesOptions
from zoo.errors import ZooError
from zoo.machine import choose_device, processor_name
from zoo.model.variants import VARIANTS
from zoo.results import Result, Subject, measured_on, row_sha256
from zoo.weights.resolve import find_model_variant

STAGE_CLOCKS = {
    "cuda": "CUDA events around each replay of a CUDA graph: launches, Python and transfers outside",
    "cpu": "the host's clock (perf_counter_ns) around each call in PyTorch's eager mode",
}


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


def _schedule(options: StagesOptions) -> Schedule:
    return Schedule(warmup_ms=options.warmup_ms, duration_ms=options.duration_s * 1000, rounds=options.rounds)
