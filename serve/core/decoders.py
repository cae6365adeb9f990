"""Owns the threads that decode: a lane for usual pictures, one for large ones, and a budget of pixels; queues nothing.

A large picture takes a hundred times the work and the memory of a usual one, so a few of them would keep everybody
waiting. They have one thread of their own: one is in memory at a time, and the others wait as bytes. Which lane a
picture belongs to is in its header.
"""

from __future__ import annotations

import os
import sys
import threading
import time
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from export.contract import Contract
from export.interface import as_input
from serve.core.failures import QueueFullError, free_calls
from serve.core.pace import RunningMean
from serve.core.waiting import Taken
from zoo.data.decode import MAX_PIXELS, GivenUpError, TooManyPixelsError, open_picture
from zoo.data.preprocess import prepare
from zoo.data.turbo import TurboJpeg, makes_the_same_pixels
from zoo.errors import ZooError
from zoo.model.spec import Preprocessing

if TYPE_CHECKING:
    from zoo.data.quick import QuickPreparer

# 2,300 × 1,725: a screen's worth. Above that decoding takes longer than most inferences.
LARGE_PIXELS = 4_000_000
# Pixels of large pictures that may wait or be decoded: four of the largest, two to four seconds of work on a processor.
LARGE_BUDGET = 4 * MAX_PIXELS
# Linux gives a thread of this niceness a seventh of what others get where there is not enough for all.
LARGE_NICENESS = 9

Pictures = Literal["exact", "quick"]
Then = Callable[[Taken, float, Future[Any]], None]
"""Called from a decoding thread with the artifact's input, the seconds since the picture was handed in, its future.

It holds no future itself: an error holds the functions it came through, and the future the error.
"""


@dataclass(frozen=True, kw_only=True, slots=True)
class Job:
    """A picture to decode for an artifact, and who hears of it."""

    body: bytes
    contract: Contract
    future: Future[Any]
    then: Then
    began_s: float


class Preparer:
    """Makes inputs of pictures, one after another, in memory that it keeps. Not for several threads.

    `pictures`: "exact" makes the pixels that `zoo predict` makes, "quick" almost those (`zoo.data.quick`).
    """

    def __init__(self, pictures: Pictures) -> None:
        self._jpegs = TurboJpeg()
        self._quick = _new_quick() if pictures == "quick" else None

    def prepare(
        self, body: bytes, preprocessing: Preprocessing, *, max_pixels: int, is_given_up: Callable[[], bool]
    ) -> NDArray[np.uint8]:
        """(S, S, C) uint8.

        Raises:
            BrokenPictureError, TooManyPixelsError, GivenUpError: as `zoo.data.decode.open_picture`.
        """
        if self._quick is not None:
            made = self._quick.prepare(body, preprocessing, max_pixels=max_pixels)
            if made is not None:
                return made
        opened: Image.Image | None = None
        if max_pixels == LARGE_PIXELS:  # a large one may have to be given up half decoded
            opened = self._jpegs.open(body, channels=preprocessing.channels, max_pixels=max_pixels)
        if opened is None:
            opened = open_picture(
                body, sent=True, channels=preprocessing.channels, max_pixels=max_pixels, is_given_up=is_given_up
            )
        return prepare(opened, preprocessing)


