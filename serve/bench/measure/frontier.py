"""Owns the family's frontier: networks timed in turn in one engine, beside what is published; it draws nothing."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from functools import partial
from itertools import combinations
from typing import Annotated, Any

import numpy as np

from export.runners.runner import Runner
from serve.bench.measure.latency import Time
from serve.bench.measure.memory import check_batch
from serve.bench.measure.opened import OpenArtifact, check_answers, real_pictures
from serve.bench.measure.published import ACCURACIES, TIMES, PublishedTime
from serve.bench.measure.ratio import Ratio, paired_ratio
from serve.bench.options import FrontierOptions
from zoo.errors import ZooError
from zoo.machine import choose_device, processor_name
from zoo.measure.gpu_trace import GpuTrace, is_gpu
from zoo.measure.rounds import Rounds, measure_rounds, plan_rounds
from zoo.measure.timing import Call, Schedule
from zoo.model.counts import count_macs, count_params
from zoo.model.spec import Variant
from zoo.model.variants import find_variant
from zoo.results import Result, Subject, Summary, measured_on
from zoo.rows import Count, Positive, Row, Some, Text

# What the others are compared with, if it is among them: the network of the paper's headline.
BASELINE = "s"
CLOCK = "the host's clock (perf_counter_ns) around Runner.infer, one batch in flight, all networks in turn"


@dataclass(frozen=True, kw_only=True)
class FrontierRow(Row):
    """One network: published accuracy, measured time per batch, and its time as a share of the baseline's.

    It is on the frontier where no other one that was measured is as accurate and as fast, or better in one of them.
    """

    model: Text
    family: Text
    image_size: Count
    num_params: Count
    macs: Count
    top1_percent: Positive
    top1_source: Text
    latency: Summary
    ratio: Ratio | None
    on_frontier: bool


@dataclass(frozen=True, kw_only=True)
class FrontierData(Row):
    """The data of a result of `zoo bench zoo`. `published` are times of the same networks elsewhere."""

    written_too = ("quiet",)

    rows: Annotated[tuple[FrontierRow, ...], Some()]
    baseline: Text
    batch_size: Count
    engine: Text
    published: tuple[PublishedTime, ...]
    rounds: Rounds
    gpu: Mapping[str, Any] | None
    gpu_reason: str

    @property
    def quiet(self) -> bool:
        """Whether the machine left enough rounds undisturbed."""
        return self.rounds.quiet

    def published_ratio(self, model: str, setup: str) -> float | None:
        """The time of a network as a share of the baseline's, as published of a setup."""
        times = {row.model: row.ms for row in self.published if row.setup == setup}
        return times[model] / times[self.baseline] if {model, self.baseline} <= times.keys() else None

    def agreement(self, setup: str) -> tuple[int, int]:
        """How many pairs of networks are ordered here as in a published setup, and of how many pairs."""
        times = {row.model: row.ms for row in self.published if row.setup == setup}
        here = {row.model: row.latency.p50_ms for row in self.rows if row.model in times}
        pairs = list(combinations(here, 2))
        same = sum((here[one] < here[other]) == (times[one] < times[other]) for one, other in pairs)
        return same, len(pairs)


