from __future__ import annotations

import math
import threading
from collections import Counter
from collections.abc import Callable, Iterator
from concurrent.futures import Future, wait
from contextlib import suppress
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from serve.core.batcher import Batcher
from serve.core.failures import DeadlineError, DrainingError, EngineError, NotFiniteError, QueueFullError
from serve.core.instance import warm_up_sizes
from serve.core.waiting import Answer

PATIENCE_S = 60.0


class Clock:
    """A clock that only moves when told to."""

    def __init__(self) -> None:
        self.now_s = 100.0

    def __call__(self) -> float:
        return self.now_s

    def advance(self, seconds: float) -> None:
        self.now_s += seconds


def picture(byte: int) -> NDArray[np.uint8]:
    return np.full((8, 8, 3), byte, np.uint8)


@pytest.fixture
def start(fake: Any) -> Iterator[Callable[..., Batcher]]:
    """Start a warm batcher; it is closed after the test."""
    started: list[tuple[Batcher, list[Any]]] = []

    def start(*runners: Any, **options: Any) -> Batcher:
        batcher = Batcher(runners, **{"queue_capacity": 100, "max_batch_size": 4} | options)
        started.append((batcher, list(runners)))
        batcher.start()
        batcher.warmed.result(PATIENCE_S)
        return batcher

    yield start
    for batcher, runners in started:
        for runner in runners:
            runner.release()
        assert batcher.close(PATIENCE_S)


def submit(batcher: Batcher, *numbers: int, **options: Any) -> list[Future[Answer]]:
    return [batcher.submit(picture(number), **options) for number in numbers]


def occupy(batcher: Batcher, runner: Any, byte: int = 99) -> Future[Answer]:
    """Hold the runner inside a batch of one picture."""
    runner.hold()
    (future,) = submit(batcher, byte)
    assert runner.entered.get(timeout=PATIENCE_S) == [byte]
    return future


def test_a_lone_picture_goes_at_once_and_alone(fake: Any, start: Callable[..., Batcher]) -> None:
    answer = start(runner := fake()).submit(picture(7)).result(PATIENCE_S)
    np.testing.assert_array_equal(answer.logits, fake.logits_of(7))
    assert (answer.batch_size, runner.batches) == (1, [[7]])
    assert answer.queue_ms >= 0 and answer.compute_ms >= 0


def test_a_free_runner_takes_all_that_waited_up_to_the_largest_batch(fake: Any, start: Callable[..., Batcher]) -> None:
    batcher = start(runner := fake())
    first = occupy(batcher, runner)
    rest = submit(batcher, 1, 2, 3, 4, 5)
    runner.release()
    answers = [future.result(PATIENCE_S) for future in (first, *rest)]
    assert runner.batches == [[99], [1, 2, 3, 4], [5]]
    assert [answer.batch_size for answer in answers] == [1, 4, 4, 4, 4, 1]
    for number, answer in zip((99, 1, 2, 3, 4, 5), answers, strict=True):
        np.testing.assert_array_equal(answer.logits, fake.logits_of(number))


@pytest.mark.parametrize(("most", "sizes"), [(1, [1]), (2, [1, 2]), (8, [1, 2, 4, 8]), (12, [1, 2, 4, 8, 12])])
def test_every_runner_warms_up_with_powers_of_two(
    fake: Any, start: Callable[..., Batcher], most: int, sizes: list[int]
) -> None:
    runners = fake(), fake()
    batcher = start(*runners, max_batch_size=most)
    assert warm_up_sizes(most) == sizes
    assert [runner.warmed for runner in runners] == [sizes, sizes]
    assert batcher.ready


def test_it_is_not_ready_before_every_runner_is_warm(fake: Any) -> None:
    quick, slow = fake(), fake()
    slow.warm_gate.clear()
    batcher = Batcher([quick, slow], queue_capacity=1, max_batch_size=1)
    batcher.start()
    assert not batcher.ready
    slow.warm_gate.set()
    assert batcher.warmed.result(PATIENCE_S) >= 0
    assert batcher.ready
    batcher.drain()
    assert not batcher.ready


def test_a_failed_warm_up_says_why_and_stops_the_others(fake: Any) -> None:
    def out_of_memory(batch_size: int) -> None:
        if batch_size > 2:
            raise RuntimeError("out of memory")

    batcher = Batcher([fake(), fake(on_infer=out_of_memory)], queue_capacity=1, max_batch_size=4)
    batcher.start()
    with pytest.raises(RuntimeError, match="out of memory"):
        batcher.warmed.result(PATIENCE_S)
    assert not batcher.ready
    with pytest.raises(DrainingError):
        batcher.submit(picture(1))
    assert batcher.close(PATIENCE_S)


