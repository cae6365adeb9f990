"""Owns the queue between requests and runners: bounded, batched, drained; it knows no HTTP and decodes no picture.

A free runner takes everything that is queued, up to the largest batch. So batches grow under load, and a single
request never waits for others, unless `max_queue_delay_ms` makes it wait for a fuller batch.
"""

from __future__ import annotations

import threading
import time
from collections import deque
from collections.abc import Callable, Sequence
from concurrent.futures import Future
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from export.interface import input_of
from export.runners.runner import Runner
from serve.core.failures import DeadlineError, DrainingError, EngineError, NotFiniteError, QueueFullError

Observer = Callable[[int, float], None]
"""Called with the pictures of a batch and the seconds it took, from a runner's thread, before the batch's answers."""
Taken = NDArray[np.uint8] | NDArray[np.float32]
"""A picture as the artifact takes it: (S, S, C) uint8, or (C, S, S) planes that are normalised."""
# Weight of the newest batch in the running mean of seconds per picture: 0.2 forgets nine tenths in ten batches.
EWMA_WEIGHT = 0.2


@dataclass(frozen=True, kw_only=True)
class Answer:
    """One picture's logits or probabilities, (K,) float32 as `Runner.infer` answers, and where its time went."""

    logits: NDArray[np.float32]
    queue_ms: float
    compute_ms: float
    batch_size: int


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class _Waiting:
    picture: Taken
    future: Future[Answer]
    queued_s: float
    deadline_s: float | None

    def is_late(self, now_s: float) -> bool:
        return self.deadline_s is not None and self.deadline_s <= now_s


def warm_up_sizes(max_batch_size: int) -> list[int]:
    """Powers of two below the largest batch, then that batch: 12 → 1, 2, 4, 8, 12."""
    return [1 << power for power in range((max_batch_size - 1).bit_length())] + [max_batch_size]


