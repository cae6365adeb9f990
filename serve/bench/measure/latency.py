"""Owns the latency of artifacts as a client sees it: real pictures in, logits out, in each scenario; it opens none.

What is timed is `Runner.infer` on the host's clock, so copies to and from a GPU are inside. It never times an artifact
whose answers it has not checked, and it knows no back end.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Annotated

import numpy as np
from numpy.typing import NDArray

from export.runners.apart import Parts, runs_apart
from serve.bench.measure.latency_data import LatencyRow, PartTimes, Setting, Turn
from serve.bench.measure.loadgen import LoadGen
from serve.bench.measure.opened import OpenArtifact, check_answers, check_memory
from serve.bench.measure.scenarios import RATE_SHARES, Server, Wait, after_silence, wait_until
from serve.bench.options import Driver, Rate, ScenarioId
from zoo.errors import ZooError
from zoo.measure.gpu_trace import is_gpu
from zoo.measure.rounds import MIN_ROUNDS, Rounds, Visiting, Watches, measure_rounds
from zoo.measure.timing import Clock, Schedule, time_call
from zoo.results import summarize
from zoo.rows import Count, NotNegative, Row, Some, field_types
from zoo.wording import joined

# Silences of `--idle-gap`, ms; 0 is none, in turn with the others.
IDLE_GAPS_MS = (0.0, 10.0, 100.0, 1000.0)
# Calls after each silence: twenty of a second each are patience enough.
IDLE_ROUNDS = 20
# Calls whose parts are waited for one by one, after the rounds.
PART_CALLS = 100
# What a capacity is known from before rates are chosen.
CAPACITY = Schedule(warmup_ms=50.0, duration_ms=200.0, min_iterations=5, rounds=1)


@dataclass(frozen=True, kw_only=True)
class LatencyPlan(Row):
    """Which ways artifacts are called: the scenario, its batches, for "server" its rates, and the silences before."""

    schedule: Schedule
    batch_sizes: Annotated[tuple[Count, ...], Some()]
    scenario: ScenarioId = "single_stream"
    rates: tuple[Rate, ...] = ()
    idle_gaps_ms: tuple[NotNegative, ...] = ()
    driver: Driver = "zoo"

    @property
    def way(self) -> str | None:
        """What tells this from the usual way of calling, in words; None where it is the usual one."""
        scenario = "" if self.scenario == "single_stream" else self.scenario.replace("_", " ")
        said = filter(None, (scenario, "loadgen" if self.driver == "loadgen" else "", "idle" * bool(self.idle_gaps_ms)))
        return " ".join(said) or None


@dataclass(frozen=True, kw_only=True)
class Time:
    """The clock of a measurement, and how it waits; tests put a simulated one here, and a watch of no machine."""

    clock: Clock = time.perf_counter_ns
    sleep: Callable[[float], None] = time.sleep
    wait: Wait = wait_until
    watch: Watches | None = None


def measure_latency(
    artifacts: Sequence[OpenArtifact],
    plan: LatencyPlan,
    *,
    image_size: int | None = None,
    on_progress: Callable[[str], None] = lambda line: None,
    when: Time | None = None,
) -> Iterator[tuple[Turn, list[LatencyRow]]]:
    """Check every artifact, then call all of them in turn (A B A B…), one way after the other.

    Args:
        artifacts: what is compared; the first is the baseline.
        plan: the ways.
        image_size: told in the setting where artifacts are measured at several.
        on_progress: is told what is being done.
        when: the clock.

    Raises:
        ZooError: a batch size that an artifact does not take, or that this machine has no memory for.
        VerdictError: an artifact whose answers are not finite, misshapen, or change from call to call.
    """
    when = when or Time()
    for artifact in artifacts:
        limit = artifact.runner.max_batch_size
        if limit is not None and max(plan.batch_sizes) > limit:
            raise ZooError(
                f"{artifact.name} takes at most {limit} pictures at once, not {max(plan.batch_sizes)}.",
                f"Pass --batch-size {limit} or less, or export it with a larger profile.",
            )
        check_memory(artifact, max(plan.batch_sizes))
    for size in plan.batch_sizes:
        setting = Setting(batch_size=size, scenario=plan.scenario, image_size=image_size, driver=plan.driver)
        fed = []
        for artifact in artifacts:
            on_progress(f"{artifact.name}, {setting.label}: checking the answers")
            batch = artifact.batch(size)
            fed.append(Fed(artifact, batch, check_answers(artifact, batch)))
        for turn, mean_batches in _turns(fed, setting, plan, when, on_progress):
            yield turn, [_row(turn, one, mean_batches.get(one.name)) for one in fed]


@dataclass(frozen=True)
class Fed:
    """An artifact and the batch it is fed; `difference` is what two calls on it differed by."""

    artifact: OpenArtifact
    batch: NDArray[np.uint8]
    difference: float

    @property
    def name(self) -> str:
        """The artifact's."""
        return self.artifact.name

    def infer(self, count: int) -> object:
        """Answer the first so many pictures of the batch."""
        return self.artifact.runner.infer(self.batch[:count])

    def infer_all(self) -> object:
        """Answer the batch."""
        return self.artifact.runner.infer(self.batch)


