"""Owns the parts of one call on a GPU: to the device, computing, back; whoever offers them waits between the parts.

It is measured apart from latency: a call that waits in between is slower than one that does not.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Protocol, cast

import numpy as np
from numpy.typing import NDArray

from export.runners.runner import Runner
from zoo.rows import NotNegative, Row


@dataclass(frozen=True, kw_only=True)
class Parts(Row):
    """Milliseconds of each part of a call, by the host's clock; the device was waited for after each."""

    host_to_device_ms: NotNegative
    compute_ms: NotNegative
    device_to_host_ms: NotNegative


class RunsApart(Protocol):
    """A runner that can tell the parts of a call."""

    def infer_apart(self, pictures: NDArray[np.uint8]) -> tuple[NDArray[np.float32], Parts]:
        """The answers of `Runner.infer`, and how long each part of the call took."""
        ...


@dataclass
class Laps:
    """The moments at which parts end; `lap` is called when the device has been waited for."""

    clock: Callable[[], int] = time.perf_counter_ns
    moments: list[int] = field(default_factory=list)

    def lap(self) -> None:
        """A part ends now; the first call is the beginning."""
        self.moments.append(self.clock())

    def parts(self) -> Parts:
        """The three parts between the four moments."""
        start, on_device, computed, end = self.moments
        return Parts(
            host_to_device_ms=(on_device - start) / 1e6,
            compute_ms=(computed - on_device) / 1e6,
            device_to_host_ms=(end - computed) / 1e6,
        )


def runs_apart(runner: Runner) -> RunsApart | None:
    """The runner, if it can tell the parts of a call; None where it cannot."""
    return cast(RunsApart, runner) if hasattr(runner, "infer_apart") else None
