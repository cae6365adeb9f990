"""Owns the way of results from threads to the event loop: one wake-up for all that come together; it computes none."""

from __future__ import annotations

import asyncio
from collections import deque
from concurrent.futures import CancelledError, Future
from typing import Any, TypeVar

T = TypeVar("T")


class Inbox:
    """What threads have for one event loop. A batch of 32 answers wakes the loop once, not 32 times."""

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self.loop = loop
        self._arrived: deque[tuple[Future[Any], asyncio.Future[Any]]] = deque()
        self._is_woken = False

    def expect(self, source: Future[T]) -> asyncio.Future[T]:
        """A future of the loop that gets what `source` gets; cancelling it cancels `source`."""
        target: asyncio.Future[T] = self.loop.create_future()
        target.add_done_callback(lambda done: source.cancel() if done.cancelled() else None)
        source.add_done_callback(lambda done: self._put(done, target))
        return target

    def _put(self, source: Future[Any], target: asyncio.Future[Any]) -> None:
        self._arrived.append((source, target))
        if not self._is_woken and not self.loop.is_closed():
            self._is_woken = True
            self.loop.call_soon_threadsafe(self._deliver)

    def _deliver(self) -> None:
        self._is_woken = False  # first: what arrives from here on wakes the loop again
        while self._arrived:
            source, target = self._arrived.popleft()
            try:
                error = source.exception()  # seen, though nobody may wait any more
            except CancelledError:
                target.cancel()
                continue
            if target.done():
                continue
            if error is None:
                target.set_result(source.result())
            else:
                target.set_exception(error)