def bench_zoo(
    options: FrontierOptions,
    *,
    schedule: Schedule | None = None,
    say: Callable[[str], None] = lambda line: None,
    open_network: Callable[[Variant, FrontierOptions], Runner] | None = None,
    when: Time | None = None,
) -> Result:
    """Export every network with random weights, at its own size, and time all of them in turn.

    What a network computes costs the same with any weights; accuracy is what is published of trained ones.

    Args:
        options: without models all of which an accuracy is published.
        schedule: instead of the one that the options ask for.
        say: is told what is being done.
        open_network: opens a network; tests put a fake here.
        when: the clock; tests put a simulated one here.

    Raises:
        ZooError: a network of which no accuracy is published, or a batch that there is no memory for;
        UnknownNameError: there is no such network.
        VerdictError: answers that are not finite or not repeatable.
    """
    models = list(dict.fromkeys(options.models)) or list(ACCURACIES)
    variants = [find_variant(model) for model in models]
    unknown = [variant.id for variant in variants if variant.id not in ACCURACIES]
    if unknown:
        raise ZooError(
            f"No accuracy is published of {unknown[0]}, so it has no place on the frontier.",
            f"Those that have one: {', '.join(ACCURACIES)}.",
        )
    for variant in variants:
        check_batch(options.batch_size, variant.eval_size, on=choose_device(options.device), variant=variant)
    schedule = schedule or plan_rounds(options.duration_s, warmup_ms=options.warmup_ms, rounds=options.rounds)
    when = when or Time()
    calls: dict[str, Call] = {}
    runner: Runner | None = None
    with ExitStack() as stack:
        for variant in variants:
            say(f"{variant.id}: exporting with random weights at {variant.eval_size} px")
            runner = stack.enter_context((open_network or _open)(variant, options))
            calls[variant.id] = _checked_call(variant, runner, options.batch_size)
        assert runner is not None  # there is one network at least
        device = runner.device if is_gpu(runner.device) else processor_name()
        threads, engine = runner.threads, runner.backend
        say(f"timing {len(calls)} networks in turn")
        with GpuTrace(device) as trace:
            rounds = measure_rounds(
                calls,
                schedule,
                clock=when.clock,
                watch=when.watch,
                on_round=lambda index, visits: say(f"round {index + 1}"),
            )
    baseline = BASELINE if BASELINE in calls else variants[0].id
    data = FrontierData(
        rows=_rows(variants, rounds, baseline),
        baseline=baseline,
        batch_size=options.batch_size,
        engine=engine,
        published=tuple(row for row in TIMES if row.model in calls),
        rounds=rounds,
        gpu=trace.to_dict(),
        gpu_reason=trace.reason,
    )
    name = f"{len(calls)} networks" if len(calls) > 4 else " ".join(calls)
    subject = Subject(name=name, batch_sizes=(options.batch_size,), precision="fp32", threads=threads)
    return Result(
        kind="zoo",
        name=name,
        environment=measured_on(device),
        settings={
            "subjects": [subject.to_dict()],
            "schedule": schedule.to_dict(),
            "clock": CLOCK,
            "mode": f"{engine}, random weights, every network at its own size",
        },
        data=data.to_dict(),
    )


def _open(variant: Variant, options: FrontierOptions) -> Runner:
    """A network with random weights, exported in memory and opened in ONNX Runtime."""
    from export.contract import Contract
    from export.graph import export_onnx
    from export.runners.onnx_runtime import OnnxRunner
    from export.source import NUM_CLASSES, make_random_network

    classes = tuple(f"class {index}" for index in range(NUM_CLASSES))
    contract = Contract(model=variant.id, classes=classes, preprocessing=variant.preprocessing)
    graph = export_onnx(make_random_network(variant, variant.preprocessing), contract, checkpoint={})
    return OnnxRunner(graph.SerializeToString(), device=options.device, threads=options.threads, artifact=variant.id)


def _checked_call(variant: Variant, runner: Runner, batch_size: int) -> Call:
    pictures, _ = real_pictures(runner.contract)
    artifact = OpenArtifact(name=variant.id, runner=runner, pictures=pictures)
    batch = np.ascontiguousarray(artifact.batch(batch_size))
    check_answers(artifact, batch)
    return partial(runner.infer, batch)


def _rows(variants: Sequence[Variant], rounds: Rounds, baseline: str) -> tuple[FrontierRow, ...]:
    summaries = {variant.id: rounds.summary(variant.id) for variant in variants}
    points = {name: (ACCURACIES[name].top1_percent, summary.p50_ms) for name, summary in summaries.items()}
    base = rounds.medians_ms(baseline)
    return tuple(
        FrontierRow(
            model=variant.id,
            family=variant.family,
            image_size=variant.eval_size,
            num_params=count_params(variant),
            macs=count_macs(variant),
            top1_percent=ACCURACIES[variant.id].top1_percent,
            top1_source=ACCURACIES[variant.id].source,
            latency=summaries[variant.id],
            ratio=None if variant.id == baseline else paired_ratio(rounds.medians_ms(variant.id), base),
            on_frontier=is_on_frontier(variant.id, points),
        )
        for variant in variants
    )


def is_on_frontier(name: str, points: Mapping[str, tuple[float, float]]) -> bool:
    """Whether no other one is as accurate and as fast, and better in one of the two; points are (accuracy, time)."""
    top1, ms = points[name]
    return not any(
        other_top1 >= top1 and other_ms <= ms and (other_top1, other_ms) != (top1, ms)
        for other, (other_top1, other_ms) in points.items()
        if other != name
    )