class Batcher:
    """Answers single pictures with batched inference. Each runner has a thread of its own.

    Args:
        runners: loaded artifacts with the same contract; the caller closes them after `close`.
        queue_capacity: pictures that may wait; one more is refused.
        max_batch_size: pictures per inference; never exceeded.
        max_queue_delay_ms: how long the oldest picture may wait for the batch to fill; 0 sends what there is.
        clock: seconds, monotonic; replaced in tests.
    """

    def __init__(
        self,
        runners: Sequence[Runner],
        *,
        queue_capacity: int,
        max_batch_size: int,
        max_queue_delay_ms: float = 0.0,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.queue_capacity = queue_capacity
        self.max_batch_size = max_batch_size
        self.instances = len(runners)
        self.warmed: Future[float] = Future()
        taken = input_of(runners[0].contract)
        self._picture_shape, self._picture_type = taken.shape, np.dtype(taken.dtype)
        self._delay_s = max_queue_delay_ms / 1000.0
        self._clock = clock
        self._changed = threading.Condition()
        self._queue: deque[_Waiting] = deque()
        self._closing = False
        self._cold = len(runners)
        self._picture_s: float | None = None
        self._observers: list[Observer] = []
        self._threads = [
            threading.Thread(target=self._work, args=(runner,), name=f"runner-{index}", daemon=True)
            for index, runner in enumerate(runners)
        ]

    def observe(self, observer: Observer) -> None:
        """Call `observer` after every batch."""
        self._observers.append(observer)

    def start(self) -> None:
        """Start the threads and return at once. Each warms its runner up and then serves.

        `warmed` gets the first error, or the seconds it took until the last runner was warm.
        """
        self._started_s = self._clock()
        for thread in self._threads:
            thread.start()

    @property
    def ready(self) -> bool:
        """Whether every runner is warm and none is told to stop."""
        return self.warmed.done() and self.warmed.exception() is None and not self._closing

    @property
    def queued(self) -> int:
        """Pictures waiting now, those whose clients have left included."""
        return len(self._queue)

    def submit(self, picture: Taken, *, deadline_s: float | None = None) -> Future[Answer]:
        """Queue one prepared picture.

        Cancelling the future takes the picture out of the queue, unless its batch is being computed.

        Args:
            picture: one row of the artifact's input, as `export.interface.input_of` has it.
            deadline_s: on the batcher's clock; a picture whose turn comes later is not computed.

        Returns:
            A future of the answer. It fails with `DeadlineError` or `EngineError`.

        Raises:
            QueueFullError: it says when to send it again. DrainingError: `drain` or `close` was called.
        """
        if picture.shape != self._picture_shape or picture.dtype != self._picture_type:
            raise ValueError(
                f"expected {self._picture_shape} {self._picture_type}, got {picture.shape} {picture.dtype}"
            )
        waiting = _Waiting(picture=picture, future=Future(), queued_s=self._clock(), deadline_s=deadline_s)
        late: list[_Waiting] = []
        with self._changed:
            if self._closing:
                raise DrainingError("The server is shutting down.", "Send the picture again to another one.")
            if len(self._queue) >= self.queue_capacity:
                late = self._drop_dead()
            full = len(self._queue) >= self.queue_capacity
            if not full:
                self._queue.append(waiting)
                self._changed.notify()
        _fail_late(late)
        if full:
            raise QueueFullError(
                f"{self.queue_capacity} pictures are waiting and the queue holds no more.",
                "Send it again after Retry-After seconds, or start the server with a larger --queue-capacity.",
                self.expected_wait_s(),
            )
        return waiting.future

    def expected_wait_s(self) -> float:
        """Seconds until the pictures queued now are computed, by the running mean of seconds per picture."""
        return len(self._queue) * (self._picture_s or 0.0) / self.instances

    def drain(self, timeout_s: float | None = None) -> bool:
        """Take nothing new, answer what is queued, stop the threads; False if that took longer than `timeout_s`."""
        with self._changed:
            self._closing = True
            self._changed.notify_all()
        end_s = None if timeout_s is None else time.monotonic() + timeout_s
        started = [thread for thread in self._threads if thread.ident is not None]
        for thread in started:
            thread.join(None if end_s is None else max(0.0, end_s - time.monotonic()))
        return not any(thread.is_alive() for thread in started)

    def close(self, timeout_s: float | None = None) -> bool:
        """Take nothing new, refuse what is queued, stop the threads after the batches under way."""
        with self._changed:
            self._closing = True
            refused, self._queue = self._queue, deque()
        for waiting in refused:
            if waiting.future.set_running_or_notify_cancel():
                waiting.future.set_exception(DrainingError("The server stopped before this picture's turn."))
        return self.drain(timeout_s)

    def _work(self, runner: Runner) -> None:
        """One runner's thread: warm up, then batch after batch until there is nothing left and `drain` was called."""
        if not self._warm_up(runner):
            return
        while (batch := self._take()) is not None:
            if batch:
                self._answer(runner, batch)

    def _warm_up(self, runner: Runner) -> bool:
        try:
            for batch_size in warm_up_sizes(self.max_batch_size):
                if self._closing:
                    return False
                began_s = self._clock()
                runner.infer(np.zeros((batch_size, *self._picture_shape), self._picture_type))
                took_s = self._clock() - began_s
        except Exception as error:  # noqa: BLE001 - anything that an engine raises goes to `warmed`
            with self._changed:
                first, self._cold = self._cold > 0, -1
                self._closing = True
                self._changed.notify_all()
            if first:
                self.warmed.set_exception(error)
            return False
        with self._changed:
            self._note_speed(took_s / self.max_batch_size)
            self._cold -= 1
            last = self._cold == 0
        if last:
            self.warmed.set_result(self._clock() - self._started_s)
        return True

    def _take(self) -> list[_Waiting] | None:
        """Wait for a batch: live pictures in the order they came. None when closing and nothing is left."""
        with self._changed:
            while not (self._queue and (wait_s := self._fill_wait_s()) <= 0.0):
                if not self._queue and self._closing:
                    return None
                self._changed.wait(wait_s if self._queue else None)
            batch: list[_Waiting] = []
            late: list[_Waiting] = []
            now_s = self._clock()
            while self._queue and len(batch) < self.max_batch_size:
                waiting = self._queue.popleft()
                if not waiting.future.set_running_or_notify_cancel():
                    continue  # the client left, so nobody wants the answer
                (late if waiting.is_late(now_s) else batch).append(waiting)
        _fail_late(late)
        return batch

    def _fill_wait_s(self) -> float:
        """How many more seconds the oldest picture lets the batch fill."""
        if self._closing or not self._delay_s or len(self._queue) >= self.max_batch_size:
            return 0.0
        return self._queue[0].queued_s + self._delay_s - self._clock()

    def _drop_dead(self) -> list[_Waiting]:
        """Remove the pictures of clients that left; return those whose time is up, to be failed outside the lock."""
        now_s = self._clock()
        alive: deque[_Waiting] = deque()
        late: list[_Waiting] = []
        for waiting in self._queue:
            if not (waiting.future.cancelled() or waiting.is_late(now_s)):
                alive.append(waiting)
            elif waiting.future.set_running_or_notify_cancel():
                late.append(waiting)
        self._queue = alive
        return late

    def _answer(self, runner: Runner, batch: list[_Waiting]) -> None:
        began_s = self._clock()
        try:
            logits = runner.infer(np.stack([waiting.picture for waiting in batch]))
        except Exception as error:  # noqa: BLE001 - anything that an engine raises fails this batch, and only this batch
            _fail_batch(batch, error)
            return
        took_s = self._clock() - began_s
        if len(logits) != len(batch):
            _fail_batch(batch, ValueError(f"{len(batch)} pictures went in and {len(logits)} rows came out"))
            return
        with self._changed:
            self._note_speed(took_s / len(batch))
        for observer in self._observers:
            observer(len(batch), took_s)
        for waiting, row in zip(batch, logits, strict=True):
            if not np.isfinite(row).all():
                waiting.future.set_exception(
                    NotFiniteError(
                        "The network's answer to this picture is not finite.",
                        "Other pictures may work. The artifact is at fault: `zoo evaluate` says for how many pictures.",
                    )
                )
                continue
            queue_ms, compute_ms = (began_s - waiting.queued_s) * 1000.0, took_s * 1000.0
            answer = Answer(logits=row, queue_ms=queue_ms, compute_ms=compute_ms, batch_size=len(batch))
            waiting.future.set_result(answer)

    def _note_speed(self, picture_s: float) -> None:
        old = self._picture_s
        self._picture_s = picture_s if old is None else old + EWMA_WEIGHT * (picture_s - old)


def _fail_late(late: list[_Waiting]) -> None:
    for waiting in late:
        problem, hint = "The picture waited longer than the request's time.", "Send fewer at once, or ask for longer."
        waiting.future.set_exception(DeadlineError(problem, hint))


def _fail_batch(batch: list[_Waiting], cause: Exception) -> None:
    # One error object per request: a handler clears its traceback while another may still be reading it.
    for waiting in batch:
        error = EngineError("The engine failed on this batch.", "The server's log has the reason; others still work.")
        error.__cause__ = cause
        waiting.future.set_exception(error)
