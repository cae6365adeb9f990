"""Owns who may train: one run a folder, which holds the lock beside it, and one a process; it writes no result."""

from __future__ import annotations

import json
import os
import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from filelock import FileLock, Timeout

from zoo.errors import ZooError
from zoo.files import write_json

# Held by the run of this process.
_training = threading.Lock()


@contextmanager
def only_run_of_process() -> Iterator[None]:
    """Train one network at a time in a process: dropout draws from torch's generator, of which a process has one.

    Raises:
        ZooError: another thread is training.
    """
    if not _training.acquire(blocking=False):
        raise ZooError(
            "Another thread of this process is training, and both would draw from one generator of random numbers: "
            "neither run could be repeated or resumed.",
            "Train one after the other, or each in a process of its own.",
        )
    try:
        yield
    finally:
        _training.release()


@contextmanager
def locked(folder: Path) -> Iterator[None]:
    """Hold a run folder while the block runs.

    The lock is the operating system's, so that it ends with its process, however that ends; it lies beside the folder,
    which may be moved aside. A second file beside it says whose it is.

    Raises:
        ZooError: another run holds it; says which process on which machine.
    """
    folder = folder if folder.name else folder.resolve()
    made = not folder.parent.exists()
    folder.parent.mkdir(parents=True, exist_ok=True)
    lock, owner = (folder.with_name(f".{folder.name}.{suffix}") for suffix in ("lock", "owner.json"))
    held = FileLock(lock)
    try:
        held.acquire(timeout=0)
    except Timeout as error:
        raise ZooError(
            f"Another run is writing to {folder}{_whose(owner)}.",
            "Wait for it, or choose another folder with --out.",
        ) from error
    except (OSError, NotImplementedError):  # a file system that has no locks
        yield
        return
    try:
        write_json(owner, {"process": os.getpid(), "host": socket.gethostname()})
        yield
    finally:
        owner.unlink(missing_ok=True)
        lock.unlink(missing_ok=True)
        held.release()
        if made and not any(folder.parent.iterdir()):
            folder.parent.rmdir()


def _whose(owner: Path) -> str:
    try:
        said = json.loads(owner.read_text())
        return f": process {int(said['process'])} on {said['host']}"
    except (OSError, ValueError, LookupError, TypeError):
        return ""
