from __future__ import annotations

import os
from dataclasses import replace
from pathlib import Path

import pytest

from zoo.measure.vitals import (
    LONGEST_REST_S,
    PAUSE_S,
    Counters,
    Vitals,
    count_threads,
    read_clock_mhz,
    read_counters,
    usable_processor_numbers,
    vitals_between,
    wait_for_rest,
)

BEFORE = Counters(wall_ns=0, cpu_ns=0, waited_ns={"1": 5, "2": 0}, stolen_steps=10, switches=3)
SECOND = 1_000_000_000


def system(folder: Path, *, schedstat: bool = True) -> Path:
    """A /proc of one process with two threads."""
    for thread, waited in (("7", 1000), ("8", 2000)):
        (folder / "self/task" / thread).mkdir(parents=True)
        if schedstat:
            (folder / "self/task" / thread / "schedstat").write_text(f"5 {waited} 1\n")
    lines = [f"cpu{number} 0 0 0 0 0 0 0 {number + 4} 0 0" for number in range(os.cpu_count() or 1)]
    (folder / "stat").write_text("\n".join(["cpu 0 0 0 0 0 0 0 99 0 0", *lines, "intr 0"]))
    return folder


def test_counters_are_read_from_the_system_and_threads_added_up(tmp_path: Path) -> None:
    counters = read_counters(system(tmp_path))
    assert counters.waited_ns == {"7": 1000, "8": 2000}
    assert counters.stolen_steps == sum(number + 4 for number in usable_processor_numbers())
    assert count_threads(tmp_path) == 2


def test_a_system_that_does_not_tell_leaves_the_figures_out(tmp_path: Path) -> None:
    counters = read_counters(tmp_path)
    assert counters.waited_ns is None and counters.stolen_steps is None
    vitals = vitals_between(counters, replace(counters, wall_ns=counters.wall_ns + SECOND), root=tmp_path)
    assert (vitals.waited_share, vitals.stolen_share, vitals.clock_mhz) == (None, None, None)
    assert read_counters(system(tmp_path, schedstat=False)).waited_ns is None
    assert count_threads(tmp_path / "nowhere") >= 1


def test_shares_are_of_the_time_between_two_readings_and_of_threads_that_came_later_too() -> None:
    after = Counters(
        wall_ns=SECOND, cpu_ns=SECOND, waited_ns={"1": SECOND // 20 + 5, "3": SECOND // 50}, stolen_steps=20, switches=8
    )
    vitals = vitals_between(BEFORE, after)
    assert vitals.cpu_share == 1.0
    assert vitals.waited_share == pytest.approx(0.07)
    assert vitals.stolen_share == pytest.approx(10 / os.sysconf("SC_CLK_TCK"))
    assert vitals.switches == 5
    assert vitals.robbed_by(1.0) == (
        "waited for a processor for 7.0 % of the time",
        "lost 10 % of the time to the hypervisor",
    )


def test_one_step_of_the_hypervisors_count_says_nothing_of_a_short_visit() -> None:
    after = replace(BEFORE, wall_ns=SECOND // 20, stolen_steps=11)
    assert vitals_between(BEFORE, after).stolen_share == 0.0


def test_where_waiting_is_not_counted_less_processor_time_than_the_best_visit_is_a_loss() -> None:
    assert Vitals(cpu_share=0.9).robbed_by(1.0) == ("had 90 % of the processor time of its best visit",)
    assert Vitals(cpu_share=0.97).robbed_by(1.0) == ()
    # A call that sleeps by itself has little processor time, and nobody took it.
    assert Vitals(cpu_share=0.3, waited_share=0.0).robbed_by(1.0) == ()


def test_the_clock_is_read_where_the_system_tells_it(tmp_path: Path) -> None:
    (tmp_path / "proc").mkdir()
    lines = [f"processor : {number}\ncpu MHz : 2500.0" for number in range(os.cpu_count() or 1)]
    (tmp_path / "proc/cpuinfo").write_text("\n".join(lines))
    assert read_clock_mhz(tmp_path) == 2500.0
    for number in usable_processor_numbers():
        folder = tmp_path / f"sys/devices/system/cpu/cpu{number}/cpufreq"
        folder.mkdir(parents=True)
        (folder / "scaling_cur_freq").write_text("3100000\n")
    assert read_clock_mhz(tmp_path) == 3100.0


class Pool:
    """A process whose threads go on looking for work for so many seconds, on `threads` processors."""

    def __init__(self, spins_s: float, threads: int = 1) -> None:
        self.now, self.cpu, self.spins_s, self.threads = 0.0, 0.0, spins_s, threads

    def cpu_s(self) -> float:
        return self.cpu

    def sleep(self, seconds: float) -> None:
        self.cpu += self.threads * max(0.0, min(seconds, self.spins_s - self.now))
        self.now += seconds


# Of the fourth pause they work 3 ms: one thread alone uses less than half of it.
@pytest.mark.parametrize(("threads", "pauses"), [(1, 4), (3, 5)])
def test_a_visit_begins_when_threads_of_the_one_before_are_at_rest(threads: int, pauses: int) -> None:
    pool = Pool(spins_s=0.033, threads=threads)
    wait_for_rest(pool.cpu_s, pool.sleep)
    assert pool.now == pytest.approx(pauses * PAUSE_S)
    wait_for_rest(pool.cpu_s, pool.sleep)
    assert pool.now == pytest.approx((pauses + 1) * PAUSE_S)


def test_a_process_that_never_rests_is_not_waited_for_longer() -> None:
    pool = Pool(spins_s=60.0)
    wait_for_rest(pool.cpu_s, pool.sleep)
    assert pool.now == pytest.approx(LONGEST_REST_S)
