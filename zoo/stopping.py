"""Owns how a command is stopped from outside: Ctrl-C, SIGTERM and SIGHUP unwind it, so that nothing half made is left.

By themselves SIGTERM and SIGHUP end a process where it stands: hidden folders and temporary files stay. A training run,
which saves its state first, and a server, which answers what it has taken, bring handlers of their own.
"""

from __future__ import annotations

import _thread
import os
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType

# SIGHUP, which a terminal sends when it is closed, is a signal of Unix.
STOPPING = tuple(getattr(signal, name) for name in ("SIGINT", "SIGTERM", "SIGHUP") if hasattr(signal, name))
# A terminal sends Ctrl-C to all of a group, and torchrun, make and npx send it on: what comes again so soon is the same
# press of the keys, seconds.
SAME_PRESS_S = 0.3
# When a signal comes again that fell into a callback nothing can be raised from: such a callback takes microseconds.
AGAIN_S = 0.01


class Stopped(KeyboardInterrupt):
    """A signal stopped the command; everything that must happen after Ctrl-C happens after the others as well."""

    def __init__(self, number: int) -> None:
        super().__init__(signal.Signals(number).name)
        self.number = number

    @property
    def exit_code(self) -> int:
        """What a shell says of a process that a signal ended: 130 after Ctrl-C, 143 after SIGTERM, 129 after SIGHUP."""
        return 128 + self.number


@contextmanager
def stop_signals() -> Iterator[None]:
    """Let signals raise `Stopped` in the main thread while the block runs; elsewhere nothing is installed.

    A signal that is ignored already, as under `nohup`, stays ignored. Of several signals the first one counts: Slurm
    sends some twice, and the second must not interrupt the tidying up; a second press of Ctrl-C may. Where the
    interpreter has to drop what is raised, in a callback of the garbage collection, the signal comes again a little
    later.

    Raises:
        Stopped: a signal came, whatever the error was that ended the block after it. torch's exporter and click turn
            what is raised inside them into errors of their own.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    came: list[tuple[int, float]] = []
    owner = os.getpid()

    def stop(number: int, frame: FrameType | None) -> None:
        if os.getpid() != owner:  # a process forked in the block, which tidies nothing up
            signal.signal(number, signal.SIG_DFL)
            os.kill(os.getpid(), number)
            return
        came.append((number, time.monotonic()))
        if len(came) == 1 or (number == signal.SIGINT and is_another_press(*(when for _, when in came[-2:]))):
            raise Stopped(came[0][0])

    usual = (signal.SIG_DFL, signal.default_int_handler)
    before = {number: handler for number in STOPPING if (handler := signal.getsignal(number)) in usual}
    for number in before:
        signal.signal(number, stop)
    try:
        with _again_where_dropped(came):
            yield
    except BaseException as error:
        if came and not isinstance(error, Stopped):
            raise Stopped(came[0][0]) from error
        raise
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


@contextmanager
def hold_signals() -> Iterator[Callable[[], bool]]:
    """Hold signals back while the block runs code of others that calls back and cannot be left by an exception.

    Yields:
        whether one came: then the block shall end soon. What it means, such as `Stopped`, is raised after the block.
    """
    came: list[int] = []
    if threading.current_thread() is not threading.main_thread():
        yield lambda: False
        return
    ignored = (signal.SIG_IGN, None)
    before = {number: handler for number in STOPPING if (handler := signal.getsignal(number)) not in ignored}
    for number in before:
        signal.signal(number, lambda number, frame: came.append(number))
    try:
        yield lambda: bool(came)
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
        if came:
            signal.raise_signal(came[0])


def is_another_press(last: float, now: float) -> bool:
    """Whether a Ctrl-C that comes `now` is another one than the signal at `last`, on `time.monotonic`'s clock."""
    return now - last >= SAME_PRESS_S


@contextmanager
def _again_where_dropped(came: list[tuple[int, float]]) -> Iterator[None]:
    """Send a signal again whose `Stopped` was dropped; it counts as not having come."""
    before = sys.unraisablehook

    def dropped(raised: sys.UnraisableHookArgs) -> None:
        if not isinstance(raised.exc_value, Stopped):
            before(raised)
            return
        came.clear()
        later = threading.Timer(AGAIN_S, _thread.interrupt_main, (raised.exc_value.number,))
        later.daemon = True
        later.start()

    sys.unraisablehook = dropped
    try:
        yield
    finally:
        sys.unraisablehook = before
