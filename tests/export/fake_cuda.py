"""Owns a device made of memory, at the seam `export.runners.cuda` has: what the tests run plans on."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
from numpy.typing import NDArray


class FakeCuda:
    """Device memory as arrays by address; copies happen when the stream is waited for, as on a device."""

    stream = 77

    def __init__(self) -> None:
        self.memory: dict[int, NDArray[np.uint8]] = {}
        self.queue: list[Any] = []
        self.depth = 0
        self.closed = False

    @contextmanager
    def current(self) -> Iterator[None]:
        self.depth += 1
        yield
        self.depth -= 1

    def allocate(self, num_bytes: int) -> int:
        assert self.depth
        address = 1000 * (len(self.memory) + 1)
        self.memory[address] = np.zeros(num_bytes, np.uint8)
        return address

    def allocate_pinned(self, num_bytes: int) -> NDArray[np.uint8]:
        assert self.depth
        return np.full(num_bytes, 255, np.uint8)

    def copy_to_device(self, address: int, source: NDArray[np.uint8]) -> None:
        assert self.depth and source.flags.c_contiguous
        self.queue.append(lambda: self.memory[address].__setitem__(slice(source.nbytes), source))

    def copy_to_host(self, target: NDArray[np.uint8], address: int) -> None:
        assert self.depth
        self.queue.append(lambda: target.__setitem__(slice(None), self.memory[address][: target.nbytes]))

    def synchronize(self) -> None:
        while self.queue:
            self.queue.pop(0)()

    def close(self) -> None:
        self.closed = True
