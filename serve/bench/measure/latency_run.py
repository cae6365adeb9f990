"""Owns one run of `zoo bench latency`, from what a user asked for to the `Result` that is kept; it times nothing."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, replace
from pathlib import Path

from export.backends import choose_backend, pair_with_backends
from export.runners.open import open_runner
from export.runners.runner import Runner
from export.signature import require_signature
from serve.bench.measure.artifacts import describe_artifact
from serve.bench.measure.latency import IDLE_GAPS_MS, LatencyPlan, Time, measure_latency
from serve.bench.measure.latency_data import LatencyData, TimedArtifact, compare_rows
from serve.bench.measure.loadgen import load_loadgen
from serve.bench.measure.opened import OpenArtifact, real_pictures
from serve.bench.measure.picture import measure_picture
from serve.bench.measure.scenarios import SCENARIOS
from serve.bench.measure.sized import check_sizes, open_at_size
from serve.bench.options import LatencyOptions
from zoo.errors import ZooError
from zoo.machine import processor_name
from zoo.measure.gpu_trace import GpuTrace, is_gpu
from zoo.measure.rounds import plan_rounds
from zoo.measure.timing import Schedule
from zoo.results import Result, Subject, measured_on
from zoo.wording import joined

CLOCKS = {
    "zoo": "the host's clock (perf_counter_ns) around Runner.infer, one batch in flight: copies to and from the device "
    "inside",
    "loadgen": "MLPerf LoadGen's clock around Runner.infer, one batch in flight: copies to and from the device inside",
}
SERVER_CLOCK = "from the scheduled arrival of each picture to its answer"
# LoadGen's single stream is of single pictures.
LOADGEN_SINGLE_STREAM = (1,)


@dataclass(frozen=True)
class Opened:
    """An artifact that was opened, what it was opened from, in which back end, and the size it was asked to take."""

    one: OpenArtifact
    artifact: str
    backend: str
    image_size: int | None

    def describe(self, plan: LatencyPlan) -> Subject:
        """The artifact as the subject of a result."""
        backend = choose_backend(self.artifact, self.backend)
        subject = describe_artifact(self.artifact, backend, self.one, plan.batch_sizes)
        return replace(subject, way=plan.way)


def bench_latency(
    options: LatencyOptions,
    *,
    schedule: Schedule | None = None,
    say: Callable[[str], None] = lambda line: None,
    open_artifact: Callable[..., Runner] = open_runner,
    when: Time | None = None,
) -> Result:
    """Open artifacts, check their answers, and time them in turn on real pictures.

    Args:
        options: its artifacts are paths or model ids, as `export.runners.open.open_runner` takes them; the first is
            the baseline. Without batch sizes these are the scenario's, or what all artifacts take of them.
        schedule: instead of the one that the options ask for.
        say: is told what is being done, one line at a time.
        open_artifact: what opens an artifact; tests put a fake here.
        when: the clock; tests put a simulated one here.

    Raises:
        ZooError and its kinds: as `require_signature`, `open_runner` and
            `serve.bench.measure.latency.measure_latency`; an option that has no effect on what was asked for.
    """
    _check(options)
    if options.require_signature:
        for artifact in options.artifacts:
            require_signature(artifact, options.require_signature)
    schedule = schedule or plan_rounds(options.duration_s, warmup_ms=options.warmup_ms, rounds=options.rounds)
    with ExitStack() as stack:
        opened = list(_open(options, stack, open_artifact, say))
        plan = LatencyPlan(
            schedule=schedule,
            batch_sizes=tuple(sorted(set(options.batch_sizes)) or _default_sizes(options, opened)),
            scenario=options.scenario,
            rates=tuple(sorted(set(options.rates))),
            idle_gaps_ms=IDLE_GAPS_MS if options.idle_gap else (),
            driver=options.driver,
        )
        subjects = [each.describe(plan) for each in opened]
        devices = list(dict.fromkeys(_device_of(each.one.runner) for each in opened))
        picture = measure_picture(opened[0].one.runner.contract.preprocessing)
        turns, rows = [], []
        with GpuTrace(next(filter(is_gpu, devices), devices[0])) as trace:
            for size in dict.fromkeys(each.image_size for each in opened):
                alike = [each.one for each in opened if each.image_size == size]
                for turn, of_turn in measure_latency(alike, plan, image_size=size, on_progress=say, when=when):
                    turns.append(turn)
                    rows += of_turn
        data = LatencyData(
            artifacts=tuple(_timed_artifact(each.one) for each in opened),
            rows=tuple(rows),
            comparisons=compare_rows(rows, turns),
            picture=picture,
            gpu=trace.to_dict(),
            gpu_reason=trace.reason,
            turns=tuple(turns),
        )
    settings = {
        "batch_sizes": list(plan.batch_sizes),
        "device": options.device,
        "schedule": schedule.to_dict(),
        "clock": SERVER_CLOCK if plan.scenario == "server" else CLOCKS[plan.driver],
        "batches_in_flight": 1,
        "scenario": plan.scenario,
        "scenario_says": SCENARIOS[plan.scenario].says,
        "driver": plan.driver,
    }
    return Result(
        kind="latency",
        name=" vs ".join(subject.name for subject in subjects),
        environment=measured_on(joined(devices)),
        settings={"subjects": [subject.to_dict() for subject in subjects], **settings},
        data=data.to_dict(),
    )


def _check(options: LatencyOptions) -> None:
    """Refuse what would have no effect, before anything is opened."""
    if options.rates and options.scenario != "server":
        raise ZooError("--rate has no effect without --scenario server.", "Leave it out, or add --scenario server.")
    if options.idle_gap and (options.scenario != "single_stream" or options.driver != "zoo"):
        raise ZooError(
            "--idle-gap times single calls after a silence, so it goes with --scenario single_stream and --driver zoo.",
            "Measure it in a run of its own.",
        )
    if options.driver == "loadgen":
        load_loadgen()
    check_sizes(options.artifacts, options.image_sizes)


def _open(
    options: LatencyOptions, stack: ExitStack, open_artifact: Callable[..., Runner], say: Callable[[str], None]
) -> Iterator[Opened]:
    """Every artifact in every back end asked for, at every size."""
    pairs = pair_with_backends(options.artifacts, options.backends)
    for size in dict.fromkeys(options.image_sizes) or (None,):
        for short, (artifact, backend) in zip(_short_names(pairs), pairs, strict=True):
            name = f"{short} at {size} px" if size else short
            say(f"opening {name}")
            if size:
                runner = stack.enter_context(
                    open_at_size(artifact, size, device=options.device, threads=options.threads, backend=backend)
                )
            else:
                runner = stack.enter_context(
                    open_artifact(artifact, device=options.device, threads=options.threads, backend=backend)
                )
            pictures, source = real_pictures(runner.contract)
            say(f"{name}: {runner.backend}, {_device_of(runner)}, {len(pictures)} pictures of {source}")
            one = OpenArtifact(name=name, runner=runner, pictures=pictures)
            yield Opened(one, artifact, backend, size)


def _default_sizes(options: LatencyOptions, opened: Sequence[Opened]) -> list[int]:
    """The scenario's batch sizes, as far as every artifact takes them."""
    limits = [limit for each in opened if (limit := each.one.runner.max_batch_size) is not None]
    usual = SCENARIOS[options.scenario].batch_sizes
    if options.driver == "loadgen" and options.scenario == "single_stream":
        usual = LOADGEN_SINGLE_STREAM
    return sorted({min(size, *limits) if limits else size for size in usual})


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
    """File names without their folders, as far as they tell artifacts apart, and back ends where one has several.

    One that is named twice is opened twice, and the second is “s.onnx (2)”: equal artifacts may be compared.
    """
    artifacts, backends = dict.fromkeys(artifact for artifact, _ in pairs), Counter(pairs)
    often = Counter(Path(artifact).name for artifact in artifacts)
    names = []
    for artifact, backend in pairs:
        short = Path(artifact).name
        name = short if often[short] == 1 else artifact
        alone = sum(other == artifact for other, _ in backends) == 1
        names.append(name if alone else f"{name} {backend}")
    seen: Counter[str] = Counter()
    for place, name in enumerate(names):
        seen[name] += 1
        names[place] = name if seen[name] == 1 else f"{name} ({seen[name]})"
    return names
