from __future__ import annotations

from dataclasses import dataclass, field

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.serve.bench.measure.simulated import MS, HostClock
from zoo.measure.timing import QUEUED_AHEAD, Schedule, time_call, time_cuda, time_in_turn


@dataclass
class FakeGpu:
    """A GPU that works its queue off in order, on a clock of its own; waiting for it takes the host's time."""

    host: HostClock
    done_ms: float = 0.0
    calls: int = 0
    waits: int = 0
    most_queued: int = 0
    read: list[int] = field(default_factory=list)

    def launch(self, launch_ms: float, work_ms: float) -> None:
        self.host.pass_ms(launch_ms)
        # Work begins when it is launched, or when the work before it ends.
        self.done_ms = max(self.done_ms, self.host.now / MS) + work_ms
        self.calls += 1
        self.most_queued = max(self.most_queued, self.calls - max(self.read, default=0))

    def event(self) -> FakeEvent:
        return FakeEvent(self)


@dataclass
class FakeEvent:
    gpu: FakeGpu
    at_ms: float = -1.0
    after_calls: int = 0

    def record(self) -> None:
        self.at_ms = max(self.gpu.done_ms, self.gpu.host.now / MS)
        self.after_calls = self.gpu.calls

    def synchronize(self) -> None:
        assert self.at_ms >= 0, "synchronised with an event that was never recorded"
        self.gpu.waits += 1
        self.gpu.read.append(self.after_calls)
        self.gpu.host.now = max(self.gpu.host.now, round(self.at_ms * MS))

    def elapsed_time(self, end_event: FakeEvent) -> float:
        return end_event.at_ms - self.at_ms


def test_each_call_is_one_sample_of_its_own_time() -> None:
    clock = HostClock()
    durations = iter([9.0, 9.0, 9.0, 1.0, 2.0, 3.0, 4.0])  # three of warm-up, then what counts
    schedule = Schedule(warmup_ms=20, min_warmup_iterations=1, duration_ms=10, min_iterations=2)
    samples = time_call(lambda: clock.pass_ms(next(durations)), schedule, clock=clock)
    assert samples.ms == pytest.approx((1, 2, 3, 4))
    assert samples.wall_ms == pytest.approx(10)


def test_a_slow_call_still_gets_its_iterations_and_a_fast_one_its_time() -> None:
    clock = HostClock()
    schedule = Schedule(warmup_ms=0, min_warmup_iterations=1, duration_ms=50, min_iterations=3)
    assert len(time_call(lambda: clock.pass_ms(1000), schedule, clock=clock).ms) == 3
    assert len(time_call(lambda: clock.pass_ms(1), schedule, clock=clock).ms) == 50


def test_warm_up_lasts_for_its_time_and_its_count() -> None:
    clock, calls = HostClock(), []

    def call() -> None:
        calls.append(clock.now)
        clock.pass_ms(5)

    time_call(call, Schedule(warmup_ms=40, min_warmup_iterations=3, duration_ms=1, min_iterations=1), clock=clock)
    assert len(calls) == 8 + 1
    calls.clear()
    time_call(call, Schedule(warmup_ms=0, min_warmup_iterations=3, duration_ms=1, min_iterations=1), clock=clock)
    assert len(calls) == 3 + 1


def test_events_give_the_gpus_time_without_the_launches() -> None:
    host = HostClock()
    gpu = FakeGpu(host)
    schedule = Schedule(warmup_ms=5, min_warmup_iterations=2, duration_ms=60, min_iterations=10)
    samples = time_cuda(lambda: gpu.launch(0.01, 3.0), schedule, new_event=gpu.event, clock=host)
    assert samples.ms == pytest.approx([3.0] * len(samples.ms))
    assert len(samples.ms) >= 20  # 60 ms of 3 ms each
    assert samples.wall_ms >= 60


def test_the_queue_is_bounded_and_never_dry() -> None:
    host = HostClock()
    gpu = FakeGpu(host)
    schedule = Schedule(warmup_ms=0, min_warmup_iterations=1, duration_ms=30, min_iterations=10)
    samples = time_cuda(lambda: gpu.launch(0.01, 1.0), schedule, new_event=gpu.event, clock=host)
    # Not more than the allowance, the one being queued, and the lead-in; without a bound it would be hundreds.
    assert 2 <= gpu.most_queued <= QUEUED_AHEAD + 2
    assert gpu.waits == len(samples.ms) + 1  # each pair once, and the warm-up


def test_a_queue_that_runs_dry_shows_in_the_samples() -> None:
    host = HostClock()
    gpu = FakeGpu(host)
    schedule = Schedule(warmup_ms=0, min_warmup_iterations=1, duration_ms=10, min_iterations=5)
    samples = time_cuda(lambda: gpu.launch(2.0, 0.5), schedule, new_event=gpu.event, clock=host)
    # The host needs 2 ms to launch 0.5 ms of work: the samples are of the launches, and do not pretend otherwise.
    assert min(samples.ms) >= 2.0


def test_calls_take_turns_and_only_the_first_round_warms_up_in_full() -> None:
    order: list[str] = []

    def timer(call, schedule):  # type: ignore[no-untyped-def]
        call()
        order.append(f"{schedule.warmup_ms:g}")
        return schedule

    calls = [lambda: order.append("A"), lambda: order.append("B")]
    visits = time_in_turn(calls, Schedule(warmup_ms=200, duration_ms=90, min_iterations=10, rounds=3), timer)
    assert order == ["A", "200", "B", "200", "A", "0", "B", "0", "A", "0", "B", "0"]
    assert [len(of_call) for of_call in visits] == [3, 3]
    assert {visit.duration_ms for visit in visits[0]} == {30}
    assert {visit.min_iterations for visit in visits[0]} == {4}


@given(st.integers(1, 20), st.integers(1, 1000), st.floats(1, 1e5))
def test_the_rounds_together_reach_what_was_asked(rounds: int, min_iterations: int, duration_ms: float) -> None:
    schedule = Schedule(rounds=rounds, min_iterations=min_iterations, duration_ms=duration_ms)
    visits = [schedule.visit(index) for index in range(rounds)]
    assert sum(visit.min_iterations for visit in visits) >= min_iterations
    assert sum(visit.duration_ms for visit in visits) == pytest.approx(duration_ms)
