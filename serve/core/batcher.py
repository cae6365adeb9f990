"""Owns the queue between requests and instances: bounded, batched, drained; it knows no HTTP and decodes no picture.

A free instance takes everything that is queued, up to the largest batch. So batches grow under load, and a single
request never waits for others, unless `max_queue_delay_ms` makes it wait for a fuller batch.
"""

from __future__ import annotations

import threading
import time
import weakref
from collections.abc import Callable, Sequence
from concurrent.futures import Future
from functools import partial

import numpy as np

from export.interface import input_of
from export.runners.runner import Runner
from serve.core.failures import DeadlineError, DrainingError, QueueFullError
from serve.core.instance import Instance, Reopen
from serve.core.pace import Pace
from serve.core.waiting import DEFAULT_PRIORITY, Answer, PictureQueue, Taken, Waiting

Observer = Callable[[int, float], None]
"""Called with the pictures of a batch and the seconds it took, from an instance's thread, before the answers."""
# Threads inside a runner that does not come back cannot be ended, and keep its memory; more than so many are not made.
MOST_STUCK = 3
# How often instances are looked at, as a share of the time after which one counts as stuck.
LOOKS_PER_LIMIT = 10


class Batcher:
    """Answers single pictures with batched inference. Each runner has a thread of its own.

    Args:
        runners: loaded artifacts with the same contract; `free` frees them after `close`.
        queue_capacity: pictures that may wait; one more is refused.
        max_batch_size: pictures per inference; never exceeded.
        max_queue_delay_ms: how long the oldest picture may wait for the batch to fill; 0 sends what there is.
        preferred_batch_sizes: while the delay lasts, a batch of one of these sizes goes as well as a full one.
        longest_batch_s: batches are smaller than `max_batch_size` where a full one would take longer at the present
            pace; None: never.
        stuck_after_s: an instance that takes longer for one batch is replaced; None: never.
        reopen: opens the artifact once more, in place of a runner that is ill or stuck; None: nothing is replaced.
        clock: seconds, monotonic; replaced in tests.
    """

    def __init__(
        self,
        runners: Sequence[Runner],
        *,
        queue_capacity: int,
        max_batch_size: int,
        max_queue_delay_ms: float = 0.0,
        preferred_batch_sizes: Sequence[int] = (),
        longest_batch_s: float | None = None,
        stuck_after_s: float | None = None,
        reopen: Reopen | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        taken = input_of(runners[0].contract)
        self._picture_shape, self._picture_type = taken.shape, np.dtype(taken.dtype)
        self.max_batch_size = max_batch_size
        self.instances = len(runners)
        self.warmed: Future[float] = Future()
        self._delay_s = max_queue_delay_ms / 1000.0
        self._preferred = sorted(preferred_batch_sizes, reverse=True)
        self._longest_batch_s = longest_batch_s
        self._stuck_after_s = stuck_after_s
        self._reopen = reopen
        self._clock = clock
        self._changed = threading.Condition()
        self._queue = PictureQueue(queue_capacity)
        self._pace = Pace()
        # Pictures of a full batch now: `max_batch_size`, halved until it takes no longer than `longest_batch_s`.
        self.usual_batch_size, self._usual_batch_s = max_batch_size, 0.0
        self._closing = threading.Event()
        self._cold = len(runners)
        # Whether every runner came through its first warm-up.
        self.is_warm = False
        self._observers: list[Observer] = []
        self._at_work = [self._new_instance(runner, index) for index, runner in enumerate(runners)]
        self._stuck: list[Instance] = []
        self._watcher = threading.Thread(target=self._watch, name="watchdog", daemon=True)

    def _new_instance(self, runner: Runner | None, index: int) -> Instance:
        return Instance(runner, self, name=f"runner-{index}", reopen=self._reopen, clock=self._clock)

    def observe(self, observer: Observer) -> None:
        """Call `observer` after every batch."""
        self._observers.append(observer)

    def start(self) -> None:
        """Start the threads and return at once. Each warms its runner up and then serves.

        `warmed` gets the first error, or the seconds it took until the last runner was warm.
        """
        self._started_s = self._clock()
        for instance in self._at_work:
            instance.thread.start()
        if self._stuck_after_s is not None:
            self._watcher.start()

    # --- state -----

    @property
    def ready(self) -> bool:
        """Whether every runner has been warm, one works now, and none is told to stop."""
        return self.is_warm and not self._closing.is_set() and self.working > 0

    @property
    def working(self) -> int:
        """Instances that answer; the others are warming up, ill or stuck."""
        return len([instance for instance in self._at_work if instance.state == "working"])

    @property
    def restarts(self) -> int:
        """How often an instance was opened again, or another one took its place."""
        return sum(instance.restarts for instance in (*self._at_work, *self._stuck))

    @property
    def is_lost(self) -> bool:
        """Whether nothing works and nothing will: only another process can help."""
        return self.is_warm and all(instance.state == "stuck" for instance in self._at_work)

    @property
    def queue_capacity(self) -> int:
        """Pictures that may wait."""
        return self._queue.capacity

    @property
    def queued(self) -> int:
        """Pictures waiting now."""
        return len(self._queue)

    @property
    def computing(self) -> int:
        """Pictures inside a runner now."""
        return sum(instance.computing for instance in self._at_work)

    def expected_wait_s(self, more: int = 0) -> float:
        """Seconds until a picture's turn, if it came after those here and `more`: full batches at the present pace.

        Of the batches under way half is still to come: 16 queued, 8 inside, 2 instances, 40 ms a batch of 8 →
        (16 + 8 / 2) × 5 ms / 2 = 50 ms.
        """
        ahead = self.queued + self.computing / 2 + more
        return ahead * self._usual_batch_s / self.usual_batch_size / max(1, self.working)

    def _set_usual_batch(self) -> None:
        """Find it anew at the present pace: after every batch, which is less often than requests ask for it."""
        size, limit_s = self.max_batch_size, self._longest_batch_s
        while limit_s is not None and size > 1 and self._pace.batch_s(size) > limit_s:
            size //= 2
        self.usual_batch_size, self._usual_batch_s = size, self._pace.batch_s(size)

    # --- pictures in -----

    def submit(
        self,
        picture: Taken,
        *,
        deadline_s: float | None = None,
        priority: int = DEFAULT_PRIORITY,
        future: Future[Answer] | None = None,
        wake: bool = True,
    ) -> Future[Answer]:
        """Queue one prepared picture.

        Cancelling the future takes the picture out of the queue, unless its batch is being computed.

        Args:
            picture: one row of the artifact's input, as `export.interface.input_of` has it.
            deadline_s: on the batcher's clock; a picture whose turn comes later is not computed.
            priority: 1 is taken first, 9 last.
            future: what gets the answer, instead of a new one.
            wake: tell a free instance at once; False where the caller has more to queue and then calls `wake`.

        Returns:
            A future of the answer. It fails with `DeadlineError` or `EngineError`.

        Raises:
            QueueFullError: it says when to send it again. DrainingError: `drain` or `close` was called.
        """
        if picture.shape != self._picture_shape or picture.dtype != self._picture_type:
            raise ValueError(
                f"expected {self._picture_shape} {self._picture_type}, got {picture.shape} {picture.dtype}"
            )
        now_s = self._clock()
        waiting = Waiting(
            picture=picture, future=future or Future(), queued_s=now_s, deadline_s=deadline_s, priority=priority
        )
        late: list[Waiting] = []
        with self._changed:
            if self._closing.is_set():
                raise DrainingError("The server is shutting down.", "Send the picture again to another one.")
            if self._queue.is_full:
                late = self._queue.take_late(now_s)
            full = self._queue.is_full
            if not full:
                self._queue.add(waiting)
                if wake:
                    self._changed.notify()
        _fail_late(late)
        if full:
            raise QueueFullError(
                f"{self.queue_capacity} pictures are waiting and the queue holds no more.",
                "Send it again after Retry-After seconds, or start the server with a larger --queue-capacity.",
                self.expected_wait_s(),
            )
        # Called at once where it is cancelled already.
        waiting.future.add_done_callback(partial(self._forget, weakref.ref(waiting)))
        return waiting.future

    def wake(self) -> None:
        """Tell a free instance of what was queued without."""
        with self._changed:
            self._changed.notify()

    def _forget(self, known: weakref.ref[Waiting], done: Future[Answer]) -> None:
        """Take a picture out whose future is cancelled; the queue, if anybody, still has it.

        A future keeps what it calls: were that the picture, each would wait for the garbage collector with its pixels.
        """
        waiting = known() if done.cancelled() else None
        if waiting is None:
            return
        with self._changed:
            if self._queue.discard(waiting):
                waiting.future.set_running_or_notify_cancel()

    # --- the end -----

    def drain(self, timeout_s: float | None = None) -> bool:
        """Take nothing new, answer what is queued, stop the threads; False if that took longer than `timeout_s`."""
        with self._changed:
            self._closing.set()
            self._changed.notify_all()
        end_s = None if timeout_s is None else time.monotonic() + timeout_s
        started = [instance for instance in self._at_work if instance.thread.ident is not None]
        for instance in started:
            if instance.state != "stuck":
                instance.thread.join(None if end_s is None else max(0.0, end_s - time.monotonic()))
        stopped = not any(instance.thread.is_alive() for instance in (*started, *self._stuck))
        if stopped:
            self._refuse_all()  # there may be some where every instance was ill
        return stopped

    def close(self, timeout_s: float | None = None) -> bool:
        """Take nothing new, refuse what is queued, stop the threads after the batches under way."""
        self._closing.set()
        self._refuse_all()
        return self.drain(timeout_s)

    def _refuse_all(self) -> None:
        with self._changed:
            refused = self._queue.take(self.queued)
        for waiting in refused:
            if waiting.future.set_running_or_notify_cancel():
                waiting.future.set_exception(DrainingError("The server stopped before this picture's turn."))

    def free(self) -> None:
        """Free the runners, those that were opened again too; all threads must have ended."""
        for instance in self._at_work:
            instance.free()

    # --- for the instances -----

    def take(self) -> list[Waiting] | None:
        """Wait for a batch: live pictures by priority, then in the order they came. None when closing and empty."""
        with self._changed:
            while not (self.queued and (wait_s := self._fill_wait_s()) <= 0.0):
                if not self.queued and self._closing.is_set():
                    return None
                self._changed.wait(wait_s if self.queued else None)
            now_s = self._clock()
            late = self._queue.take_late(now_s)
            # One whose client left is not running, so nobody wants the answer.
            taken = [one for one in self._queue.take(self._size()) if one.future.set_running_or_notify_cancel()]
            if self.queued:
                self._changed.notify()  # one that was queued without a word may be among them
        late += [waiting for waiting in taken if waiting.is_late(now_s)]
        _fail_late(late)
        return [waiting for waiting in taken if not waiting.is_late(now_s)]

    def pause(self, seconds: float) -> bool:
        """Wait; False when the batcher is closing."""
        return not self._closing.wait(seconds)

    def note_warm(self, took_s: dict[int, float], is_first: bool) -> None:
        """Hear of an instance that came through its warm-up, its first or after it was opened again."""
        with self._changed:
            for batch_size, seconds in took_s.items():
                self._pace.learn(batch_size, seconds)
            self._set_usual_batch()
            self._cold -= is_first
            last = is_first and self._cold == 0
        if last:
            self.is_warm = True  # before anybody hears of it
            self.warmed.set_result(self._clock() - self._started_s)

    def note_cold(self, error: Exception) -> None:
        """Hear of an instance that never became warm: all the others stop."""
        with self._changed:
            first, self._cold = self._cold > 0, -1
            self._closing.set()
            self._changed.notify_all()
        if first:
            self.warmed.set_exception(error)

    def note_batch(self, batch_size: int, took_s: float) -> None:
        """Hear of a batch before its answers."""
        with self._changed:
            self._pace.note(batch_size, took_s)
            self._set_usual_batch()
        for observer in self._observers:
            observer(batch_size, took_s)

    def _fill_wait_s(self) -> float:
        """How many more seconds the oldest picture lets the batch fill."""
        if self._closing.is_set() or not self._delay_s or self.queued >= min((self.max_batch_size, *self._preferred)):
            return 0.0
        return self._queue.oldest_s + self._delay_s - self._clock()

    def _size(self) -> int:
        """How many of those that wait go now: as many as possible, but while the delay lasts a preferred number."""
        largest = self.usual_batch_size
        most = min(self.queued, largest)
        if most in (0, largest) or self._queue.oldest_s + self._delay_s <= self._clock():
            return most
        return next((size for size in self._preferred if size <= most), most)

    # --- the watchdog -----

    def _watch(self) -> None:
        assert self._stuck_after_s is not None
        while not self._closing.wait(min(1.0, self._stuck_after_s / LOOKS_PER_LIMIT)):
            self.replace_stuck()

    def replace_stuck(self) -> None:
        """Give up each instance that is inside one batch for too long, and start another one in its place."""
        for index, instance in enumerate(self._at_work):
            if self._stuck_after_s is None or not instance.is_overdue(self._stuck_after_s):
                continue
            instance.give_up()
            if self._reopen is None or len(self._stuck) >= MOST_STUCK:
                continue
            self._stuck.append(instance)
            self._at_work[index] = self._new_instance(None, index)
            self._at_work[index].thread.start()


def _fail_late(late: list[Waiting]) -> None:
    for waiting in late:
        if waiting.future.running() or waiting.future.set_running_or_notify_cancel():
            problem, hint = (
                "The picture waited longer than the request's time.",
                "Send fewer at once, or ask for longer.",
            )
            waiting.future.set_exception(DeadlineError(problem, hint))
