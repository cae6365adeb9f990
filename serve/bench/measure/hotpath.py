"""Owns what is said of the server's own costs: loads that the network takes no time for, and times beside bare ones.

`benchmarks/hotpath.py` measures them; the client is `pump.py`'s.
"""

from __future__ import annotations

from dataclasses import dataclass
from statistics import median
from typing import Annotated

from serve.bench.measure.pump import PumpRow
from zoo.machine import processor_name, usable_processors
from zoo.results import Result, Subject, Summary, measured_on
from zoo.rows import NotNegative, Positive, Row, Some, Text


@dataclass(frozen=True, kw_only=True)
class BesideRow(Row):
    """The same work by the server and bare, ms each, in turns of the same length."""

    name: Text
    bare: Summary
    served: Summary

    @property
    def overhead_ms(self) -> float:
        """What the server adds to the middle one."""
        return self.served.p50_ms - self.bare.p50_ms

    @property
    def times_as_fast(self) -> float:
        """The bare time over the server's."""
        return self.bare.p50_ms / self.served.p50_ms


@dataclass(frozen=True, kw_only=True)
class ShareRow(Row):
    """Pictures a second by the server and bare, turn by turn."""

    name: Text
    bare_per_s: Annotated[tuple[Positive, ...], Some()]
    served_per_s: Annotated[tuple[Positive, ...], Some()]

    @property
    def share(self) -> float:
        """The server's rate as a share of the bare one: the median over the turns."""
        return median(served / bare for served, bare in zip(self.served_per_s, self.bare_per_s, strict=True))


@dataclass(frozen=True, kw_only=True)
class HotpathData(Row):
    """`loads` are of a network that only sleeps; `idle_cpu_share` is what a server without clients takes of a core."""

    loads: Annotated[tuple[PumpRow, ...], Some()]
    beside: tuple[BesideRow, ...] = ()
    shares: tuple[ShareRow, ...] = ()
    idle_cpu_share: NotNegative | None = None


def hotpath_result(data: HotpathData, name: str, *, duration_s: float, turns: int) -> Result:
    """What is kept of a run: loads of `duration_s`, and so many turns of what has a bare time beside it."""
    return Result(
        kind="hotpath",
        name=name,
        environment=measured_on(processor_name()),
        settings={
            "subjects": [Subject(name="zoo serve").to_dict()],
            "duration_s": duration_s,
            "turns": turns,
            "cores": usable_processors(),
            "client": "one process on the same cores, HTTP/1.1 and HTTP/2 with kept connections",
        },
        data=data.to_dict(),
    )
