"""Owns one benchmark from what a user asked for to the `Result` that is kept; what is measured is its neighbours'."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from pathlib import Path

from export.backends import choose_backend, pair_with_backends
from export.runners.open import open_runner
from export.runners.runner import Runner
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
from serve.bench.measure.timing import Schedule
from serve.bench.options import LatencyOptions
from zoo.machine import processor_name
from zoo.results import Result, measured_on
from zoo.wording import joined

DEFAULT_BATCH_SIZES = (1, 8)

HOST_CLOCK = (
    "the host's clock (perf_counter_ns) around Runner.infer, one batch in flight: copies to and from the device inside"
)


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
        ZooError and its kinds: as `open_runner` and `serve.bench.measure.latency.compare_latency`.
    """
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


def _schedule(options: LatencyOptions) -> Schedule:
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
