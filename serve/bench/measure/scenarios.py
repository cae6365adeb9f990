"""Owns MLPerf's scenarios: how pictures come to an artifact, and what is read of the clock; it opens and judges none.

As in MLPerf Inference (mlcommons/inference_policies, inference_rules.adoc, “Scenarios”): single stream, one query
after the other; multi-stream, the same with several pictures a query; offline, all pictures at once; server, Poisson
arrivals.
"""

from __future__ import annotations

import time
from bisect import bisect_right
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Annotated

import numpy as np
from numpy.typing import NDArray

from serve.bench.options import ScenarioId
from zoo.measure.timing import Clock, Samples, Schedule
from zoo.rows import Count, Row, Some, Text, Within

Wait = Callable[[int], None]

# The scheduler wakes a sleeper late by up to about a millisecond; the rest of a wait is spent awake.
AWAKE_NS = 1_500_000
# Rates of the server scenario where none are asked for: shares of what the slowest artifact can answer at all.
RATE_SHARES = (0.5, 0.8, 0.95)
# A server's visit lasts so long, or is of so many pictures, at least: it begins with an empty queue, and a queue takes
# time to build up.
SERVER_VISIT_MS, SERVER_PICTURES = 1000.0, 1000
_SEED = 0


@dataclass(frozen=True, kw_only=True)
class Scenario(Row):
    """How pictures come, the batches where none are asked for, and the percentile MLPerf reports; None: the rate."""

    id: ScenarioId
    batch_sizes: Annotated[tuple[Count, ...], Some()]
    percent: Annotated[int, Within(1, 99)] | None
    says: Text


SCENARIOS: dict[ScenarioId, Scenario] = {
    row.id: row
    for row in (
        Scenario(
            id="single_stream",
            batch_sizes=(1, 8),
            percent=90,
            says="one batch after the other, the next when the last is answered",
        ),
        Scenario(
            id="multi_stream", batch_sizes=(8,), percent=99, says="queries of several pictures, one after the other"
        ),
        Scenario(id="offline", batch_sizes=(32,), percent=None, says="all pictures there at once, batch after batch"),
        Scenario(
            id="server",
            batch_sizes=(8,),
            percent=99,
            says="pictures arrive at random (Poisson), one by one; a free runner takes all that wait, up to the batch; "
            "latency counts from the scheduled arrival",
        ),
    )
}


def poisson_arrivals(
    per_second: float, duration_ms: float, rng: np.random.Generator, *, at_least: int = 1
) -> NDArray[np.int64]:
    """When pictures arrive, ns from the start: those before `duration_ms`, and `at_least` so many. (N,), ascending.

    The gaps of a Poisson process are exponential: 50 a second come 20 ms apart in the mean, with a deviation of 20 ms.
    """
    arrivals = np.empty(0)
    while len(arrivals) < at_least or arrivals[-1] < duration_ms * 1e6:
        gaps = rng.exponential(1e9 / per_second, size=max(at_least, int(per_second * duration_ms / 500) + 16))
        arrivals = np.concatenate([arrivals, (arrivals[-1] if len(arrivals) else 0.0) + np.cumsum(gaps)])
    return arrivals[: max(int(np.searchsorted(arrivals, duration_ms * 1e6)), at_least)].astype(np.int64)


def server_visit_ms(per_second: float, schedule: Schedule) -> float:
    """How long pictures arrive in one visit of the server scenario, ms."""
    return max(schedule.duration_ms, min(SERVER_VISIT_MS, SERVER_PICTURES * 1000 / per_second))


def wait_until(moment_ns: int, *, clock: Clock = time.perf_counter_ns) -> None:
    """Sleep until shortly before a moment of the clock, then stay awake until it comes."""
    rest = moment_ns - clock() - AWAKE_NS
    if rest > 0:
        time.sleep(rest / 1e9)
    while clock() < moment_ns:
        pass


def serve_arrivals(
    infer: Callable[[int], object],
    arrivals_ns: Sequence[int],
    most: int,
    *,
    clock: Clock = time.perf_counter_ns,
    wait: Wait = wait_until,
) -> tuple[Samples, list[int]]:
    """Answer pictures as they arrive, as many at once as wait, up to `most`; also how many each call took.

    A sample is the time from a picture's scheduled arrival to its answer: one that comes while the runner is busy
    waits, and its waiting counts, however late this loop sees it. So a slow call cannot hide the pictures behind it,
    which is what “coordinated omission” does where the next picture is only sent when the last is answered.
    """
    start, done, taken = clock(), 0, list[int]()
    latencies: list[float] = []
    while done < len(arrivals_ns):
        if clock() - start < arrivals_ns[done]:
            wait(start + int(arrivals_ns[done]))
        waiting = bisect_right(arrivals_ns, clock() - start, lo=done) - done
        count = min(max(waiting, 1), most)
        infer(count)
        end = clock() - start
        latencies += [(end - int(arrival)) / 1e6 for arrival in arrivals_ns[done : done + count]]
        taken.append(count)
        done += count
    return Samples(tuple(latencies), (clock() - start) / 1e6), taken


@dataclass
class Server:
    """An artifact under Poisson arrivals; each visit begins with an empty queue and ends with one.

    The arrivals of a visit depend on its number alone: all artifacts get the same ones. `taken` has how many pictures
    every call took.
    """

    infer: Callable[[int], object]
    most: int
    per_second: float
    clock: Clock = time.perf_counter_ns
    wait: Wait = wait_until
    taken: list[int] = field(default_factory=list)
    visits: int = 0

    def visit(self, schedule: Schedule) -> Samples:
        """Answer what arrives while a visit lasts."""
        rng = np.random.default_rng((_SEED, self.visits))
        duration_ms = server_visit_ms(self.per_second, schedule)
        arrivals = poisson_arrivals(self.per_second, duration_ms, rng, at_least=schedule.min_iterations)
        samples, taken = serve_arrivals(self.infer, arrivals.tolist(), self.most, clock=self.clock, wait=self.wait)
        self.visits += 1
        self.taken += taken
        return samples


def after_silence(
    call: Callable[[], object],
    idle_ms: float,
    *,
    clock: Clock = time.perf_counter_ns,
    sleep: Callable[[float], None] = time.sleep,
) -> Callable[[Schedule], Samples]:
    """A visit of one call after so much silence: caches are others', clocks have fallen, threads sleep."""

    def visit(schedule: Schedule) -> Samples:
        if idle_ms:
            sleep(idle_ms / 1000)
        start = clock()
        call()
        elapsed_ms = (clock() - start) / 1e6
        return Samples((elapsed_ms,), elapsed_ms)

    return visit
