"""Owns how a run is asked to stop: SIGTERM and Ctrl-C become a wish that the loop grants between two steps.

Where the loop waits for pictures, which a server may keep back for minutes, the wish ends the wait. It writes no state.
"""

from __future__ import annotations

import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from types import FrameType
from typing import TypeVar

T = TypeVar("T")
SIGNALS = (signal.SIGTERM, signal.SIGINT)


class RunStopped(BaseException):
    """A run was asked to stop and wrote its state: like KeyboardInterrupt not an error. `wish` is the signal.

    `own` is False where not this process got it but another one of the same run.
    """

    def __init__(self, wish: int, where: str, *, own: bool = True) -> None:
        super().__init__(where)
        self.wish = wish
        self.where = where
        self.own = own

    @property
    def exit_code(self) -> int:
        """0 after SIGTERM, which schedulers send and take a 0 for a stop in order; 130 after Ctrl-C, as shells do.

        1 where the signal went to another process: a 0 would tell torchrun on a node that stays that all is done.
        """
        if not self.own:
            return 1
        return 0 if self.wish == signal.SIGTERM else 130


class RunFinished(Exception):
    """The run to go on with, if need be, is finished: nothing is left to do."""


class Interrupted(BaseException):
    """A wait was ended by a wish to stop, `wish` being the signal: like KeyboardInterrupt not an error."""

    def __init__(self, wish: int) -> None:
        super().__init__(wish)
        self.wish = wish


@dataclass
class StopRequest:
    """The signal that came, if one did, and whether one that comes now ends what is being done."""

    wish: int | None = None
    ends_wait: bool = False

    def wait_for(self, get: Callable[[], T]) -> T:
        """`get()`, which must leave nothing half done wherever it is ended.

        Raises:
            Interrupted: a wish is there, or comes.
        """
        self.ends_wait = True
        try:
            if self.wish is None:
                return get()
        except Interrupted:
            pass  # what the wait held, such as decoding processes, is let go with its traceback
        finally:
            self.ends_wait = False
        assert self.wish is not None
        raise Interrupted(self.wish)


@contextmanager
def stop_requests() -> Iterator[StopRequest]:
    """Turn SIGTERM and Ctrl-C into a wish; a second Ctrl-C ends the process as it always did.

    A second SIGTERM is the same wish: Slurm sends one to every process of a job, and torchrun passes on its own.

    Only the main thread can receive signals; elsewhere nothing is installed.
    """
    request = StopRequest()
    if threading.current_thread() is not threading.main_thread():
        yield request
        return
    before = {number: signal.getsignal(number) for number in SIGNALS}

    def take(number: int, frame: FrameType | None) -> None:
        is_first = request.wish is None  # a later one would end the writing of the state
        request.wish = request.wish or number
        signal.signal(signal.SIGINT, before[signal.SIGINT])
        if is_first and request.ends_wait:
            raise Interrupted(number)

    for number in SIGNALS:
        signal.signal(number, take)
    try:
        yield request
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


@contextmanager
def signals_held() -> Iterator[None]:
    """Deliver what asks to stop only at the end of the block, and never to a process that is forked in it.

    A mask holds the signals of one thread: of this one, and of a process forked here, which has no other. Those that
    PyTorch's threads take for the process are remembered. Only the main thread can do that; elsewhere nothing is held.
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
    """Ignore in a decoding process what asks the run to stop: it needs the process until the step is done.

    A terminal's Ctrl-C, torchrun and Slurm send theirs to whole groups of processes.
    """
    for number in SIGNALS:
        signal.signal(number, signal.SIG_IGN)
