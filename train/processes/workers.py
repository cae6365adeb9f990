"""Owns what becomes of decoding processes that the system ends or does not start; what they decode is the loader's."""

from __future__ import annotations

import errno
import multiprocessing
import signal
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from multiprocessing.connection import wait
from multiprocessing.process import BaseProcess

from zoo.errors import WorkerError

# Its last batch may be read a moment before a process that was killed is gone.
GONE_WITHIN_S = 1.0
# Processes that were asked to end, and have not within this time, are stopped, or wait for a disk that is away.
ENDED_WITHIN_S = 3.0
# What a process died of, by its signal: the probable cause, and what helps.
CAUSES = {
    "SIGKILL": ("most likely the system ran out of memory", "Take fewer --workers or a smaller --batch-size."),
    "SIGBUS": (
        "most likely /dev/shm, through which batches are handed over, is full",
        "Give it more room (docker run --shm-size 8g), or take fewer --workers.",
    ),
}
# Runs of several threads start their processes one after the other: each knows its own by what is new.
_one_at_a_time = threading.Lock()
UNKNOWN_CAUSE = ("its own words, if any, stand above", "Try --workers 0, where such an error shows itself.")


@dataclass
class Workers:
    """The decoding processes of one loader."""

    processes: Sequence[BaseProcess] = ()

    def explain(self, error: Exception) -> WorkerError | None:
        """What an error of a wait for batches means; None if the processes and the system are not its reason."""
        number = error.errno if isinstance(error, OSError) else None
        if number in (errno.EMFILE, errno.ENFILE) or "Too many open files" in str(error):
            return WorkerError(
                "The decoding processes have no open files left.",
                "Raise the limit (ulimit -n 65536), or take fewer --workers.",
            )
        if "unable to allocate shared memory" in str(error):  # PyTorch's words; without fallocate it would be SIGBUS
            return WorkerError(
                "The decoding processes cannot hand their batches over: /dev/shm is full.",
                CAUSES["SIGBUS"][1],
            )
        lost = self._lost()
        if lost is None:
            return None
        return _died(lost)

    def close(self) -> None:
        """Wait for the processes, which were asked to end, and kill those that do not: Python would wait for ever."""
        until = time.monotonic() + ENDED_WITHIN_S
        for process in self.processes:
            process.join(max(0.0, until - time.monotonic()))
            if process.is_alive():
                process.kill()
                process.join(GONE_WITHIN_S)

    def _lost(self) -> BaseProcess | None:
        """A process that ended otherwise than it should."""
        ended = wait([process.sentinel for process in self.processes], timeout=GONE_WITHIN_S)
        for process in self.processes:
            if process.sentinel in ended:  # its files are closed; a moment later it has a status
                process.join(GONE_WITHIN_S)
        return next((process for process in self.processes if process.exitcode not in (None, 0)), None)


@contextmanager
def starting(workers: Workers) -> Iterator[None]:
    """Start decoding processes in the block, which puts them into `workers`.

    PyTorch's handler of SIGCHLD is left out: where a process dies it raises in whatever the main thread does, in the
    middle of a step as well, after which no state can be saved. Without it, a dead process is found where its batch is
    waited for, within five seconds.

    Raises:
        WorkerError: the system has no memory, processes or files for them.
    """
    is_main = threading.current_thread() is threading.main_thread() and hasattr(signal, "SIGCHLD")
    handler = signal.getsignal(signal.SIGCHLD) if is_main else None
    with _one_at_a_time:
        before = set(multiprocessing.active_children())
        try:
            yield
        except OSError as error:
            raise WorkerError(
                f"Decoding processes cannot be started: {error.strerror}.", "Take fewer --workers; 0 needs none."
            ) from error
        finally:
            if is_main:
                signal.signal(signal.SIGCHLD, handler)
            workers.processes = tuple(set(multiprocessing.active_children()) - before)


def out_of_memory() -> WorkerError:
    """No memory was left to decode a picture."""
    return WorkerError("There is no memory left to decode pictures.", CAUSES["SIGKILL"][1])


def _died(process: BaseProcess) -> WorkerError:
    code = process.exitcode
    name = signal.Signals(-code).name if code is not None and code < 0 else ""
    cause, remedy = CAUSES.get(name, UNKNOWN_CAUSE)
    how = f"was ended by {name}" if name else f"ended with exit code {code}"
    return WorkerError(f"A decoding process (pid {process.pid}) {how}: {cause}.", remedy)