def _turns(
    fed: Sequence[Fed], setting: Setting, plan: LatencyPlan, when: Time, on_progress: Callable[[str], None]
) -> Iterator[tuple[Turn, Mapping[str, float]]]:
    """Every turn at one batch size, with the mean batch of each artifact where a server chose it."""
    names = joined(one.name for one in fed)
    if setting.scenario == "server":
        for rate in plan.rates or _rates(fed, when):
            offered = replace(setting, offered_per_second=rate)
            on_progress(f"{offered.label}: timing {names}")
            yield _serve(fed, offered, plan, when)
        return
    on_progress(f"{setting.label}: timing {names}")
    visits: Mapping[str, Visiting] | None = None
    if setting.driver == "loadgen":
        visits = {one.name: LoadGen(one.infer, setting).visit for one in fed}
    calls = {one.name: one.infer_all for one in fed}
    rounds = measure_rounds(calls, plan.schedule, visits=visits, clock=when.clock, watch=when.watch)
    yield Turn(**setting.facts, rounds=rounds), {}
    if plan.idle_gaps_ms and setting.batch_size == min(plan.batch_sizes):
        on_progress(f"{setting.label}, after silences: timing {names}")
        for gap, of_gap in _after_silences(fed, plan, when).items():
            yield Turn(**{**setting.facts, "idle_ms": gap}, rounds=of_gap), {}


def _serve(fed: Sequence[Fed], setting: Setting, plan: LatencyPlan, when: Time) -> tuple[Turn, Mapping[str, float]]:
    """One rate; every batch that may be taken is prepared before any is timed."""
    rate = setting.offered_per_second or 1.0
    servers = {one.name: Server(one.infer, setting.batch_size, rate, when.clock, when.wait) for one in fed}
    visits: dict[str, Visiting] = {name: server.visit for name, server in servers.items()}
    if setting.driver == "loadgen":
        visits = {one.name: LoadGen(one.infer, setting).visit for one in fed}
    for one in fed:
        for count in range(1, setting.batch_size + 1):
            one.infer(count)
    rounds = measure_rounds(
        {one.name: partial(one.infer, 1) for one in fed},
        replace(plan.schedule, rounds=min(plan.schedule.rounds, MIN_ROUNDS)),
        visits=visits,
        clock=when.clock,
        watch=when.watch,
    )
    mean_batches = {name: sum(one.taken) / len(one.taken) for name, one in servers.items() if one.taken}
    return Turn(**setting.facts, rounds=rounds), mean_batches


def _rates(fed: Sequence[Fed], when: Time) -> list[float]:
    """Pictures a second that the slowest artifact can bear in part: `RATE_SHARES` of what it answers at all."""
    capacities = []
    for one in fed:
        counts = sorted({1, len(one.batch)})
        times = [time_call(partial(one.infer, count), CAPACITY, clock=when.clock) for count in counts]
        capacities.append(max(count * 1000 / of.median_ms for count, of in zip(counts, times, strict=True)))
    return [float(f"{share * min(capacities):.3g}") for share in RATE_SHARES]


def _after_silences(fed: Sequence[Fed], plan: LatencyPlan, when: Time) -> dict[float, Rounds]:
    """Every artifact after every silence, all in turn; the rounds of each silence."""
    named = {(one.name, gap): f"{one.name}, {gap:g} ms" for gap in plan.idle_gaps_ms for one in fed}
    calls = {one.name: one.infer_all for one in fed}
    rounds = measure_rounds(
        {label: calls[name] for (name, _), label in named.items()},
        replace(plan.schedule, rounds=min(plan.schedule.rounds, IDLE_ROUNDS), duration_ms=0.0),
        visits={
            label: after_silence(calls[name], gap, clock=when.clock, sleep=when.sleep)
            for (name, gap), label in named.items()
        },
        clock=when.clock,
        watch=when.watch,
    )
    return {
        gap: replace(rounds, tracks=tuple(replace(rounds.track(named[name, gap]), name=name) for name in calls))
        for gap in plan.idle_gaps_ms
    }


def measure_parts(fed: Fed) -> PartTimes | None:
    """The parts of calls on a GPU in a pass of their own; None on a processor, or where the runner tells none."""
    runner = runs_apart(fed.artifact.runner)
    if runner is None or not is_gpu(fed.artifact.runner.device):
        return None
    parts = [runner.infer_apart(fed.batch)[1] for _ in range(PART_CALLS)]
    kinds = [[getattr(one, name) for one in parts] for name in field_types(Parts)]
    to_device, compute, to_host = map(summarize, kinds)
    whole = summarize(map(sum, zip(*kinds, strict=True)))
    return PartTimes(host_to_device=to_device, compute=compute, device_to_host=to_host, end_to_end=whole)


def _row(turn: Turn, fed: Fed, mean_batch: float | None) -> LatencyRow:
    summary = turn.rounds.summary(fed.name)
    each = 1 if turn.scenario == "server" else turn.batch_size  # a server's samples are pictures, others' batches
    return LatencyRow(
        **turn.facts,
        artifact=fed.name,
        latency=summary,
        pictures_per_second=summary.n * each / turn.rounds.wall_s(fed.name),
        round_p50_ms=turn.rounds.medians_ms(fed.name),
        max_difference=fed.difference,
        mean_batch=mean_batch,
        parts=measure_parts(fed) if turn.scenario != "server" and turn.idle_ms is None else None,
    )
