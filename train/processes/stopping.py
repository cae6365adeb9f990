"""Owns how a run is asked to stop: SIGTERM and Ctrl-C become a wish, which the loop grants between two steps.

While the loop waits for pictures, which may take minutes where a server is away, a wish ends the wait. This file saves
no state.
"""

from __future__ import annotations

import signal
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from types import FrameType
from typing import TypeVar

from zoo.stopping import SAME_PRESS_S, is_another_press

T = TypeVar("T")
SIGNALS = (signal.SIGTERM, signal.SIGINT)


class RunStopped(BaseException):
    """A run was asked to stop and saved its state; like KeyboardInterrupt it is no error. `wish` is the signal.

    `own` is False if another process of the same run received the signal.
    """

    def __init__(self, wish: int, where: str, *, own: bool = True) -> None:
        super().__init__(where)
        self.wish = wish
        self.where = where
        self.own = own

    @property
    def exit_code(self) -> int:
        """0 after SIGTERM, as schedulers expect of a job that stopped in order; 130 after Ctrl-C, as in shells.

        1 if another process received the signal: 0 would tell the torchrun of this node that the run is finished.
        """
        if not self.own:
            return 1
        return 0 if self.wish == signal.SIGTERM else 130


class RunFinished(Exception):
    """The run that was to be resumed is finished: nothing is left to do."""


class Interrupted(BaseException):
    """A wish to stop ended a wait; like KeyboardInterrupt it is no error. `wish` is the signal."""

    def __init__(self, wish: int) -> None:
        super().__init__(wish)
        self.wish = wish


@dataclass
class StopRequest:
    """The signal that was received, or None, and whether a signal ends what is being done now."""

    wish: int | None = None
    ends_wait: bool = False

    def wait_for(self, get: Callable[[], T]) -> T:
        """Call `get`, which a wish may end anywhere, so it must leave nothing half done.

        Raises:
            Interrupted: there was a wish, or one came.
        """
        self.ends_wait = True
        try:
            if self.wish is None:
                return get()
        except Interrupted:
            pass  # its traceback is dropped here, and with it what the wait held, such as decoding processes
        finally:
            self.ends_wait = False
        assert self.wish is not None
        raise Interrupted(self.wish)


@contextmanager
def stop_requests() -> Iterator[StopRequest]:
    """Turn SIGTERM and Ctrl-C into a wish; a second Ctrl-C ends the process as usual, unless it is the same press.

    A second SIGTERM changes nothing: Slurm sends one to every process of a job, and torchrun forwards its own as well.

    Only the main thread can receive signals; in other threads nothing is installed.
    """
    request = StopRequest()
    if threading.current_thread() is not threading.main_thread():
        yield request
        return
    before = {number: signal.getsignal(number) for number in SIGNALS}
    last = 0.0

    def take(number: int, frame: FrameType | None) -> None:
        nonlocal last
        is_first, previous, last = request.wish is None, last, time.monotonic()
        request.wish = request.wish or number  # a later signal must not interrupt the saving of the state
        if is_first and request.ends_wait:
            raise Interrupted(number)
        if not is_first and number == signal.SIGINT and is_another_press(previous, last):
            signal.signal(number, before[signal.SIGINT])
            signal.raise_signal(number)

    for number in SIGNALS:
        signal.signal(number, take)
    try:
        yield request
    finally:
        if request.wish is not None:  # what comes again would meet handlers that know of no wish
            time.sleep(max(0.0, last + SAME_PRESS_S - time.monotonic()))
        for number, handler in before.items():
            signal.signal(number, handler)


@contextmanager
def signals_held() -> Iterator[None]:
    """Deliver SIGTERM and Ctrl-C only at the end of the block, and never to a process that is forked in it.

    A mask blocks them in this thread, and in the only thread of a process forked here. PyTorch's threads may still
    receive them for the process; those are remembered. Only the main thread can do that; in others nothing is held.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    came: dict[signal.Signals, None] = {}

    def remember(number: int, frame: FrameType | None) -> None:
        came[signal.Signals(number)] = None

    before = {number: signal.signal(number, remember) for number in SIGNALS}
    maskable = hasattr(signal, "pthread_sigmask")  # not on Windows, which does not fork either
    mask = signal.pthread_sigmask(signal.SIG_BLOCK, SIGNALS) if maskable else set()
    try:
        yield
    finally:
        if maskable:
            signal.pthread_sigmask(signal.SIG_SETMASK, mask)
        for number, handler in before.items():
            signal.signal(number, handler)
        for held in came:
            handler = before[held]
            if callable(handler):
                handler(held, None)
            else:
                signal.raise_signal(held)


def leave_signals_to_the_run(worker: int) -> None:
    """Ignore SIGTERM and Ctrl-C in a decoding process, which the run needs until the step is done.

    Terminals, torchrun and Slurm send signals to whole groups of processes.
    """
    for number in SIGNALS:
        signal.signal(number, signal.SIG_IGN)