def test_each_runner_works_in_one_thread_of_its_own_and_all_at_once(fake: Any, start: Callable[..., Batcher]) -> None:
    runners = fake(), fake()
    batcher = start(*runners, max_batch_size=1)
    for runner in runners:
        runner.hold()
    futures = submit(batcher, 1, 2)
    for runner in runners:
        runner.entered.get(timeout=PATIENCE_S)
    for runner in runners:  # now both are inside infer
        runner.release()
    wait(futures, PATIENCE_S)
    assert [len(runner.threads) for runner in runners] == [1, 1]
    assert runners[0].threads.isdisjoint(runners[1].threads | {threading.get_ident()})


def test_a_full_queue_refuses_and_says_when_to_come_again(fake: Any, start: Callable[..., Batcher]) -> None:
    clock = Clock()
    runner = fake(on_infer=lambda batch_size: clock.advance(0.7 * batch_size))
    batcher = start(runner, queue_capacity=3, clock=clock)
    first = occupy(batcher, runner)
    queued = submit(batcher, 1, 2, 3)
    with pytest.raises(QueueFullError) as refusal:
        batcher.submit(picture(4))
    assert refusal.value.retry_after_s == math.ceil(3 * 0.7)
    runner.release()
    assert [future.result(PATIENCE_S).batch_size for future in (first, *queued)] == [1, 3, 3, 3]
    assert runner.batches == [[99], [1, 2, 3]]


def test_two_runners_halve_the_expected_wait(fake: Any, start: Callable[..., Batcher]) -> None:
    clock = Clock()
    lock = threading.Lock()
    inside = threading.Barrier(2)

    def take_a_second(batch_size: int) -> None:
        inside.wait(PATIENCE_S)  # both have read the clock before either moves it
        with lock:
            clock.advance(0.5)
        inside.wait(PATIENCE_S)

    runners = fake(on_infer=take_a_second), fake(on_infer=take_a_second)
    batcher = start(*runners, max_batch_size=1, clock=clock)
    for runner in runners:
        runner.hold()
        runner.on_infer = lambda batch_size: None
    submit(batcher, 1, 2)
    for runner in runners:
        runner.entered.get(timeout=PATIENCE_S)
    submit(batcher, 3, 4, 5)
    # Three wait, and half of each of the two under way is still to come; each takes a second.
    assert batcher.expected_wait_s() == pytest.approx((3 + 2 / 2) * 1.0 / 2)
    assert batcher.expected_wait_s(more=4) == pytest.approx((3 + 4 + 2 / 2) * 1.0 / 2)


def test_a_cancelled_picture_is_never_computed(fake: Any, start: Callable[..., Batcher]) -> None:
    batcher = start(runner := fake())
    occupy(batcher, runner)
    queued = submit(batcher, 1, 2, 3)
    assert queued[1].cancel()
    runner.release()
    wait(queued, PATIENCE_S)
    assert runner.batches == [[99], [1, 3]]


@pytest.mark.parametrize("how", ["cancelled", "late"])
def test_the_dead_give_up_their_places_in_a_full_queue(fake: Any, start: Callable[..., Batcher], how: str) -> None:
    clock = Clock()
    batcher = start(runner := fake(), queue_capacity=2, clock=clock)
    occupy(batcher, runner)
    dead, alive = submit(batcher, 1, deadline_s=clock() + 5.0) + submit(batcher, 2)
    if how == "cancelled":
        dead.cancel()
    else:
        clock.advance(6.0)
    (newest,) = submit(batcher, 3)
    with pytest.raises(QueueFullError):
        batcher.submit(picture(4))
    runner.release()
    wait([alive, newest, dead], PATIENCE_S)
    assert runner.batches == [[99], [2, 3]]
    assert dead.cancelled() == (how == "cancelled")


def test_a_picture_past_its_deadline_is_not_computed(fake: Any, start: Callable[..., Batcher]) -> None:
    clock = Clock()
    batcher = start(runner := fake(), clock=clock)
    occupy(batcher, runner)
    (late,) = submit(batcher, 1, deadline_s=clock() + 1.0)
    (in_time,) = submit(batcher, 2, deadline_s=clock() + 3.0)
    clock.advance(2.0)
    runner.release()
    with pytest.raises(DeadlineError):
        late.result(PATIENCE_S)
    assert in_time.result(PATIENCE_S).batch_size == 1
    assert runner.batches == [[99], [2]]


