"""A machine whose time passes only when somebody says so: for tests of whatever is measured."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from itertools import chain, repeat

import numpy as np

from zoo.measure.vitals import Vitals

MS = 1_000_000
QUIET = Vitals(cpu_share=1.0, waited_share=0.0, stolen_share=0.0, switches=0, load=0.1, clock_mhz=3000.0)
BUSY = Vitals(cpu_share=0.8, waited_share=0.2, stolen_share=0.0, switches=90, load=2.0, clock_mhz=3000.0)


@dataclass
class HostClock:
    """Time in nanoseconds."""

    now: int = 0

    def __call__(self) -> int:
        return self.now

    def pass_ms(self, ms: float) -> None:
        self.now += round(ms * MS)

    def call_of(self, ms: Callable[[], float]) -> Callable[[], None]:
        """A call that takes as long as `ms` says each time."""
        return lambda: self.pass_ms(ms())


@dataclass
class Pace:
    """How slow a simulated machine is just now: a slow wave, noise of every call, and a spike in one call of a hundred.

    The wave is what a shared machine's pace does within minutes; calls that take turns share it.
    """

    clock: HostClock
    seed: int
    noise: float = 0.03
    drift: float = 0.1
    period_s: float = 7.0
    rng: np.random.Generator = field(init=False)

    def __post_init__(self) -> None:
        self.rng = np.random.default_rng(self.seed)
        self.phase = float(self.rng.uniform(0, 2 * np.pi))

    def time_of(self, ms: float) -> Callable[[], float]:
        """How long something that takes `ms` takes now."""

        def now() -> float:
            wave = 1 + self.drift * np.sin(self.clock.now / 1e9 / self.period_s * 2 * np.pi + self.phase)
            spike = 3.0 if self.rng.random() < 0.01 else 1.0
            return float(ms * wave * spike * np.exp(self.rng.normal(0, self.noise)))

        return now


class FakeWatch:
    """Tells what it was given, visit by visit, then that all is quiet."""

    def __init__(self, *vitals: Vitals, then: Vitals = QUIET) -> None:
        self._vitals: Iterator[Vitals] = chain(vitals, repeat(then))

    def begin(self) -> None:
        """Nothing to look at."""

    def end(self) -> Vitals:
        """The next of what it was given."""
        return next(self._vitals)
