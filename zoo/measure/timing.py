"""Owns how a call is timed: warm-up, duration, rounds in turn, the host's clock or CUDA events; it judges nothing.

Two timers, never mixed in one comparison: `time_call` reads the host's clock around a call that has finished when it
returns; `time_cuda` reads the GPU's own clock around work that is queued on a stream.
"""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

from zoo.results import percentile
from zoo.rows import Count, CountOrNone, NotNegative, Row

Call = Callable[[], object]
Clock = Callable[[], int]

# Calls queued beyond the one being measured. With none the GPU would idle between calls and every sample would
# contain a launch; trtexec keeps two queries in flight for the same reason.
QUEUED_AHEAD = 2


@dataclass(frozen=True, kw_only=True)
class Schedule(Row):
    """How long to measure: until both the duration and the number of iterations are reached.

    Defaults are trtexec's: 200 ms of warm-up, 3 s, at least 10 iterations (samples/common/sampleOptions.h). They are
    divided among `rounds` visits, so that clocks and temperatures that drift change everything compared alike.
    """

    warmup_ms: NotNegative = 200.0
    min_warmup_iterations: CountOrNone = 3
    duration_ms: NotNegative = 3000.0
    min_iterations: Count = 10
    rounds: Count = 5
    visit_warmup_iterations: CountOrNone = 1

    def visit(self, index: int) -> Schedule:
        """One round's share; only the first warms up in full, later ones with a call that refills caches."""
        duration_ms, min_iterations = self.duration_ms / self.rounds, -(-self.min_iterations // self.rounds)
        share = replace(self, duration_ms=duration_ms, min_iterations=min_iterations, rounds=1)
        again = replace(share, warmup_ms=0.0, min_warmup_iterations=self.visit_warmup_iterations)
        return again if index else share


@dataclass(frozen=True)
class Samples:
    """What one visit measured: milliseconds of each iteration, and the host's time for all of them together."""

    ms: tuple[float, ...]
    wall_ms: float

    @property
    def median_ms(self) -> float:
        """The median of the visit, an observed sample."""
        return percentile(sorted(self.ms), 50)


def pooled(visits: Sequence[Samples]) -> list[float]:
    """Every sample of several visits, ms."""
    return [sample for visit in visits for sample in visit.ms]


Timer = Callable[[Call, Schedule], Samples]


def time_call(call: Call, schedule: Schedule, *, clock: Clock = time.perf_counter_ns) -> Samples:
    """Time a synchronous call with the host's clock; `clock` counts nanoseconds."""
    _warm_up(call, schedule, clock)
    samples: list[float] = []
    start = end = clock()
    while len(samples) < schedule.min_iterations or end - start < schedule.duration_ms * 1e6:
        before = clock()
        call()
        end = clock()
        samples.append((end - before) / 1e6)
    return Samples(tuple(samples), (end - start) / 1e6)


def torch_event() -> Any:
    """An event on the current device's current stream, whose times are the GPU's own (resolution about 0.5 µs)."""
    import torch

    return torch.cuda.Event(enable_timing=True)  # type: ignore[no-untyped-call]


def time_cuda(
    call: Call,
    schedule: Schedule,
    *,
    new_event: Callable[[], Any] = torch_event,
    clock: Clock = time.perf_counter_ns,
) -> Samples:
    """Time queued GPU work: one pair of events per iteration, on the GPU's clock.

    `call` queues work on the current stream and returns; transfers and Python are outside unless `call` queues them.
    """

    def finish_warmup() -> None:
        # SYNC: warm-up is measured in time, and time means nothing for work that is only queued.
        mark = new_event()
        mark.record()
        mark.synchronize()

    def read(begin: Any, end: Any) -> float:
        # SYNC: on a pair QUEUED_AHEAD calls back, so the queue never runs dry while this thread waits.
        end.synchronize()
        return float(begin.elapsed_time(end))

    _warm_up(call, schedule, clock, finish_warmup)
    samples: list[float] = []
    pending: deque[tuple[Any, Any]] = deque()
    start = clock()
    call()  # not timed: the GPU is busy when the first event is recorded, so the first sample holds no launch gap
    while len(samples) < schedule.min_iterations or clock() - start < schedule.duration_ms * 1e6:
        begin, end = new_event(), new_event()
        begin.record()
        call()
        end.record()
        pending.append((begin, end))
        if len(pending) > QUEUED_AHEAD:
            samples.append(read(*pending.popleft()))
    samples += [read(*pair) for pair in pending]
    return Samples(tuple(samples), (clock() - start) / 1e6)


def time_in_turn(calls: Sequence[Call], schedule: Schedule, timer: Timer = time_call) -> list[list[Samples]]:
    """Time several calls in interleaved rounds, A B A B…; returns one list of visits per call."""
    visits: list[list[Samples]] = [[] for _ in calls]
    for index in range(schedule.rounds):
        for call, of_call in zip(calls, visits, strict=True):
            of_call.append(timer(call, schedule.visit(index)))
    return visits


def _warm_up(call: Call, schedule: Schedule, clock: Clock, finish: Callable[[], None] | None = None) -> None:
    start, iterations = clock(), 0
    while iterations < schedule.min_warmup_iterations or clock() - start < schedule.warmup_ms * 1e6:
        call()
        if finish:
            finish()
        iterations += 1
