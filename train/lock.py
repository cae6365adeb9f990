"""Owns who may write to a run folder: one run at a time, which holds the lock beside it; it writes no result."""

from __future__ import annotations

import json
import os
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from filelock import FileLock, Timeout

from zoo.errors import ZooError
from zoo.files import write_json


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