def test_the_picture_to_blame_fails_and_no_other_of_its_batch(fake: Any, start: Callable[..., Batcher]) -> None:
    batcher = start(runner := fake(fails_on=frozenset({2, 4})))
    occupy(batcher, runner)
    futures = submit(batcher, 1, 2, 3, 4)
    runner.release()
    errors = [future.exception(PATIENCE_S) for future in futures]
    assert [type(error) for error in errors] == [type(None), EngineError, type(None), EngineError]
    assert errors[1] is not errors[3]
    assert str(errors[1].__cause__) == "the fake engine broke"  # type: ignore[union-attr]
    assert runner.batches == [[99], [1, 2, 3, 4], [1], [2], [3], [4]]
    for number in (1, 3):
        np.testing.assert_array_equal(futures[number - 1].result(0).logits, fake.logits_of(number))
    submit(batcher, 5)[0].result(PATIENCE_S)
    assert batcher.working == 1 and batcher.restarts == 0  # it answered a black picture in between


def test_logits_that_are_not_finite_fail_their_picture_only(fake: Any, start: Callable[..., Batcher]) -> None:
    batcher = start(runner := fake())
    finite = runner.infer

    def overflow(pictures: NDArray[np.uint8]) -> NDArray[np.float32]:
        logits: NDArray[np.float32] = finite(pictures)
        logits[pictures[:, 0, 0, 0] == 2, 0] = np.nan
        return logits

    runner.infer = overflow
    occupy(batcher, runner)
    good, bad = submit(batcher, 1, 2)
    runner.release()
    assert good.result(PATIENCE_S).batch_size == 2
    assert isinstance(bad.exception(PATIENCE_S), NotFiniteError)


def test_an_engine_that_answers_too_few_rows_is_a_failure(fake: Any, start: Callable[..., Batcher]) -> None:
    batcher = start(runner := fake())
    runner.infer = lambda pictures: np.zeros((0, 10), np.float32)
    assert isinstance(batcher.submit(picture(1)).exception(PATIENCE_S), EngineError)


def test_drain_answers_all_that_is_queued_and_takes_nothing_new(fake: Any, start: Callable[..., Batcher]) -> None:
    batcher = start(runner := fake())
    futures = [occupy(batcher, runner), *submit(batcher, *range(1, 10))]
    assert not batcher.drain(timeout_s=0.0)  # the runner is held, so it cannot be over
    with pytest.raises(DrainingError):
        batcher.submit(picture(1))
    runner.release()
    assert batcher.drain(PATIENCE_S)
    assert [future.result(0).logits.argmax() for future in futures] == [9, *range(1, 10)]


def test_close_refuses_what_is_queued_and_answers_what_is_being_computed(
    fake: Any, start: Callable[..., Batcher]
) -> None:
    batcher = start(runner := fake())
    under_way = occupy(batcher, runner)
    queued, cancelled = submit(batcher, 1, 2)
    cancelled.cancel()
    assert not batcher.close(timeout_s=0.0)
    runner.release()
    assert batcher.close(PATIENCE_S)
    assert under_way.result(PATIENCE_S).batch_size == 1
    assert isinstance(queued.exception(0), DrainingError)
    assert runner.batches == [[99]]


def test_a_batcher_that_never_started_can_be_closed(fake: Any) -> None:
    assert Batcher([fake()], queue_capacity=1, max_batch_size=1).close(PATIENCE_S)


def test_a_delay_lets_the_batch_fill(fake: Any, start: Callable[..., Batcher]) -> None:
    hour_ms = 3_600_000.0
    batcher = start(runner := fake(), max_queue_delay_ms=hour_ms)
    wait(submit(batcher, 1, 2, 3, 4), PATIENCE_S)
    assert runner.batches == [[1, 2, 3, 4]]
    (alone,) = submit(batcher, 5)
    assert not alone.done()
    assert batcher.drain(PATIENCE_S)  # a drain does not wait for the hour to pass
    assert alone.result(0).batch_size == 1


def test_a_delay_that_has_passed_sends_what_there_is(fake: Any, start: Callable[..., Batcher]) -> None:
    (alone,) = submit(start(fake(), max_queue_delay_ms=1.0), 1)
    assert alone.result(PATIENCE_S).batch_size == 1


def test_batches_of_a_slow_engine_are_smaller(fake: Any, start: Callable[..., Batcher]) -> None:
    clock = Clock()
    runner = fake(on_infer=lambda batch_size: clock.advance(0.2 * batch_size))
    batcher = start(runner, max_batch_size=8, longest_batch_s=0.5, clock=clock)
    assert batcher.usual_batch_size == 2  # of 4 pictures it would take 0.8 s
    occupy(batcher, runner)
    rest = submit(batcher, 1, 2, 3, 4, 5)
    assert batcher.expected_wait_s() == pytest.approx((5 + 1 / 2) * 0.2)
    runner.release()
    wait(rest, PATIENCE_S)
    assert runner.batches == [[99], [1, 2], [3, 4], [5]]


def test_an_engine_slower_than_the_limit_gets_one_picture_at_a_time(fake: Any, start: Callable[..., Batcher]) -> None:
    clock = Clock()
    runner = fake(on_infer=lambda batch_size: clock.advance(3.0))
    assert start(runner, longest_batch_s=0.5, clock=clock).usual_batch_size == 1


