"""Owns a picture's way from bytes to an answer: admission, decoding, queue, limits, state; it speaks no HTTP."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Coroutine, Iterable, Iterator
from concurrent.futures import Future
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, TypeVar

import numpy as np
from numpy.typing import NDArray

from serve.core.batcher import Batcher
from serve.core.cache import AnswerCache
from serve.core.decoders import Decoders, Pictures
from serve.core.failures import (
    DrainingError,
    EngineDownError,
    QueueFullError,
    TooBusyError,
    UnavailableError,
    WarmingUpError,
    find_failure,
)
from serve.core.inbox import Inbox
from serve.core.metrics import Metrics
from serve.core.slot import Engine, Slot
from serve.core.waiting import DEFAULT_PRIORITY, Answer, Taken
from zoo import __version__
from zoo.errors import ZooError
from zoo.rows import Count, CountOrNone, NotNegative, Positive, Row

T = TypeVar("T")


@dataclass(frozen=True, kw_only=True)
class Limits(Row):
    """What one request may cost, and how many may be under way.

    `max_in_flight` bounds the requests being decoded, queued or computed; as many bodies of `max_body_bytes` may be in
    memory that are still coming. `drain_s` is how
    long those may take once the server is told to stop. `max_wait_s` is the longest a request may have to wait for the
    start of its batch, by estimate; None admits whatever fits the queue. `pictures` is how they are prepared.
    `cache_bytes` of answers are kept for pictures that come again.
    """

    max_body_bytes: CountOrNone
    timeout_s: Positive
    max_in_flight: Count
    decode_threads: Count
    drain_s: NotNegative
    max_wait_s: Positive | None = None
    pictures: Pictures = "exact"
    cache_bytes: CountOrNone = 0


class Service:
    """Answers pictures with the engine at work. Belongs to one event loop; decoding and inference run in threads."""

    def __init__(self, slot: Slot, limits: Limits) -> None:
        self.slot = slot
        self.limits = limits
        self.leaving = False
        self.draining = False
        self.in_flight = 0
        self.abandoned = 0
        self.receiving = self._received_bytes = 0
        self.metrics = Metrics(
            self._labels,
            queue_depth=lambda: slot.engine.batcher.queued,
            in_flight=lambda: self.in_flight,
            ready=lambda: self.not_ready() is None,
            restarts=lambda: slot.engine.batcher.restarts,
            has_cache=limits.cache_bytes > 0,
        )
        self._cache = AnswerCache(limits.cache_bytes, self.metrics.observe_look_up) if limits.cache_bytes else None
        self._cached_of: Engine | None = None
        slot.observe(self.metrics.observe_batch)
        self._decoders = Decoders(limits.decode_threads, limits.pictures)
        self._inbox: Inbox | None = None
        self._to_wake: set[Batcher] = set()

    def _labels(self) -> dict[str, str]:
        engine = self.slot.engine
        labels = {name: value or "" for name, value in engine.info.to_dict().items() if name != "random_weights"}
        return {"model": engine.contract.model, **labels}

    def unavailable(self) -> UnavailableError | None:
        """Why no picture is taken now; None where one is."""
        if self.draining:
            return DrainingError("The server is shutting down.", "Send the picture again to another one.")
        batcher = self.slot.engine.batcher
        if not batcher.is_warm:
            return WarmingUpError("The engine is warming up.", "Wait until GET /readyz answers 200.")
        if not batcher.ready:
            return EngineDownError(
                "The engine does not answer and is being opened again.", "Send the picture to another server meanwhile."
            )
        return None

    def not_ready(self) -> UnavailableError | None:
        """Why a load balancer should send nothing here; None where it should.

        A server that is about to stop says so first and still takes what comes.
        """
        reason = self.unavailable()
        if reason is None and self.leaving:
            return DrainingError("The server is about to shut down.", "Send pictures to another one.")
        return reason

    def expected_wait_s(self, engine: Engine, others: int | None = None) -> float:
        """Seconds until the batch of a request that comes now, beside `others`, would begin.

        Decoding and inference go on at the same time, so the slower of the two decides.
        """
        batcher = engine.batcher
        there = self.in_flight - self.receiving if others is None else others
        coming = max(0, there - batcher.queued - batcher.computing)
        return max(self._decoders.expected_wait_s(coming), batcher.expected_wait_s(coming))

    @contextmanager
    def admit(self) -> Iterator[Engine]:
        """Count a request from its first byte to its answer, and its failure by reason; yield the engine it gets.

        Raises:
            UnavailableError: it is not taken, for one of the reasons of its kinds. Whatever the body raises.
        """
        began_s = time.monotonic()
        engine: Engine | None = None
        try:
            if reason := self.unavailable():
                raise reason
            engine = self.slot.take()
            self._check_room(engine, self.in_flight - self.receiving)
            self.in_flight += 1
            try:
                yield engine
            finally:
                self.in_flight -= 1
            self.metrics.observe_request(time.monotonic() - began_s)
        except asyncio.CancelledError as error:
            if not self.draining:
                raise
            # The drain limit is over and the web server cancels what is left: the client gets an answer all the same.
            self.abandoned += 1
            stopped = DrainingError("The server stopped before this picture's turn.", "Send it to another one.")
            self.metrics.observe_request(time.monotonic() - began_s, find_failure(stopped))
            raise stopped from error
        except ZooError as error:
            self.metrics.observe_request(time.monotonic() - began_s, find_failure(error))
            raise
        finally:
            if engine is not None:
                self.slot.leave(engine)

    @contextmanager
    def receive(self, engine: Engine) -> Iterator[Callable[[int], None]]:
        """Let an admitted request's body come; yield what is to be told of its bytes as they do.

        It waits for its client, so it takes nobody's place: however many clients are slow, others are admitted. Once
        it is there it needs a place as one that comes now.

        Raises:
            QueueFullError: there is no memory for more bodies. UnavailableError: there is no place any more.
        """
        own_bytes = 0

        def note(count: int) -> None:
            nonlocal own_bytes
            own_bytes += count
            self._received_bytes += count
            if self._received_bytes > self.limits.max_in_flight * self.limits.max_body_bytes:
                raise QueueFullError(
                    f"Bodies of {self._received_bytes / 1e6:.0f} MB are being received, and the server takes no more.",
                    "Send it again after Retry-After seconds.",
                )

        self.receiving += 1
        try:
            yield note
        finally:
            self.receiving -= 1
            self._received_bytes -= own_bytes
        self._check_room(engine, self.in_flight - self.receiving - 1)

    def _check_room(self, engine: Engine, others: int) -> None:
        """Refuse a request beside `others`, in the same time however many these are.

        What fits one batch is always let in: an engine is no faster with less.
        """
        if others >= self.limits.max_in_flight:
            raise QueueFullError(
                f"{others} requests are under way and the server takes no more.",
                "Send it again after Retry-After seconds.",
                engine.batcher.expected_wait_s(),
            )
        longest_s = self.limits.max_wait_s
        if longest_s is None or others < engine.batcher.usual_batch_size:
            return
        wait_s = self.expected_wait_s(engine, others)
        if wait_s > longest_s:
            raise TooBusyError(
                f"The answer would have to wait {wait_s * 1000.0:.0f} ms, longer than {longest_s * 1000.0:g} ms.",
                "Send it again after Retry-After seconds, or start the server with a larger --max-wait-ms.",
                wait_s - longest_s,
            )

    async def classify(
        self,
        engine: Engine,
        body: bytes,
        *,
        deadline_s: float,
        priority: int = DEFAULT_PRIORITY,
        holder: bytes = b"",
    ) -> tuple[Answer, float]:
        """Decode and prepare a picture, then queue it: its answer, and the milliseconds of decoding.

        Cancelling the call gives the picture up, wherever it is: waiting, half decoded or queued. An answer that was
        kept for the same bytes of the same holder has a batch of 0.

        Args:
            engine: as `admit` yielded it.
            body: the picture's bytes.
            deadline_s: on `time.monotonic`.
            priority: 1 is taken first, 9 last.
            holder: who asks; kept answers are for them alone.

        Raises:
            BrokenPictureError: as `open_picture`. QueueFullError, DrainingError, DeadlineError, EngineError: as
            `Batcher.submit`.
        """
        cache = self._cache_of(engine)
        if cache is None:
            return await self._classify(engine, body, deadline_s, priority)
        since_s = time.monotonic()
        key = await cache.key_of(holder, "file", body)
        if found := cache.find(key, since_s):
            return found, 0.0
        answer, decode_ms = await self._classify(engine, body, deadline_s, priority)
        if self._cache_of(engine) is cache:
            cache.keep(key, answer)
        return answer, decode_ms

    async def _classify(self, engine: Engine, body: bytes, deadline_s: float, priority: int) -> tuple[Answer, float]:
        future: Future[Answer] = Future()
        decode_ms = 0.0

        def queue(picture: Taken, took_s: float, future: Future[Answer]) -> None:
            nonlocal decode_ms
            decode_ms = took_s * 1000.0
            engine.batcher.submit(picture, deadline_s=deadline_s, priority=priority, future=future)

        self._decoders.submit(body, engine.contract, future, queue)
        return await self._expect(future), decode_ms

    async def infer(
        self,
        engine: Engine,
        pictures: NDArray[Any],
        *,
        deadline_s: float,
        priority: int = DEFAULT_PRIORITY,
        holder: bytes = b"",
    ) -> list[Answer]:
        """Queue pictures that are inputs already: their answers, in order. Each takes a place of its own in the queue.

        Cancelling the call gives all of them up.

        Args:
            engine: as `admit` yielded it.
            pictures: N rows of the artifact's input, as `export.interface.input_of` has it.
            deadline_s: on `time.monotonic`.
            priority: 1 is taken first, 9 last.
            holder: who asks; kept answers are for them alone.

        Raises:
            ValueError: another shape or type. QueueFullError, DrainingError, DeadlineError, EngineError: as
            `Batcher.submit`; of the first picture that fails, and the others are given up.
        """
        cache = self._cache_of(engine)
        if cache is None:
            return await self._infer(engine, pictures, deadline_s, priority)
        found: list[Answer | None] = []
        keys = []
        for picture in pictures:
            since_s = time.monotonic()
            keys.append(await cache.key_of(holder, "input", np.ascontiguousarray(picture)))
            found.append(cache.find(keys[-1], since_s))
        missing = [place for place, answer in enumerate(found) if answer is None]
        computed = await self._infer(engine, pictures[missing], deadline_s, priority)
        for place, answer in zip(missing, computed, strict=True):
            found[place] = answer
            if self._cache_of(engine) is cache:
                cache.keep(keys[place], answer)
        return [answer for answer in found if answer is not None]

    async def _infer(self, engine: Engine, pictures: NDArray[Any], deadline_s: float, priority: int) -> list[Answer]:
        futures: list[Future[Answer]] = []
        try:
            for picture in pictures:
                futures.append(engine.batcher.submit(picture, deadline_s=deadline_s, priority=priority, wake=False))
            self._wake_soon(engine.batcher)
            if len(futures) == 1:
                return [await self._expect(futures[0])]
            return await asyncio.gather(*map(self._expect, futures))
        except BaseException:
            for future in futures:
                future.cancel()
            raise

    def _cache_of(self, engine: Engine) -> AnswerCache | None:
        """The kept answers of the engine at work; none of one whose place another one has taken."""
        if self._cache is None or engine is not self.slot.engine:
            return None
        if self._cached_of is not engine:
            self._cache.clear()
            self._cached_of = engine
        return self._cache

    def _wake_soon(self, batcher: Batcher) -> None:
        """Wake an instance once all requests of this turn of the event loop have queued theirs.

        A thread that is woken by the first of them wants the interpreter's lock at once, and both threads would pass
        it to each other at every request: two switches each instead of two a turn.
        """
        if batcher not in self._to_wake:
            self._to_wake.add(batcher)
            asyncio.get_running_loop().call_soon(self._wake, batcher)

    def _wake(self, batcher: Batcher) -> None:
        self._to_wake.discard(batcher)
        batcher.wake()

    def _expect(self, future: Future[Answer]) -> asyncio.Future[Answer]:
        if self._inbox is None:
            self._inbox = Inbox(asyncio.get_running_loop())
        return self._inbox.expect(future)

    def leave(self) -> None:
        """Be ready no longer, but go on taking what comes: load balancers need a while to hear of it."""
        self.leaving = True

    def stop_accepting(self) -> None:
        """Take no more requests; those under way have `drain_s` to be answered."""
        self.leaving = self.draining = True
        self._drain_until_s = time.monotonic() + self.limits.drain_s

    def give_up(self) -> None:
        """Stop waiting for the requests under way."""
        self._drain_until_s = time.monotonic()

    def drain(self) -> None:
        """Answer what is queued, then stop the threads; give up when `drain_s` is over. Blocks."""
        if not self.draining:
            self.stop_accepting()
        self.slot.engine.batcher.drain(max(0.0, self._drain_until_s - time.monotonic()))
        self._decoders.shutdown()

    def describe(self) -> dict[str, Any]:
        """What `/info` answers: the contract, the engine and the limits as plain JSON types."""
        engine = self.slot.engine
        return {
            "version": __version__,
            **engine.contract.to_dict(),
            **engine.info.to_dict(),
            "image_size": engine.contract.preprocessing.image_size,
            "num_classes": len(engine.contract.classes),
            "instances": engine.batcher.instances,
            "max_batch_size": engine.batcher.max_batch_size,
            "queue_capacity": engine.batcher.queue_capacity,
            "timeout_ms": self.limits.timeout_s * 1000.0,
            "max_wait_ms": None if self.limits.max_wait_s is None else self.limits.max_wait_s * 1000.0,
            "max_body_bytes": self.limits.max_body_bytes,
            "pictures": self.limits.pictures,
            "cache_bytes": self.limits.cache_bytes,
        }


async def together(asked: Iterable[Coroutine[Any, Any, T]]) -> list[T]:
    """Wait for everything one request asks for, side by side; where one part fails, the others are given up.

    Raises:
        What the first part raises that fails; CancelledError: the call was cancelled, and so is all of it.
    """
    tasks = [asyncio.ensure_future(one) for one in asked]
    try:
        return await asyncio.gather(*tasks)
    except BaseException:
        for task in tasks:
            task.cancel()
        raise
