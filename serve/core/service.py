"""Owns a picture's way from bytes to an answer: admission, decoding, queue, limits, state; it speaks no HTTP."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from export.contract import Contract
from serve.core.batcher import Answer, Batcher
from serve.core.failures import DrainingError, QueueFullError, UnavailableError, WarmingUpError, find_failure
from serve.core.metrics import Metrics
from zoo import __version__
from zoo.data.decode import open_picture
from zoo.data.preprocess import prepare
from zoo.errors import ZooError


@dataclass(frozen=True, kw_only=True)
class EngineInfo:
    """What is being served, for people: never a path, because clients see it.

    `precision` is None where no passport tells it. `random_weights`: for latency work, so no answer means anything.
    """

    artifact: str
    backend: str
    device: str
    precision: str | None = None
    random_weights: bool = False


@dataclass(frozen=True, kw_only=True)
class Limits:
    """What one request may cost, and how many may be under way.

    `max_in_flight` bounds the bodies in memory: requests being read, decoded, queued or computed. `drain_s` is how
    long those may take once the server is told to stop.
    """

    max_body_bytes: int
    timeout_s: float
    max_in_flight: int
    decode_threads: int
    drain_s: float


class Service:
    """One engine behind its queue. Belongs to one event loop; decoding and inference run in threads."""

    def __init__(self, batcher: Batcher, contract: Contract, info: EngineInfo, limits: Limits) -> None:
        self.batcher = batcher
        self.contract = contract
        self.info = info
        self.limits = limits
        self.draining = False
        self.in_flight = 0
        self.abandoned = 0
        self.metrics = Metrics(
            {
                "model": contract.model,
                "artifact": info.artifact,
                "backend": info.backend,
                "device": info.device,
                "precision": info.precision or "",
            },
            queue_depth=lambda: batcher.queued,
            in_flight=lambda: self.in_flight,
            ready=lambda: self.unavailable() is None,
        )
        batcher.observe(self.metrics.observe_batch)
        self._decoders = ThreadPoolExecutor(limits.decode_threads, thread_name_prefix="decode")

    def unavailable(self) -> UnavailableError | None:
        """Why no picture is taken now; None where the server is ready."""
        if self.draining:
            return DrainingError("The server is shutting down.", "Send the picture again to another one.")
        if not self.batcher.ready:
            return WarmingUpError("The engine is warming up.", "Wait until GET /readyz answers 200.")
        return None

    @contextmanager
    def admit(self) -> Iterator[None]:
        """Count a request from its first byte to its answer, and its failure by reason.

        Raises:
            DrainingError, WarmingUpError, QueueFullError: it is not taken. Whatever the body raises.
        """
        try:
            if reason := self.unavailable():
                raise reason
            if self.in_flight >= self.limits.max_in_flight:
                raise QueueFullError(
                    f"{self.in_flight} requests are under way and the server takes no more.",
                    "Send it again after Retry-After seconds.",
                    self.batcher.expected_wait_s(),
                )
            self.in_flight += 1
            try:
                yield
            finally:
                self.in_flight -= 1
        except asyncio.CancelledError as error:
            if not self.draining:
                raise
            # The drain limit is over and the web server cancels what is left: say so instead of hanging up.
            self.abandoned += 1
            self.metrics.rejected.labels("draining").inc()
            raise DrainingError("The server stopped before this picture's turn.", "Send it to another one.") from error
        except ZooError as error:
            self.metrics.rejected.labels(find_failure(error).reason).inc()
            raise

    async def classify(self, body: bytes, *, deadline_s: float) -> tuple[Answer, float]:
        """Decode and prepare a picture, then queue it: its answer, and the milliseconds of decoding.

        Cancelling the call takes the picture out of whichever line it stands in.

        Raises:
            BrokenPictureError: as `open_picture`. QueueFullError, DrainingError, DeadlineError, EngineError: as
            `Batcher.submit`.
        """
        began_s = time.monotonic()
        picture = await asyncio.get_running_loop().run_in_executor(self._decoders, self._prepare, body)
        decode_ms = (time.monotonic() - began_s) * 1000.0
        answer = await asyncio.wrap_future(self.batcher.submit(picture, deadline_s=deadline_s))
        return answer, decode_ms

    def _prepare(self, body: bytes) -> NDArray[np.uint8]:
        # Decoded in full, as `zoo predict` does: reading a JPEG at half size is faster and changes the scores.
        return prepare(open_picture(body), self.contract.preprocessing)

    def stop_accepting(self) -> None:
        """Be unavailable from now on; what is under way has `drain_s` to be answered."""
        self.draining = True
        self._drain_until_s = time.monotonic() + self.limits.drain_s

    def give_up(self) -> None:
        """Wait for nothing any more."""
        self._drain_until_s = time.monotonic()

    def drain(self) -> None:
        """Answer what is queued, then stop the threads; give up when `drain_s` is over. Blocks."""
        if not self.draining:
            self.stop_accepting()
        self.batcher.drain(max(0.0, self._drain_until_s - time.monotonic()))
        self._decoders.shutdown(wait=False, cancel_futures=True)

    def describe(self) -> dict[str, Any]:
        """What `/info` answers: the contract, the engine and the limits as plain JSON types."""
        return {
            "version": __version__,
            "model": self.contract.model,
            "artifact": self.info.artifact,
            "backend": self.info.backend,
            "device": self.info.device,
            "precision": self.info.precision,
            "random_weights": self.info.random_weights,
            "image_size": self.contract.preprocessing.image_size,
            "num_classes": len(self.contract.classes),
            "classes": list(self.contract.classes),
            "preprocessing": self.contract.preprocessing.to_dict(),
            "instances": self.batcher.instances,
            "max_batch_size": self.batcher.max_batch_size,
            "queue_capacity": self.batcher.queue_capacity,
            "timeout_ms": self.limits.timeout_s * 1000.0,
            "max_body_bytes": self.limits.max_body_bytes,
        }
