"""Owns calls and loops whose times are known beforehand: what the harness is checked with; it checks nothing itself."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from zoo.measure.timing import Clock, Samples, Schedule

# Milliseconds and how many calls in two hundred take so long: percentiles far apart, so that none can be mistaken.
KNOWN_TIMES_MS: tuple[tuple[float, int], ...] = ((1.0, 178), (2.0, 12), (4.0, 6), (8.0, 4))


def known_times_ms(seed: int = 0) -> list[float]:
    """The times of `KNOWN_TIMES_MS` in a random order."""
    times = [ms for ms, count in KNOWN_TIMES_MS for _ in range(count)]
    return [float(ms) for ms in np.random.default_rng(seed).permutation(times)]


def busy(ms: float, clock: Clock = time.perf_counter_ns) -> None:
    """Keep the processor busy for so long."""
    end = clock() + round(ms * 1e6)
    while clock() < end:
        pass


def busy_calls(times_ms: Sequence[float], spend: Callable[[float], None] = busy) -> Callable[[], None]:
    """A call that takes as long as the next of the times; after the last it is the first's turn."""

    def times() -> Iterator[float]:
        while True:
            yield from times_ms

    following = times()
    return lambda: spend(next(following))


def slowed(
    call: Callable[[], object],
    factor: float,
    *,
    clock: Clock = time.perf_counter_ns,
    spend: Callable[[float], None] = busy,
) -> Callable[[], object]:
    """The same call, but it takes `factor` times as long: for the rest of the time the processor is kept busy."""

    def slower() -> object:
        start = clock()
        answer = call()
        spend((clock() - start) / 1e6 * (factor - 1))
        return answer

    return slower


def queue_latencies_ms(arrivals_ns: Sequence[int], services_ms: Sequence[float]) -> list[float]:
    """What pictures that arrive then take, one at a time, in order: Lindley's recursion (1952).

    A picture waits for what is left of those before it: of two at 0 and 10 ms that take 30 ms each, 30 and 50 ms.
    """
    free, latencies = 0.0, []
    for arrival, service in zip(arrivals_ns, services_ms, strict=True):
        came = arrival / 1e6
        free = max(free, came) + service
        latencies.append(free - came)
    return latencies


def plain_loop(graph: bytes, batch: NDArray[Any], *, threads: int) -> Callable[[Schedule], Samples]:
    """A loop around ONNX Runtime as anybody would write it, with nothing of the harness in it; a visit of it."""
    import onnxruntime as ort

    options = ort.SessionOptions()
    options.intra_op_num_threads = threads
    session = ort.InferenceSession(graph, options, providers=["CPUExecutionProvider"])
    fed = {session.get_inputs()[0].name: batch}

    def visit(schedule: Schedule) -> Samples:
        times: list[float] = []
        session.run(None, fed)
        begin = time.perf_counter()
        while time.perf_counter() - begin < schedule.duration_ms / 1000 or len(times) < schedule.min_iterations:
            start = time.perf_counter()
            session.run(None, fed)
            times.append(1000 * (time.perf_counter() - start))
        return Samples(tuple(times), 1000 * (time.perf_counter() - begin))

    return visit
