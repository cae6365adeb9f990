"""Owns one instance of an engine: a runner in a thread of its own, its health, and its replacement when it is ill.

An instance is ill when it raises or answers NaN where the warm-up's picture was answered, when it answered none of many
pictures in a row, or when it does not come back from a batch. The first two kinds it finds out by itself and opens its
runner anew; of the last kind the batcher tells it, which then starts another instance in its place.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable
from typing import Any, Literal, Protocol

import numpy as np
from numpy.typing import NDArray

from export.interface import input_of
from export.runners.runner import Runner, are_finite, not_finite
from serve.core.failures import EngineError, NotFiniteError
from serve.core.waiting import Answer, Batch, Waiting

logger = logging.getLogger(__name__)

Reopen = Callable[[], Runner]
State = Literal["warming", "working", "ill", "stuck", "stopped"]
# Single pictures may be at fault where an engine is not; so many in a row are not.
FAILURES_IN_A_ROW = 16
# Seconds between two attempts to open a runner: doubled from the first to the last.
FIRST_PAUSE_S, LAST_PAUSE_S = 1.0, 30.0


class Batches(Protocol):
    """Where an instance gets its batches, and whom it tells what became of them."""

    max_batch_size: int

    def take(self) -> list[Waiting] | None:
        """Wait for the next batch; None when there will be none."""

    def pause(self, seconds: float) -> bool:
        """Wait; False when there will be no more batches."""

    def note_warm(self, took_s: dict[int, float], is_first: bool) -> None:
        """Hear of seconds by size of batch."""

    def note_cold(self, error: Exception) -> None:
        """Hear of a runner that did not come through its warm-up."""

    def note_batch(self, batch_size: int, took_s: float) -> None:
        """Hear of a batch before its answers."""


class Instance:
    """One runner at work. `runner` is None where it is still to be opened, by `reopen`.

    Args:
        runner: a loaded artifact; once another one is opened in its place it is freed.
        batches: the batcher.
        name: of the thread.
        reopen: opens the artifact once more; None: a runner that is ill is asked again, and never replaced.
        clock: seconds, monotonic.
    """

    def __init__(
        self, runner: Runner | None, batches: Batches, *, name: str, reopen: Reopen | None, clock: Callable[[], float]
    ) -> None:
        self.runner = runner
        self.state: State = "warming"
        self.restarts = 0
        self.thread = threading.Thread(target=self._work, name=name, daemon=True)
        self._batches = batches
        self._reopen = reopen
        self._clock = clock
        self._lock = threading.Lock()
        self._held: dict[Waiting, None] = {}
        self._busy_since_s: float | None = None
        self._is_in_doubt = False
        self._failures = 0
        self._attempts = 0
        self._buffer: NDArray[Any] | None = None

    def is_overdue(self, limit_s: float) -> bool:
        """Whether it has been inside one inference for longer than that."""
        since_s = self._busy_since_s
        return self.state == "working" and since_s is not None and self._clock() - since_s > limit_s

    @property
    def computing(self) -> int:
        """Pictures inside the runner now."""
        return len(self._held)

    def give_up(self) -> None:
        """Fail the batch it does not come back from. Its thread cannot be ended; when it comes back it ends itself."""
        self.state = "stuck"
        for waiting in self._claim(list(self._held)):
            waiting.future.set_exception(EngineError("The engine did not come back from this batch.", "Send it again."))

    def free(self) -> None:
        """Free the runner, which nobody may be inside."""
        runner, self.runner = self.runner, None
        if runner is not None:
            runner.__exit__(None, None, None)

    def _work(self) -> None:
        """The thread: open, warm up, serve; from the beginning when ill; until there is nothing left to do."""
        is_first = self.runner is not None
        while (is_first or self._replace()) and (is_warm := self._is_warm(is_first)) is not None:
            if is_warm:
                self._serve()
            if self.state == "working" or (is_first and not is_warm):
                break
            is_first = False
            if self.state == "stuck":
                self.free()
                return
        self.state = "stopped"

    def _serve(self) -> None:
        """Batch after batch, while it is well."""
        while self.state == "working" and (batch := self._batches.take()) is not None:
            with self._lock:
                self._held = dict.fromkeys(batch)
            if batch:
                self._answer(batch)
            if self._is_in_doubt and self.state == "working":
                self._examine()

    # --- health -----

    def _replace(self) -> bool:
        """Open the runner anew, with longer and longer pauses between attempts; False when the batcher ends first."""
        while True:
            pause_s = min(LAST_PAUSE_S, FIRST_PAUSE_S * 2 ** (self._attempts - 1)) if self._attempts else 0.0
            self._attempts += 1
            if not self._batches.pause(pause_s):
                return False
            if self._reopen is None and self.runner is not None:
                return True
            assert self._reopen is not None
            try:
                self.free()
                self.runner = self._reopen()
            except Exception as error:
                logger.error("The engine could not be opened again: %s", error, exc_info=error)
            else:
                self.restarts += 1
                return True

    def _is_warm(self, is_first: bool) -> bool | None:
        """Warm up. False: the runner fails; None: the batcher has ended."""
        took_s: dict[int, float] = {}
        try:
            for batch_size in warm_up_sizes(self._batches.max_batch_size):
                if not self._batches.pause(0.0):
                    return None
                began_s = self._clock()
                self._probe(batch_size)
                took_s[batch_size] = self._clock() - began_s
        except Exception as error:
            self.state = "ill"
            if is_first:
                self._batches.note_cold(error)
            else:
                logger.error("The engine failed its warm-up: %s", error, exc_info=error)
            return False
        self._is_in_doubt, self._failures = False, 0
        self.state = "working"  # before anybody hears that it is warm
        self._batches.note_warm(took_s, is_first)
        return True

    def _probe(self, batch_size: int) -> None:
        """Compute black pictures.

        Raises:
            ArtifactError: the answers are not finite. Whatever the engine raises.
        """
        assert self.runner is not None
        taken = input_of(self.runner.contract)
        finite = are_finite(self.runner.infer(np.zeros((batch_size, *taken.shape), taken.dtype)))
        if not finite.all():
            raise not_finite(self.runner.artifact, int((~finite).sum()), batch_size)

    def _examine(self) -> None:
        """After a failure: is it the engine's or the picture's? The engine must still answer a black picture."""
        self._is_in_doubt = False
        if self._failures < FAILURES_IN_A_ROW:
            self._busy_since_s = self._clock()
            try:
                self._probe(1)
                return
            except Exception as error:
                logger.error("The engine is ill and is opened again: %s", error, exc_info=error)
            finally:
                self._busy_since_s = None
        else:
            logger.error("The engine answered none of %d pictures in a row and is opened again.", self._failures)
        if self.state == "working":
            self.state = "ill"

    # --- one batch -----

    def _answer(self, batch: list[Waiting]) -> None:
        """Compute a batch. Where the engine raises, each picture goes alone, so that the one to blame fails alone."""
        try:
            self._compute(batch)
        except Exception as error:  # noqa: BLE001 - anything that an engine raises fails pictures, and only these
            self._is_in_doubt = True
            if len(batch) > 1:
                for waiting in batch:
                    if waiting in self._held:
                        self._answer([waiting])
                return
            self._failures += 1
            for waiting in self._claim(batch):
                waiting.future.set_exception(_engine_error(error))

    def _compute(self, batch: list[Waiting]) -> None:
        """Answer pictures that are held.

        Raises:
            ValueError: another number of answers. Whatever the engine raises.
        """
        assert self.runner is not None
        taken = self._gather(batch)
        self._busy_since_s = began_s = self._clock()
        try:
            logits = self.runner.infer(taken)
        finally:
            self._busy_since_s = None
        took_s = self._clock() - began_s
        if len(logits) != len(batch):
            raise ValueError(f"{len(batch)} pictures went in and {len(logits)} rows came out")
        finite = are_finite(logits)
        self._batches.note_batch(len(batch), took_s)
        still_held = set(self._claim(batch))
        answers = Batch(logits)
        for row, (waiting, is_finite) in enumerate(zip(batch, finite.tolist(), strict=True)):
            if waiting not in still_held:
                continue
            if is_finite:
                self._failures, self._attempts = 0, 0
                queue_ms, compute_ms = (began_s - waiting.queued_s) * 1000.0, took_s * 1000.0
                waiting.future.set_result(
                    Answer(batch=answers, row=row, queue_ms=queue_ms, compute_ms=compute_ms, batch_size=len(batch))
                )
            else:
                self._failures, self._is_in_doubt = self._failures + 1, True
                waiting.future.set_exception(
                    NotFiniteError(
                        "The network's answer to this picture is not finite.",
                        "Other pictures may work. The artifact is at fault: `zoo evaluate` says for how many pictures.",
                    )
                )

    def _gather(self, batch: list[Waiting]) -> NDArray[Any]:
        """The pictures as one array, in memory that every batch uses again: fresh memory costs more than the copy.

        NumPy would let the interpreter's lock go for each picture, and wait for it each time while requests are read:
        for longer than the copies take.
        """
        if self._buffer is None:
            first = batch[0].picture
            self._buffer = np.empty((self._batches.max_batch_size, *first.shape), first.dtype)
        size, room = batch[0].picture.nbytes, _bytes_of(self._buffer)
        for index, waiting in enumerate(batch):
            room[index * size : (index + 1) * size] = _bytes_of(np.ascontiguousarray(waiting.picture))
        return self._buffer[: len(batch)]

    def _claim(self, batch: list[Waiting]) -> list[Waiting]:
        """Those that are still this instance's to answer; after that they are not, so nobody answers one twice."""
        with self._lock:
            claimed = [waiting for waiting in batch if waiting in self._held]
            for waiting in claimed:
                del self._held[waiting]
        return claimed


def warm_up_sizes(max_batch_size: int) -> list[int]:
    """Powers of two below the largest batch, then that batch: 12 → 1, 2, 4, 8, 12."""
    return [1 << power for power in range((max_batch_size - 1).bit_length())] + [max_batch_size]


def _bytes_of(array: NDArray[Any]) -> memoryview:
    return memoryview(array).cast("B")  # type: ignore[arg-type]  # an array is a buffer


def _engine_error(cause: Exception) -> EngineError:
    # One error object per request: a handler clears its traceback while another may still be reading it.
    error = EngineError("The engine failed on this batch.", "The server's log has the reason; others still work.")
    error.__cause__ = cause
    return error
