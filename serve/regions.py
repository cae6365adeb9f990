"""Owns shared memory that clients on the same machine register: read and written by name, part by part.

The memory is a file of /dev/shm, read by pread and written by pwrite, never mapped: a client that shrinks a mapped file
would end this process. Only files directly in that folder can be named, and no links are followed.
"""

from __future__ import annotations

import os
import re
import stat
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from serve.core.failures import ForbiddenError, ProtocolError

FOLDER = Path("/dev/shm")
NAMES = re.compile(r"[^\x00-\x1f\x7f]{1,255}")
KEYS = re.compile(r"/?([A-Za-z0-9_-][A-Za-z0-9._-]{0,254})")
# Every region keeps a file open.
MOST_REGIONS = 256


@dataclass(frozen=True, kw_only=True)
class _Region:
    key: str
    offset: int
    byte_size: int
    file: int


class Regions:
    """What is registered. Belongs to one event loop."""

    def __init__(self, *, allowed: bool = False) -> None:
        self.allowed = allowed
        self._regions: dict[str, _Region] = {}

    def register(self, name: str, key: str, offset: int, byte_size: int) -> None:
        """Open a client's shared memory under a name.

        Raises:
            ForbiddenError: the server was not started to allow it. ProtocolError: no such memory, or the name is taken.
        """
        self._check_allowed()
        found = KEYS.fullmatch(key)
        if not NAMES.fullmatch(name) or not found or min(offset, byte_size - 1) < 0:
            raise ProtocolError("That is no name, key, offset and size of shared memory.", "A key is `/NAME`.")
        if name in self._regions:
            raise ProtocolError("A region of this name is registered already.", "Unregister it first.")
        if len(self._regions) >= MOST_REGIONS:
            raise ProtocolError(f"{MOST_REGIONS} regions are registered, and no more are taken.", "Unregister some.")
        try:
            file = os.open(FOLDER / found[1], os.O_RDWR | os.O_NOFOLLOW | os.O_CLOEXEC | os.O_NONBLOCK)
        except OSError as error:
            raise _no_such_memory() from error
        about = os.fstat(file)
        if not stat.S_ISREG(about.st_mode) or about.st_size < offset + byte_size:
            os.close(file)
            raise _no_such_memory()
        self._regions[name] = _Region(key=key, offset=offset, byte_size=byte_size, file=file)

    def unregister(self, name: str = "") -> None:
        """Forget a region, or all; one that is not there is forgotten already."""
        self._check_allowed()
        for each in [name] if name else list(self._regions):
            if region := self._regions.pop(each, None):
                os.close(region.file)

    def status(self, name: str = "") -> list[dict[str, Any]]:
        """What is registered, or one of it.

        Raises:
            ProtocolError: it is not. ForbiddenError: as `register`.
        """
        self._check_allowed()
        chosen = {name: self._find(name)} if name else self._regions
        return [
            {"name": each, "key": region.key, "offset": region.offset, "byte_size": region.byte_size}
            for each, region in chosen.items()
        ]

    def read(self, name: str, offset: int, length: int) -> bytes:
        """The bytes of a part.

        Raises:
            ProtocolError: no such region, or the part is not within it. ForbiddenError: as `register`.
        """
        region = self._part(name, offset, length)
        raw = os.pread(region.file, length, region.offset + offset)
        if len(raw) != length:
            raise ProtocolError("The shared memory has become smaller.", "Register it again.")
        return raw

    def write(self, name: str, offset: int, length: int, raw: bytes) -> None:
        """Write a part, which has room for `length` bytes.

        Raises:
            ProtocolError: `raw` has more; else as `read`.
        """
        region = self._part(name, offset, length)
        if len(raw) > length:
            raise ProtocolError(f"An output has {len(raw)} bytes, and its shared memory {length}.", "Give it more.")
        if os.fstat(region.file).st_size < region.offset + offset + len(raw):
            raise ProtocolError("The shared memory has become smaller.", "Register it again.")
        os.pwrite(region.file, raw, region.offset + offset)

    def _part(self, name: str, offset: int, length: int) -> _Region:
        self._check_allowed()
        region = self._find(name)
        if offset + length > region.byte_size:
            raise ProtocolError("A tensor is not within its shared memory.", f"It has {region.byte_size} bytes.")
        return region

    def _find(self, name: str) -> _Region:
        if name not in self._regions:
            raise ProtocolError("No shared memory is registered under this name.", "Register it first.")
        return self._regions[name]

    def _check_allowed(self) -> None:
        if not self.allowed:
            raise ForbiddenError(
                "This server takes no shared memory.", "Start it with --allow-shared-memory on the clients' machine."
            )


def _no_such_memory() -> ProtocolError:
    # Nothing is said of what is there: it may be somebody else's.
    return ProtocolError("No shared memory of this key and size can be opened.", "Make it before it is registered.")
