"""An engine that falls ill: it is noticed, nothing is promised meanwhile, and it is opened again."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from serve.core.batcher import MOST_STUCK, Batcher
from serve.core.failures import DrainingError, EngineError, NotFiniteError
from serve.core.instance import FAILURES_IN_A_ROW
from zoo.errors import ArtifactError

PATIENCE_S = 60.0
Start = Callable[..., Batcher]


class Clock:
    def __init__(self) -> None:
        self.now_s = 0.0

    def __call__(self) -> float:
        return self.now_s


def picture(byte: int) -> NDArray[np.uint8]:
    return np.full((8, 8, 3), byte, np.uint8)


def with_nan(runner: Any, is_ill: Callable[[NDArray[np.uint8]], bool]) -> Any:
    """The runner, whose answers to some batches are not finite."""
    finite = runner.infer

    def infer(pictures: NDArray[np.uint8]) -> NDArray[np.float32]:
        logits: NDArray[np.float32] = finite(pictures)
        return np.full_like(logits, np.nan) if is_ill(pictures) else logits

    runner.infer = infer
    return runner


@pytest.fixture
def start(fake: Any) -> Iterator[Start]:
    """Start a warm batcher of one runner; `spares` take its place one after another."""
    started: list[tuple[Batcher, list[Any]]] = []

    def start(runner: Any, *spares: Any, **options: Any) -> Batcher:
        waiting = list(spares)

        def reopen() -> Any:
            spare = waiting.pop(0) if waiting else fake()
            if isinstance(spare, Exception):
                raise spare
            return spare

        batcher = Batcher([runner], **{"queue_capacity": 100, "max_batch_size": 4, "reopen": reopen} | options)
        started.append((batcher, [runner, *spares]))
        batcher.start()
        batcher.warmed.result(PATIENCE_S)
        return batcher

    yield start
    for batcher, runners in started:
        for runner in runners:
            if not isinstance(runner, Exception):
                runner.release()
                runner.warm_gate.set()
        if batcher.is_lost:
            join_runners()
        assert batcher.close(PATIENCE_S)
        batcher.free()


def join_runners() -> None:
    """Nobody waits for a thread that is stuck; here it has just been released."""
    for thread in threading.enumerate():
        if thread.name.startswith("runner-"):
            thread.join(PATIENCE_S)


def test_an_engine_that_answers_nan_from_the_start_is_not_served(fake: Any) -> None:
    batcher = Batcher([with_nan(fake(), lambda pictures: True)], queue_capacity=1, max_batch_size=1)
    batcher.start()
    with pytest.raises(ArtifactError, match="not finite"):
        batcher.warmed.result(PATIENCE_S)
    assert batcher.close(PATIENCE_S)


def test_an_engine_that_begins_to_answer_nan_is_opened_again(fake: Any, start: Start) -> None:
    ill = threading.Event()
    runner, spare = with_nan(fake(), lambda pictures: ill.is_set()), fake()
    spare.warm_gate.clear()
    batcher = start(runner, spare)
    ill.set()
    assert isinstance(batcher.submit(picture(1)).exception(PATIENCE_S), NotFiniteError)
    while batcher.ready:
        pass
    assert batcher.working == 0
    waiting = batcher.submit(picture(2))
    spare.warm_gate.set()
    assert waiting.result(PATIENCE_S).logits.argmax() == 2
    assert batcher.ready and batcher.restarts == 1
    assert runner.is_closed and spare.batches == [[2]]


def test_an_engine_that_raises_whatever_it_gets_is_opened_again(fake: Any, start: Start) -> None:
    runner, spare = fake(), fake()
    batcher = start(runner, RuntimeError("no memory"), spare)

    def broken(pictures: NDArray[np.uint8]) -> NDArray[np.float32]:
        raise RuntimeError("the device is gone")

    runner.infer = broken
    futures = [batcher.submit(picture(byte)) for byte in (1, 2)]
    assert all(isinstance(future.exception(PATIENCE_S), EngineError) for future in futures)
    assert batcher.submit(picture(3)).result(PATIENCE_S).logits.argmax() == 3  # after the attempt that failed
    assert batcher.restarts == 1


def test_an_engine_that_answers_nothing_but_black_pictures_is_opened_again(fake: Any, start: Start) -> None:
    runner = with_nan(fake(), lambda pictures: bool(pictures.any()))
    batcher = start(runner, max_batch_size=1)
    for byte in range(1, FAILURES_IN_A_ROW + 1):
        assert isinstance(batcher.submit(picture(byte)).exception(PATIENCE_S), NotFiniteError)
    assert batcher.submit(picture(1)).result(PATIENCE_S).batch_size == 1
    assert batcher.restarts == 1


def test_pictures_that_are_to_blame_do_not_have_it_opened_again(fake: Any, start: Start) -> None:
    batcher = start(with_nan(fake(), lambda pictures: bool((pictures == 13).any())), max_batch_size=1)
    for _ in range(FAILURES_IN_A_ROW):
        assert isinstance(batcher.submit(picture(13)).exception(PATIENCE_S), NotFiniteError)
        batcher.submit(picture(1)).result(PATIENCE_S)
    assert batcher.restarts == 0 and batcher.ready


def hang(batcher: Batcher, runner: Any, clock: Clock) -> Any:
    """Have the runner hang in a batch of one, beyond the limit."""
    runner.hold()
    future = batcher.submit(picture(9))
    runner.entered.get(timeout=PATIENCE_S)
    clock.now_s += 11.0
    return future


def test_an_engine_that_hangs_is_given_up_and_another_takes_its_place(fake: Any, start: Start) -> None:
    clock, runner, spare = Clock(), fake(), fake()
    batcher = start(runner, spare, stuck_after_s=10.0, clock=clock)
    hung = hang(batcher, runner, clock)
    batcher.replace_stuck()
    assert "did not come back" in str(hung.exception(PATIENCE_S))
    assert batcher.submit(picture(2)).result(PATIENCE_S).logits.argmax() == 2
    assert batcher.ready and not runner.is_closed  # somebody is inside it
    assert not batcher.drain(0.0)
    runner.release()
    join_runners()
    assert batcher.drain(PATIENCE_S)
    assert runner.is_closed and runner.batches == [[9]] and spare.batches == [[2]]


def test_a_slow_batch_is_not_a_hanging_one(fake: Any, start: Start) -> None:
    clock, runner = Clock(), fake()
    batcher = start(runner, stuck_after_s=12.0, clock=clock)
    slow = hang(batcher, runner, clock)
    batcher.replace_stuck()
    runner.release()
    assert slow.result(PATIENCE_S).logits.argmax() == 9
    assert batcher.restarts == 0


def test_an_engine_that_always_hangs_is_not_opened_for_ever(fake: Any, start: Start) -> None:
    clock = Clock()
    runners = [fake() for _ in range(MOST_STUCK + 1)]
    batcher = start(*runners, stuck_after_s=10.0, clock=clock)
    for runner in runners:
        assert not batcher.is_lost
        hang(batcher, runner, clock)
        batcher.replace_stuck()
    assert batcher.is_lost and not batcher.ready
    assert batcher.restarts == MOST_STUCK
    assert not batcher.close(0.0)


def test_pictures_left_in_the_queue_of_an_ill_engine_are_refused_at_the_end(fake: Any, start: Start) -> None:
    runner = fake()
    batcher = start(runner, *[RuntimeError("no memory")] * 100)

    def broken(pictures: NDArray[np.uint8]) -> NDArray[np.float32]:
        raise RuntimeError("the device is gone")

    runner.infer = broken
    batcher.submit(picture(1)).exception(PATIENCE_S)
    while batcher.ready:
        pass
    left = batcher.submit(picture(2))
    assert batcher.drain(PATIENCE_S)
    assert isinstance(left.exception(0), DrainingError)
