"""Owns what the machine did to this process while something was timed: the processor it got, and what took it away.

It times nothing. Where a system does not tell a figure, it is None and nothing is guessed from it.
"""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from zoo.rows import CountOrNone, NotNegative, Row
from zoo.wording import percent

# A visit that lost more of its time than this lost what a verdict turns on: `serve.bench.measure.ratio.EVEN_WITHIN`.
ROBBED_ABOVE = 0.02
# Without a scheduler that counts waiting: processor time over wall time this far below the best visit's is a loss too.
LESS_PROCESSOR = 0.95
# The kernel counts what a hypervisor took in such steps (USER_HZ, 10 ms), so one step of a short visit says nothing.
STOLEN_STEPS = 2
# Of more processors than this the clock is not read: each reading interrupts one.
CLOCKS_READ = 8
# Threads of a pool look for work long after their last: those of ONNX Runtime for some 30 ms. What is timed next would
# share the processors with them. At rest is who uses less than half of a pause, which is longer than the kernel's tick:
# a thread's time is counted with it. Nobody is waited for longer than the second.
PAUSE_S, LONGEST_REST_S = 0.01, 0.25


@dataclass(frozen=True, kw_only=True)
class Vitals(Row):
    """What happened during one visit; shares are of its wall time.

    `cpu_share` is the process's time on processors, of all threads: 2.0 is two threads at work throughout.
    `waited_share` is what its threads waited for a processor although they were ready (Linux, schedstat), all threads
    added up; `stolen_share` what a hypervisor took from the processors it may use (Linux, /proc/stat).
    `switches` are involuntary context switches, `load` the load average of the last minute, `clock_mhz` the mean clock
    of those processors when the visit ended: both are told and not judged.
    """

    cpu_share: NotNegative
    waited_share: NotNegative | None = None
    stolen_share: NotNegative | None = None
    switches: CountOrNone | None = None
    load: NotNegative | None = None
    clock_mhz: NotNegative | None = None

    @property
    def lost_share(self) -> float:
        """The larger of what it waited and what was stolen, as far as the system tells."""
        return max(self.waited_share or 0.0, self.stolen_share or 0.0)

    def robbed_by(self, best_cpu_share: float) -> tuple[str, ...]:
        """Why the visit was not undisturbed, in words; empty where it was.

        Args:
            best_cpu_share: the highest `cpu_share` of the same call so far; it decides where waiting is not counted.
        """
        reasons = []
        if self.waited_share is not None and self.waited_share > ROBBED_ABOVE:
            reasons.append(f"waited for a processor for {percent(self.waited_share)} of the time")
        if self.stolen_share is not None and self.stolen_share > ROBBED_ABOVE:
            reasons.append(f"lost {percent(self.stolen_share)} of the time to the hypervisor")
        if self.waited_share is None and self.cpu_share < LESS_PROCESSOR * best_cpu_share:
            reasons.append(f"had {percent(self.cpu_share / best_cpu_share)} of the processor time of its best visit")
        return tuple(reasons)


@dataclass(frozen=True)
class Counters:
    """What a system counts, at one moment; nanoseconds, but for switches and steps."""

    wall_ns: int
    cpu_ns: int
    waited_ns: Mapping[str, int] | None  # by thread
    stolen_steps: int | None
    switches: int | None


def read_counters(root: Path = Path("/proc")) -> Counters:
    """Read every counter now; takes a fraction of a millisecond."""
    return Counters(
        wall_ns=time.perf_counter_ns(),
        cpu_ns=time.process_time_ns(),
        waited_ns=_waited(root),
        stolen_steps=_stolen(root),
        switches=_switches(),
    )


