"""Owns pictures that stay decoded from one epoch to the next, in memory that a run's decoding processes share.

A PNG of 32 px takes longer to decode than a small network takes to learn from it, and one of 500 px several
milliseconds. The pixels are those that decoding would give again: what a run learns does not depend on what is kept.
"""

from __future__ import annotations

import mmap
import multiprocessing
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import partial

import numpy as np
from numpy.typing import NDArray

from zoo.data.decode import open_picture
from zoo.data.jpeg import is_jpeg
from zoo.data.pictures import Pictures, Stored
from zoo.data.planes import to_pixels
from zoo.machine import usable_memory

# Of the memory this process may use, all kept pictures together take no more.
MEMORY_SHARE = 1 / 8
# Arrays begin at multiples of this, so that no two processes write to one cache line.
ALIGNMENT = 64


class KeptPixels:
    """Decoded pictures by index, (H, W, C) uint8, until one does not fit; processes forked from this one share them.

    Nothing waits: what cannot be kept or found at once, because another process is at it, is decoded again. `jpegs`
    says whether those of JPEGs are kept too: not where crops are made of them, of which each decodes what it needs.
    """

    def __init__(self, count: int, most_bytes: int, *, jpegs: bool = False) -> None:
        self.jpegs = jpegs
        # Of such memory only pages that are written to are taken from the system.
        self._memory = np.frombuffer(mmap.mmap(-1, max(most_bytes, 1)), np.uint8)
        # Where each picture begins, and its height, width and planes; no planes: it is not there.
        self._places = np.frombuffer(mmap.mmap(-1, max(count, 1) * 4 * 8), np.int64).reshape(-1, 4)
        self._used = np.frombuffer(mmap.mmap(-1, 8), np.int64)
        # Held for a moment, and never waited for: a process that is killed with it costs time, not the run.
        self._lock = multiprocessing.Lock()

    def find(self, index: int) -> NDArray[np.uint8] | None:
        """A picture's pixels, not to be written to; None if they are not there."""
        if not self._lock.acquire(block=False):
            return None
        start, height, width, planes = self._places[index].tolist()
        self._lock.release()
        if not planes:
            return None
        return self._memory[start : start + height * width * planes].reshape(height, width, planes)

    @property
    def is_full(self) -> bool:
        """Whether a picture did not fit: no other is kept then."""
        return bool(self._used[0] >= self._memory.size)

    def keep(self, index: int, pixels: NDArray[np.uint8]) -> NDArray[np.uint8]:
        """Keep a picture, if there is room and it is not there yet; returns a copy of its pixels in either case."""
        start = self._take(index, pixels.size)
        if start is None:
            return pixels.copy()
        kept = self._memory[start : start + pixels.size].reshape(pixels.shape)
        kept[:] = pixels
        if self._lock.acquire(block=False):
            self._places[index] = (start, *pixels.shape)
            self._lock.release()
        return kept

    def _take(self, index: int, size_bytes: int) -> int | None:
        """Room for a picture."""
        if not self._lock.acquire(block=False):
            return None
        try:
            start = int(self._used[0])
            if self._places[index, 3]:
                return None
            fits = start + size_bytes <= self._memory.size
            self._used[0] = -(-(start + size_bytes) // ALIGNMENT) * ALIGNMENT if fits else self._memory.size
            return start if fits else None
        finally:
            self._lock.release()


_kept: list[tuple[Pictures, KeptPixels]] = []


@contextmanager
def pixels_kept(sets: Sequence[Pictures], most_bytes: int | None = None) -> Iterator[None]:
    """Keep decoded pictures of these sets until the block ends, equally much of each; of the first one no JPEGs.

    Args:
        sets: the first is the one that is trained on, by crops.
        most_bytes: of all together; by default `MEMORY_SHARE` of the memory this process may use.
    """
    most = int(usable_memory() * MEMORY_SHARE) if most_bytes is None else most_bytes
    own = [
        (pictures, KeptPixels(len(pictures), most // len(sets), jpegs=place > 0)) for place, pictures in enumerate(sets)
    ]
    _kept.extend(own)
    try:
        yield
    finally:
        _kept[:] = [each for each in _kept if all(each is not other for other in own)]


@contextmanager
def reading(
    pictures: Pictures, indices: Sequence[int], *, channels: int, crops: bool
) -> Iterator[list[Callable[[], Stored]]]:
    """`Pictures.reading`, but what is kept is not read again, and files that are decoded here are kept.

    Args:
        channels: in how many planes, as `open_picture` has it.
        crops: whether crops are made of them: then a JPEG is not decoded as a whole.
    """
    kept = _kept_of(pictures)
    if kept is None or (crops and kept.jpegs):
        with pictures.reading(indices) as reads:
            yield reads
        return
    found = {index: pixels for index in indices if (pixels := kept.find(index)) is not None}

    def decoded(index: int, read: Callable[[], Stored]) -> Stored:
        stored = read()
        if isinstance(stored, np.ndarray) or kept.is_full or (is_jpeg(stored) and not kept.jpegs):
            return stored
        return kept.keep(index, to_pixels(open_picture(stored, name=pictures.describe(index), channels=channels)))

    with pictures.reading([index for index in indices if index not in found]) as reads:
        others = iter(reads)
        yield [
            partial(found.__getitem__, index) if index in found else partial(decoded, index, next(others))
            for index in indices
        ]


def _kept_of(pictures: Pictures) -> KeptPixels | None:
    """What is kept of a set; None: nothing is. Processes that are not forked know of none."""
    return next((kept for known, kept in _kept if known is pictures), None)