def test_a_preferred_size_goes_while_the_delay_lasts(fake: Any, start: Callable[..., Batcher]) -> None:
    hour_ms = 3_600_000.0
    batcher = start(runner := fake(), max_batch_size=8, max_queue_delay_ms=hour_ms, preferred_batch_sizes=[2, 4])
    futures = submit(batcher, 1, 2, 3, 4, 5)
    wait(futures[:4], PATIENCE_S)
    assert not futures[4].done()
    assert [len(batch) for batch in runner.batches] in ([2, 2], [4])  # by how many had come when it looked
    assert batcher.drain(PATIENCE_S)


def test_the_first_priority_overtakes_and_equals_keep_their_order(fake: Any, start: Callable[..., Batcher]) -> None:
    batcher = start(runner := fake(), max_batch_size=1)
    occupy(batcher, runner)
    futures = [batcher.submit(picture(byte), priority=byte // 10) for byte in (90, 50, 10, 51, 11)]
    runner.release()
    wait(futures, PATIENCE_S)
    assert runner.batches == [[99], [10], [11], [50], [51], [90]]


def test_observers_see_every_batch_before_its_answers(fake: Any, start: Callable[..., Batcher]) -> None:
    batcher = start(fake())
    seen: list[int] = []
    batcher.observe(lambda batch_size, compute_s: seen.append(batch_size))
    batcher.submit(picture(1)).result(PATIENCE_S)
    assert seen == [1]


@pytest.mark.parametrize("wrong", [np.zeros((8, 8), np.uint8), np.zeros((8, 8, 3), np.float32)])
def test_a_picture_of_another_shape_never_reaches_a_batch(
    fake: Any, start: Callable[..., Batcher], wrong: NDArray[Any]
) -> None:
    with pytest.raises(ValueError, match="expected"):
        start(fake()).submit(wrong)


STEPS = st.lists(
    st.one_of(
        st.just(("submit", 0)),
        st.just(("late", 0)),
        st.just(("batch", 0)),
        st.tuples(st.just("cancel"), st.integers(0, 30)),
    ),
    max_size=60,
)


@settings(max_examples=60, deadline=None)
@given(
    steps=STEPS,
    instances=st.integers(1, 3),
    max_batch_size=st.integers(1, 5),
    queue_capacity=st.integers(1, 8),
)
def test_every_accepted_picture_is_answered_once_with_its_own_result(
    fake: Any, steps: list[tuple[str, int]], instances: int, max_batch_size: int, queue_capacity: int
) -> None:
    """Whatever the interleaving: own answers, batches within the limit, first come first served, nobody forgotten."""
    runners = [fake() for _ in range(instances)]
    clock = Clock()
    batcher = Batcher(runners, queue_capacity=queue_capacity, max_batch_size=max_batch_size, clock=clock)
    answers: Counter[int] = Counter()
    futures = play(steps, batcher, runners, clock, answers)
    computed = [number for runner in runners for batch in runner.batches for number in batch]
    assert len(set(computed)) == len(computed)
    assert answers == Counter(futures.keys())
    for number, future in futures.items():
        late = steps[number - 1][0] == "late"
        assert (number in computed) == (not late and not future.cancelled())
        if number in computed:
            np.testing.assert_array_equal(future.result(0).logits, fake.logits_of(number))
        elif not future.cancelled():
            assert isinstance(future.exception(0), DeadlineError)
    for runner in runners:
        assert all(0 < len(batch) <= max_batch_size for batch in runner.batches)
        in_order = [number for batch in runner.batches for number in batch]
        assert in_order == sorted(in_order)


def play(
    steps: list[tuple[str, int]], batcher: Batcher, runners: list[Any], clock: Clock, answers: Counter[int]
) -> dict[int, Future[Answer]]:
    """Do the steps, then drain: the futures of accepted pictures by number, which is their place in `steps` from 1."""
    batcher.start()
    batcher.warmed.result(PATIENCE_S)
    turns = threading.Semaphore(0)  # each turn lets one runner compute one batch
    for runner in runners:
        runner.on_infer = lambda batch_size: turns.acquire(timeout=PATIENCE_S)
    futures: dict[int, Future[Answer]] = {}
    for number, (step, which) in enumerate(steps, start=1):
        if step == "batch":
            turns.release()
        elif step == "cancel":
            for future in list(futures.values())[which : which + 1]:
                future.cancel()
        else:
            with suppress(QueueFullError):
                futures[number] = batcher.submit(picture(number), deadline_s=clock() - 1.0 if step == "late" else None)
                futures[number].add_done_callback(lambda _, number=number: answers.update([number]))
    turns.release(len(steps) + 1)
    assert batcher.drain(PATIENCE_S)
    return futures