class Decoders:
    """Turns bytes into inputs in threads of its own. `threads` decode usual pictures, one more decodes large ones.

    `pictures` is how they are prepared, as in `Preparer`.
    """

    def __init__(self, threads: int, pictures: Pictures = "exact") -> None:
        self.threads = threads
        self.pictures = pictures
        self._own = threading.local()
        makes_the_same_pixels()  # not in the first request's time
        if pictures == "quick":
            _new_quick()  # PyTorch takes seconds to import: not in the first request's time
        self._usual = ThreadPoolExecutor(threads, thread_name_prefix="decode")
        self._large = ThreadPoolExecutor(1, thread_name_prefix="decode-large", initializer=_be_nice)
        self._lock = threading.Lock()
        self._large_pixels = 0
        self._took_s = RunningMean()

    @property
    def large_pixels(self) -> int:
        """Pixels of the large pictures that wait or are being decoded."""
        return self._large_pixels

    def expected_wait_s(self, pictures: int) -> float:
        """Seconds until so many pictures are decoded, at the present pace of usual ones."""
        return pictures * self._took_s.value / self.threads

    def submit(self, body: bytes, contract: Contract, future: Future[Any], then: Then) -> None:
        """Decode and prepare a picture, then hand it on.

        `future` fails with what goes wrong, also in `then`: BrokenPictureError, QueueFullError where the budget of
        large pictures is spent. When it is cancelled, the picture is given up, even half decoded.
        """
        job = Job(body=body, contract=contract, future=future, then=then, began_s=time.monotonic())
        self._usual.submit(_guarded, future, self._decode_usual, job)

    def _decode_usual(self, job: Job) -> None:
        try:
            self._decode(job, LARGE_PIXELS)
        except TooManyPixelsError as error:
            if error.pixels > MAX_PIXELS:
                raise
            self._reserve(error.pixels)
            self._large.submit(_guarded, job.future, self._decode_large, job, error.pixels)

    def _decode_large(self, job: Job, pixels: int) -> None:
        try:
            self._decode(job, MAX_PIXELS)
        finally:
            self._release(pixels)

    def _decode(self, job: Job, max_pixels: int) -> None:
        if job.future.cancelled():
            return
        decoding_s = time.monotonic()
        if not hasattr(self._own, "preparer"):
            self._own.preparer = Preparer(self.pictures)
        preparer: Preparer = self._own.preparer
        pixels = preparer.prepare(
            job.body, job.contract.preprocessing, max_pixels=max_pixels, is_given_up=job.future.cancelled
        )
        prepared: Taken = as_input(pixels[None], job.contract)[0]
        now_s = time.monotonic()
        if max_pixels == LARGE_PIXELS:
            self._took_s.note(now_s - decoding_s)
        job.then(prepared, now_s - job.began_s, job.future)

    def shutdown(self) -> None:
        """Take nothing more; what is being decoded is not waited for."""
        self._usual.shutdown(wait=False, cancel_futures=True)
        self._large.shutdown(wait=False, cancel_futures=True)

    def _reserve(self, pixels: int) -> None:
        with self._lock:
            if self._large_pixels + pixels > LARGE_BUDGET:
                raise QueueFullError(
                    f"Large pictures of {self._large_pixels / 1e6:.0f} megapixels wait, and {pixels / 1e6:.0f} are "
                    "too many more.",
                    "Scale the picture down, or send it again after Retry-After seconds.",
                )
            self._large_pixels += pixels

    def _release(self, pixels: int) -> None:
        with self._lock:
            self._large_pixels -= pixels


def _guarded(future: Future[Any], work: Callable[..., None], *arguments: Any) -> None:
    """Do it, and let `future` have what goes wrong."""
    try:
        work(*arguments)
    except GivenUpError:
        return
    except Exception as error:  # noqa: BLE001 - the request gets it, whatever it is
        if isinstance(error, MemoryError):
            error = QueueFullError("There is no memory for this picture now.", "Scale it down, or send it again later.")
        if isinstance(error, ZooError):  # the client's, and its message says all
            free_calls(error, keep_lines=False)
        if future.set_running_or_notify_cancel():
            future.set_exception(error)


def _new_quick() -> QuickPreparer:
    """A preparer for this thread, in which PyTorch starts no threads of its own."""
    import torch

    from zoo.data.quick import QuickPreparer

    torch.set_num_threads(1)
    return QuickPreparer()


def _be_nice() -> None:
    """Let usual pictures and the engine go first, where threads have a niceness of their own: on Linux."""
    if sys.platform == "linux":
        os.setpriority(os.PRIO_PROCESS, threading.get_native_id(), LARGE_NICENESS)
