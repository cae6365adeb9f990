"""Owns a picture's way from bytes to an answer: admission, decoding, queue, limits, state; it speaks no HTTP."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from export.contract import Contract
from export.interface import as_input
from serve.core.batcher import Answer, Taken
from serve.core.failures import DrainingError, QueueFullError, UnavailableError, WarmingUpError, find_failure
from serve.core.metrics import Metrics
from serve.core.slot import Engine, Slot
from zoo import __version__
from zoo.data.decode import open_picture
from zoo.data.preprocess import prepare
from zoo.errors import ZooError
from zoo.rows import Count, CountOrNone, NotNegative, Positive, Row


@dataclass(frozen=True, kw_only=True)
class Limits(Row):
    """What one request may cost, and how many may be under way.

    `max_in_flight` bounds the bodies in memory: requests being read, decoded, queued or computed. `drain_s` is how
    long those may take once the server is told to stop.
    """

    max_body_bytes: CountOrNone
    timeout_s: Positive
    max_in_flight: Count
    decode_threads: Count
    drain_s: NotNegative


class Service:
    """Answers pictures with the engine at work. Belongs to one event loop; decoding and inference run in threads."""

    def __init__(self, slot: Slot, limits: Limits) -> None:
        self.slot = slot
        self.limits = limits
        self.draining = False
        self.in_flight = 0
        self.abandoned = 0
        self.metrics = Metrics(
            self._labels,
            queue_depth=lambda: slot.engine.batcher.queued,
            in_flight=lambda: self.in_flight,
            ready=lambda: self.unavailable() is None,
        )
        slot.observe(self.metrics.observe_batch)
        self._decoders = ThreadPoolExecutor(limits.decode_threads, thread_name_prefix="decode")

    def _labels(self) -> dict[str, str]:
        engine = self.slot.engine
        labels = {name: value or "" for name, value in engine.info.to_dict().items() if name != "random_weights"}
        return {"model": engine.contract.model, **labels}

    def unavailable(self) -> UnavailableError | None:
        """Why no picture is taken now; None where the server is ready."""
        if self.draining:
            return DrainingError("The server is shutting down.", "Send the picture again to another one.")
        if not self.slot.engine.batcher.ready:
            return WarmingUpError("The engine is warming up.", "Wait until GET /readyz answers 200.")
        return None

    @contextmanager
    def admit(self) -> Iterator[Engine]:
        """Count a request from its first byte to its answer, and its failure by reason; yield the engine it gets.

        Raises:
            DrainingError, WarmingUpError, QueueFullError: it is not taken. Whatever the body raises.
        """
        try:
            if reason := self.unavailable():
                raise reason
            with self.slot.use() as engine:
                if self.in_flight >= self.limits.max_in_flight:
                    raise QueueFullError(
                        f"{self.in_flight} requests are under way and the server takes no more.",
                        "Send it again after Retry-After seconds.",
                        engine.batcher.expected_wait_s(),
                    )
                self.in_flight += 1
                try:
                    yield engine
                finally:
                    self.in_flight -= 1
        except asyncio.CancelledError as error:
            if not self.draining:
                raise
            # The drain limit is over and the web server cancels what is left: the client gets an answer all the same.
            self.abandoned += 1
            self.metrics.rejected.labels("draining").inc()
            raise DrainingError("The server stopped before this picture's turn.", "Send it to another one.") from error
        except ZooError as error:
            self.metrics.rejected.labels(find_failure(error).reason).inc()
            raise

    async def classify(self, engine: Engine, body: bytes, *, deadline_s: float) -> tuple[Answer, float]:
        """Decode and prepare a picture, then queue it: its answer, and the milliseconds of decoding.

        Cancelling the call takes the picture out of the queue it stands in, for decoding or for the engine.

        Raises:
            BrokenPictureError: as `open_picture`. QueueFullError, DrainingError, DeadlineError, EngineError: as
            `Batcher.submit`.
        """
        began_s = time.monotonic()
        loop = asyncio.get_running_loop()
        picture = await loop.run_in_executor(self._decoders, _prepare, body, engine.contract)
        decode_ms = (time.monotonic() - began_s) * 1000.0
        answer = await asyncio.wrap_future(engine.batcher.submit(picture, deadline_s=deadline_s))
        return answer, decode_ms

    def stop_accepting(self) -> None:
        """Take no more requests; those under way have `drain_s` to be answered."""
        self.draining = True
        self._drain_until_s = time.monotonic() + self.limits.drain_s

    def give_up(self) -> None:
        """Stop waiting for the requests under way."""
        self._drain_until_s = time.monotonic()

    def drain(self) -> None:
        """Answer what is queued, then stop the threads; give up when `drain_s` is over. Blocks."""
        if not self.draining:
            self.stop_accepting()
        self.slot.engine.batcher.drain(max(0.0, self._drain_until_s - time.monotonic()))
        self._decoders.shutdown(wait=False, cancel_futures=True)

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
            "max_body_bytes": self.limits.max_body_bytes,
        }


def _prepare(body: bytes, contract: Contract) -> Taken:
    # Decoded in full, as `zoo predict` does: reading a JPEG at half size is faster and changes the scores.
    picture = prepare(open_picture(body, sent=True, channels=contract.preprocessing.channels), contract.preprocessing)
    taken: Taken = as_input(picture[None], contract)[0]
    return taken
