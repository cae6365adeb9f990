"""Owns how a run is asked to stop: SIGTERM and Ctrl-C become a wish that the loop grants between two steps."""

from __future__ import annotations

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from types import FrameType


class RunStopped(BaseException):
    """A run was asked to stop and wrote its state: like KeyboardInterrupt not an error. `wish` is the signal."""

    def __init__(self, wish: int, where: str) -> None:
        super().__init__(where)
        self.wish = wish
        self.where = where

    @property
    def exit_code(self) -> int:
        """0 after SIGTERM, which schedulers send and take a 0 for a stop in order; 130 after Ctrl-C, as shells do."""
        return 0 if self.wish == signal.SIGTERM else 130


@dataclass
class StopRequest:
    """The signal that came, if one did."""

    wish: int | None = None


@contextmanager
def stop_requests() -> Iterator[StopRequest]:
    """Turn the first SIGTERM or Ctrl-C into a wish; a second one ends the process as it always did.

    Only the main thread can receive signals; elsewhere nothing is installed.
    """
    request = StopRequest()
    if threading.current_thread() is not threading.main_thread():
        yield request
        return
    signals = (signal.SIGTERM, signal.SIGINT)
    before = {number: signal.getsignal(number) for number in signals}

    def take(number: int, frame: FrameType | None) -> None:
        request.wish = number
        for known, handler in before.items():
            signal.signal(known, handler)

    for number in signals:
        signal.signal(number, take)
    try:
        yield request
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