def vitals_between(before: Counters, after: Counters, *, root: Path = Path("/")) -> Vitals:
    """What happened between two readings, with the load and the clock as they are now."""
    wall_ns = max(after.wall_ns - before.wall_ns, 1)
    waited = stolen = switches = None
    if before.waited_ns is not None and after.waited_ns is not None:
        ends = ((before.waited_ns.get(thread, 0), total) for thread, total in after.waited_ns.items())
        waited = sum(total - start for start, total in ends) / wall_ns
    if before.stolen_steps is not None and after.stolen_steps is not None:
        steps = after.stolen_steps - before.stolen_steps
        stolen = steps * 1e9 / _steps_per_second() / wall_ns if steps >= STOLEN_STEPS else 0.0
    if before.switches is not None and after.switches is not None:
        switches = after.switches - before.switches
    return Vitals(
        cpu_share=(after.cpu_ns - before.cpu_ns) / wall_ns,
        waited_share=waited,
        stolen_share=stolen,
        switches=switches,
        load=os.getloadavg()[0] if hasattr(os, "getloadavg") else None,
        clock_mhz=read_clock_mhz(root),
    )


class Watch:
    """Reads the counters when it begins and when it ends; tests put a fake in its place."""

    def begin(self) -> None:
        """A visit begins, once what was visited before is at rest."""
        wait_for_rest()
        self._before = read_counters()

    def end(self) -> Vitals:
        """What happened since `begin`."""
        return vitals_between(self._before, read_counters())


def wait_for_rest(cpu_s: Callable[[], float] = time.process_time, sleep: Callable[[float], None] = time.sleep) -> None:
    """Wait until no thread of this process computes, `LONGEST_REST_S` at most.

    Args:
        cpu_s: the processor time of the process so far, seconds.
        sleep: passes so many seconds.
    """
    for _ in range(round(LONGEST_REST_S / PAUSE_S)):
        before = cpu_s()
        sleep(PAUSE_S)
        if cpu_s() - before < PAUSE_S / 2:
            return


def usable_processor_numbers() -> tuple[int, ...]:
    """The numbers of the processors this process is bound to; all where the system has no such thing."""
    if hasattr(os, "sched_getaffinity"):
        return tuple(sorted(os.sched_getaffinity(0)))
    return tuple(range(os.cpu_count() or 1))


def count_threads(root: Path = Path("/proc")) -> int:
    """The threads this process has, those of native libraries too where the system tells."""
    try:
        return len(list((root / "self/task").iterdir()))
    except OSError:
        return threading.active_count()


def read_clock_mhz(root: Path = Path("/")) -> float | None:
    """The mean clock of the first processors this process may use, MHz; None where the system does not tell it.

    A virtual machine often shows the nominal clock, which never changes.
    """
    processors, read = usable_processor_numbers()[:CLOCKS_READ], []
    for processor in processors:
        with suppress(OSError, ValueError):
            file = root / f"sys/devices/system/cpu/cpu{processor}/cpufreq/scaling_cur_freq"
            read.append(int(file.read_text()) / 1000)
    if not read:
        with suppress(OSError, ValueError):
            lines = (root / "proc/cpuinfo").read_text().splitlines()
            clocks = [float(line.partition(":")[2]) for line in lines if line.startswith("cpu MHz")]
            read = [clocks[processor] for processor in processors if processor < len(clocks)]
    return sum(read) / len(read) if read else None


def _waited(root: Path) -> dict[str, int] | None:
    """Nanoseconds every thread of this process waited while it was ready: the second number of schedstat."""
    waited = {}
    try:
        threads = list((root / "self/task").iterdir())
    except OSError:
        return None
    for thread in threads:
        with suppress(OSError, ValueError, IndexError):  # a thread may end while it is read
            waited[thread.name] = int((thread / "schedstat").read_text().split()[1])
    return waited or None


def _stolen(root: Path) -> int | None:
    """Steps that a hypervisor took from the processors this process may use: the eighth number of their lines."""
    try:
        lines = dict(line.split(None, 1) for line in (root / "stat").read_text().splitlines())
        return sum(int(lines[f"cpu{processor}"].split()[7]) for processor in usable_processor_numbers())
    except (OSError, KeyError, IndexError, ValueError):
        return None


def _steps_per_second() -> int:
    return os.sysconf("SC_CLK_TCK")


def _switches() -> int | None:
    try:
        import resource
    except ImportError:  # Windows
        return None
    return resource.getrusage(resource.RUSAGE_SELF).ru_nivcsw
