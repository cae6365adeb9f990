"""Owns answers that are kept for pictures that come again: by content and key holder, bounded; it computes none.

What is kept are the outputs of the network; what a request asks of them (how many classes, which outputs) is made anew.
An answer is only ever given to whom it was computed for: another key holder who sends the same bytes has them
computed again, because how fast an answer comes would tell that somebody else had sent them.
"""

from __future__ import annotations

import asyncio
import hashlib
import time
from collections import OrderedDict
from collections.abc import Callable
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from serve.core.waiting import Answer, Batch

Content = Literal["file", "input"]
Key = tuple[bytes, Content, bytes]
Counted = Callable[[bool, float], None]
"""Called with whether a picture was found and the seconds that cost: reading its bytes, looking, and keeping."""

# An entry beside its outputs: key, digest, array and their places, by sys.getsizeof on Python 3.11.
ENTRY_BYTES = 512
# More than so much takes a thread: SHA-256 of it is about half a millisecond.
LARGE_BYTES = 500_000


class AnswerCache:
    """The answers of one engine, `capacity_bytes` of them; the one asked for longest ago goes first.

    Belongs to one event loop. `counted` hears of every look-up.
    """

    def __init__(self, capacity_bytes: int, counted: Counted) -> None:
        self.capacity_bytes = capacity_bytes
        self.kept_bytes = 0
        self._counted = counted
        self._kept: OrderedDict[Key, NDArray[np.float32]] = OrderedDict()

    def __len__(self) -> int:
        return len(self._kept)

    async def key_of(self, holder: bytes, content: Content, data: bytes | NDArray[Any]) -> Key:
        """What a picture is found by: whose it is, whether it is a file or an input, and the SHA-256 of its bytes."""
        raw = memoryview(data).cast("B")  # type: ignore[arg-type]  # an array is a buffer
        large = len(raw) > LARGE_BYTES
        digest = await asyncio.to_thread(_digest, raw) if large else _digest(raw)
        return holder, content, digest

    def find(self, key: Key, since_s: float) -> Answer | None:
        """The answer to a picture; None where it has to be computed. `since_s` is when its bytes were first read."""
        logits = self._kept.get(key)
        if logits is None:
            self._counted(False, time.monotonic() - since_s)
            return None
        self._kept.move_to_end(key)
        self._counted(True, time.monotonic() - since_s)
        return Answer(batch=Batch(logits), row=0, queue_ms=0.0, compute_ms=0.0, batch_size=0)

    def keep(self, key: Key, answer: Answer) -> None:
        """Keep an answer, unless it is larger than everything together may be."""
        size_bytes = answer.logits.nbytes + ENTRY_BYTES
        if key in self._kept or size_bytes > self.capacity_bytes:
            return
        # A copy: the outputs of a whole batch would stay in memory with a view of one of them.
        self._kept[key] = answer.logits[None].copy()
        self.kept_bytes += size_bytes
        while self.kept_bytes > self.capacity_bytes:
            _, oldest = self._kept.popitem(last=False)
            self.kept_bytes -= oldest.nbytes + ENTRY_BYTES

    def clear(self) -> None:
        """Forget everything."""
        self._kept.clear()
        self.kept_bytes = 0


def _digest(data: memoryview) -> bytes:
    return hashlib.sha256(data).digest()
