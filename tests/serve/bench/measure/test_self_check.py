"""What the harness checks of itself, on a simulated clock where every answer is known, and once for real."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from serve.bench.measure.check_run import CheckData, Repeated, failed_claims
from serve.bench.measure.known import KNOWN_TIMES_MS, busy, busy_calls, known_times_ms, queue_latencies_ms, slowed
from serve.bench.measure.self_check import (
    Bench,
    Claim,
    check_arrivals,
    check_omission,
    check_pair,
    check_percentiles,
    claim_of_verdicts,
)
from tests.serve.bench.measure.simulated import BUSY, FakeWatch, HostClock, Pace
from zoo.measure.rounds import plan_rounds

Zoo = Callable[..., Any]


@dataclass(frozen=True, kw_only=True)
class SimulatedBench(Bench):
    """A bench whose network takes 7 ms on a machine whose pace drifts."""

    host: HostClock = field(default_factory=HostClock)
    seed: int = 0

    @contextmanager
    def open(self, threads: int) -> Iterator[Any]:
        now = Pace(self.host, self.seed).time_of(7.0)
        yield SimpleNamespace(infer=lambda batch: self.host.pass_ms(now()))


def a_bench(watch: FakeWatch | None = None, *, extra_ms: float = 0.0) -> SimulatedBench:
    """A simulated bench; a clock that is off adds `extra_ms` to whatever is spent."""
    host = HostClock()
    return SimulatedBench(
        graph=b"",
        batch=np.zeros((1, 8, 8, 3), np.uint8),
        schedule=plan_rounds(2.0, warmup_ms=100.0),
        threads=(1,),
        clock=host,
        spend=lambda ms: host.pass_ms(ms + extra_ms),
        wait=lambda moment: host.pass_ms((moment - host()) / 1e6),
        watch=watch or FakeWatch(),
        host=host,
    )


@pytest.mark.parametrize("check", [check_percentiles, check_arrivals, check_omission])
def test_where_the_clock_is_right_every_claim_holds_exactly(check: Callable[[Bench], Claim]) -> None:
    claim = check(a_bench())
    assert claim.passed and claim.quiet
    assert claim.value == pytest.approx(0, abs=1e-6)


def test_a_clock_that_is_off_is_found_out() -> None:
    claims = [check_percentiles(a_bench(extra_ms=0.1)), check_arrivals(a_bench(extra_ms=0.5))]
    assert not any(claim.passed for claim in claims)
    assert "p50 1.10 for 1.00 ms" in claims[0].found


def test_a_claim_on_a_busy_machine_is_marked() -> None:
    assert not check_percentiles(a_bench(FakeWatch(BUSY))).quiet


@pytest.mark.parametrize(("factor", "right"), [(1.0, "even"), (1.05, "slower")])
def test_pairs_get_the_right_verdict(factor: float, right: str) -> None:
    verdicts = [check_pair(replace(a_bench(), seed=seed), factor) for seed in range(10)]
    assert [verdict for verdict, _ in verdicts].count(right) >= 9
    assert all(quiet for _, quiet in verdicts)


def test_ninety_five_of_a_hundred_must_be_right() -> None:
    good = claim_of_verdicts("equal", "They are even.", ["even"] * 95 + ["unclear"] * 5, "even", 3)
    bad = claim_of_verdicts("equal", "They are even.", ["even"] * 94 + ["unclear"] * 6, "even", 0)
    assert good.passed and not bad.passed
    assert good.found == "95 even and 5 unclear of 100; 3 disturbed runs are not counted"


def test_known_times_are_known() -> None:
    times = known_times_ms()
    assert sorted(times) == sorted(ms for ms, count in KNOWN_TIMES_MS for _ in range(count))
    assert len(times) == 200
    spent: list[float] = []
    call = busy_calls([1.0, 2.0], spent.append)
    for _ in range(3):
        call()
    assert spent == [1.0, 2.0, 1.0]
    assert queue_latencies_ms([0, 10_000_000, 100_000_000], [30, 30, 5]) == [30, 50, 5]


def test_a_slowed_call_answers_the_same_and_takes_longer() -> None:
    import time

    def call() -> str:
        busy(2.0)
        return "answer"

    start = time.perf_counter()
    assert slowed(call, 2.0)() == "answer"
    assert time.perf_counter() - start >= 0.004


def a_claim(**changes: Any) -> Claim:
    facts = {"name": "x", "says": "it holds", "found": "it does", "value": 0.5, "limit": 0.03, "quiet": True}
    return Claim(**(facts | changes))


def test_only_claims_that_fail_on_a_quiet_machine_fail_the_check() -> None:
    claims = (a_claim(name="fails"), a_claim(name="busy", quiet=False), a_claim(name="holds", value=0.01))
    data = CheckData(claims=claims, repeated=(Repeated(name="equal artifacts"),), runs=1)
    assert [claim.name for claim in failed_claims(data)] == ["fails"]


def test_a_check_that_was_stopped_goes_on_and_what_was_disturbed_is_checked_again(
    zoo: Zoo, in_folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # The first claim is checked on a busy machine, then all is quiet.
    monkeypatch.setattr("serve.bench.measure.check_run.Watch", lambda: FakeWatch(BUSY))
    brief = ("bench", "check", "--model", "tiny", "--duration-s", 0.05, "--threads", 1, "-o", "results")
    first = zoo(*brief, "--runs", 1)
    assert first.code in (0, 3), first.err  # what is claimed may fail in so short a time; that it is told may not
    (path,) = (in_folder / "results").glob("check-*.json")
    claims = json.loads(path.read_text())["data"]["claims"]
    assert {"percentiles", "poisson arrivals", "coordinated omission", "plain loop, 1 thread"} <= {
        claim["name"] for claim in claims
    }
    assert [claim["quiet"] for claim in claims] == [False, *[True] * (len(claims) - 1)]
    monkeypatch.setattr("serve.bench.measure.check_run.Watch", FakeWatch)
    second = zoo(*brief, "--runs", 2, "--json")
    said = json.loads(second.out)
    assert said["data"]["claims"][1:] == claims[1:]  # not checked again
    assert said["data"]["claims"][0]["name"] == "percentiles" and said["data"]["claims"][0]["quiet"]
    assert said["data"]["complete"] is True
    assert [len(one["verdicts"]) for one in said["data"]["repeated"]] == [2, 2]
    assert "2 of 2" in second.err and "1 of 2" not in second.err
    third = zoo(*brief, "--runs", 2)
    assert "is complete" in third.err
    assert "claims of the harness hold here" in third.out
    longer = zoo(*brief[:5], 0.1, *brief[6:])
    assert longer.code == 1
    assert "was made with --duration-s 0.05, and this is --duration-s 0.1" in longer.err and "--again" in longer.err
