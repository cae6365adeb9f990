"""Owns what the harness claims of itself, and the check of each claim on this machine; it keeps no result."""

from __future__ import annotations

import importlib.util
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import partial

import numpy as np
from numpy.typing import NDArray

from export.runners.onnx_runtime import OnnxRunner
from serve.bench.measure.known import busy, busy_calls, known_times_ms, plain_loop, queue_latencies_ms, slowed
from serve.bench.measure.latency_data import Setting
from serve.bench.measure.loadgen import LoadGen
from serve.bench.measure.ratio import Ratio, Verdict, paired_ratio
from serve.bench.measure.scenarios import Wait, poisson_arrivals, serve_arrivals, wait_until
from zoo.measure.rounds import Rounds, Visiting, Watches, measure_rounds
from zoo.measure.timing import Call, Clock, Schedule, time_call
from zoo.measure.vitals import Watch
from zoo.results import percentile
from zoo.rows import NotNegative, Row, Share, Text
from zoo.wording import joined, percent, with_threads

PERCENTS = (50, 90, 95, 99)
# What the harness may be off, as the issue of each claim says: of a time, and of a ratio.
TIMES_WITHIN = 0.03
# Verdicts of a hundred that must be right.
RIGHT_SHARE = 0.95
SLOWER_BY = 1.05
# The synthetic server: half of its time busy, so that half of the pictures wait.
SERVICE_MS, ARRIVALS_PER_SECOND, SERVER_MS = 4.0, 125.0, 2000.0
STALL_MS = 400.0


@dataclass(frozen=True, kw_only=True)
class Claim(Row):
    """One thing the harness claims of itself, and what was found.

    `value` is an error or a share, `limit` what it may be at most, or where `at_least` is true at least. `quiet` is
    whether the machine was; a claim that fails on a busy machine says little. `verdicts` are those of repeated runs.
    """

    written_too = ("passed",)

    name: Text
    says: Text
    found: Text
    value: NotNegative
    limit: Share
    at_least: bool = False
    quiet: bool
    verdicts: tuple[Verdict, ...] = ()
    ratio: Ratio | None = None

    @property
    def passed(self) -> bool:
        """Whether what was found is within the limit."""
        return self.value >= self.limit if self.at_least else self.value <= self.limit


@dataclass(frozen=True, kw_only=True)
class Bench:
    """What claims are checked with: the clock, and a small network in ONNX Runtime."""

    graph: bytes
    batch: NDArray[np.uint8]
    schedule: Schedule
    threads: tuple[int, ...]
    clock: Clock = time.perf_counter_ns
    spend: Callable[[float], None] = busy
    wait: Wait = wait_until
    watch: Watches = field(default_factory=Watch)

    def open(self, threads: int) -> OnnxRunner:
        """The network, opened anew."""
        return OnnxRunner(self.graph, device="cpu", threads=threads, artifact="the network of the check")


def single_claims(bench: Bench) -> dict[str, Callable[[], Claim]]:
    """The checks that need one run each, by the names of their claims."""
    checks: dict[str, Callable[[], Claim]] = {
        "percentiles": partial(check_percentiles, bench),
        "poisson arrivals": partial(check_arrivals, bench),
        "coordinated omission": partial(check_omission, bench),
    }
    checks |= {_loop_name(threads): partial(check_plain_loop, bench, threads) for threads in bench.threads}
    if importlib.util.find_spec("mlperf_loadgen"):
        checks["LoadGen"] = partial(check_loadgen, bench)
    return checks


def _loop_name(threads: int) -> str:
    return f"plain loop, {with_threads(threads)}"


def check_percentiles(bench: Bench) -> Claim:
    """Calls of known times: every percentile comes out."""
    times = known_times_ms()
    bench.watch.begin()
    schedule = Schedule(warmup_ms=0, min_warmup_iterations=0, duration_ms=0, min_iterations=len(times), rounds=1)
    measured = sorted(time_call(busy_calls(times, bench.spend), schedule, clock=bench.clock).ms)
    quiet = not bench.watch.end().robbed_by(0.0)
    return _within(
        "percentiles", "Percentiles of calls whose times are known come out.", measured, sorted(times), quiet
    )


def check_arrivals(bench: Bench) -> Claim:
    """A server of known service times under Poisson arrivals: what each picture waits can be calculated."""
    arrivals = poisson_arrivals(ARRIVALS_PER_SECOND, SERVER_MS, np.random.default_rng(0)).tolist()
    measured, quiet = _serve(bench, arrivals, [SERVICE_MS] * len(arrivals))
    expected = queue_latencies_ms(arrivals, [SERVICE_MS] * len(arrivals))
    says = "Latency under Poisson arrivals is what queueing theory calculates of these arrivals."
    return _within("poisson arrivals", says, sorted(measured), sorted(expected), quiet)


def check_omission(bench: Bench) -> Claim:
    """One long stall: every picture that it delays shows it, not only the one that was being answered."""
    arrivals = [
        round(1e9 * number / ARRIVALS_PER_SECOND) for number in range(round(ARRIVALS_PER_SECOND * SERVER_MS / 1000))
    ]
    services = [STALL_MS if number == len(arrivals) // 2 else SERVICE_MS for number in range(len(arrivals))]
    measured, quiet = _serve(bench, arrivals, services)
    expected = queue_latencies_ms(arrivals, services)
    late = [sum(ms > 2.5 * SERVICE_MS for ms in latencies) for latencies in (measured, expected)]
    return Claim(
        name="coordinated omission",
        says=f"A stall of {STALL_MS:g} ms shows in every picture it delays.",
        found=f"{late[0]} pictures were late, {late[1]} by calculation",
        value=abs(late[0] - late[1]) / late[1],
        limit=TIMES_WITHIN,
        quiet=quiet,
    )


def check_plain_loop(bench: Bench, threads: int) -> Claim:
    """The harness beside a plain loop around ONNX Runtime, in turn."""
    with bench.open(threads) as runner:
        call = partial(runner.infer, bench.batch)
        visits: dict[str, Visiting] = {
            "harness": partial(time_call, call, clock=bench.clock),
            "plain": plain_loop(bench.graph, bench.batch, threads=threads),
        }
        calls: dict[str, Call] = dict.fromkeys(visits, call)
        rounds = measure_rounds(calls, bench.schedule, visits=visits, watch=bench.watch)
    return _of_ratio(
        _loop_name(threads), "A plain loop around ONNX Runtime takes the same time.", rounds, "harness", "plain"
    )


def check_loadgen(bench: Bench) -> Claim:
    """The harness beside MLPerf's LoadGen, in turn."""
    with bench.open(bench.threads[0]) as runner:
        call = partial(runner.infer, bench.batch)
        loadgen = LoadGen(lambda count: call(), Setting(batch_size=1, driver="loadgen"))
        visits: dict[str, Visiting] = {"harness": partial(time_call, call, clock=bench.clock), "LoadGen": loadgen.visit}
        calls: dict[str, Call] = dict.fromkeys(visits, call)
        rounds = measure_rounds(calls, bench.schedule, visits=visits, watch=bench.watch)
    return _of_ratio("LoadGen", "MLPerf's LoadGen measures the same time.", rounds, "harness", "LoadGen")


def check_pair(bench: Bench, factor: float) -> tuple[Verdict, bool]:
    """The verdict on two openings of one network, the first made `factor` times as slow; and whether it was quiet."""
    with bench.open(bench.threads[0]) as one, bench.open(bench.threads[0]) as other:
        first, second = partial(one.infer, bench.batch), partial(other.infer, bench.batch)
        calls: dict[str, Call] = {
            "first": slowed(first, factor, clock=bench.clock, spend=bench.spend),
            "second": second,
        }
        calls |= {"first": first} if factor == 1 else {}
        rounds = measure_rounds(calls, bench.schedule, clock=bench.clock, watch=bench.watch)
    return paired_ratio(rounds.medians_ms("first"), rounds.medians_ms("second")).verdict, rounds.quiet


def claim_of_verdicts(name: str, says: str, verdicts: Sequence[Verdict], right: Verdict, disturbed_runs: int) -> Claim:
    """The claim that repeated runs end with the right verdict; those of runs that were disturbed are not among them."""
    counted = [f"{verdicts.count(verdict)} {verdict}" for verdict in dict.fromkeys((right, *sorted(verdicts)))]
    return Claim(
        name=name,
        says=says,
        found=f"{joined(counted)} of {len(verdicts)}; {disturbed_runs} disturbed runs are not counted",
        value=verdicts.count(right) / len(verdicts),
        limit=RIGHT_SHARE,
        at_least=True,
        quiet=True,
        verdicts=tuple(verdicts),
    )


def _serve(bench: Bench, arrivals: Sequence[int], services: Sequence[float]) -> tuple[list[float], bool]:
    following = iter(services)
    bench.watch.begin()
    samples, _ = serve_arrivals(
        lambda count: bench.spend(next(following)), arrivals, 1, clock=bench.clock, wait=bench.wait
    )
    return list(samples.ms), not bench.watch.end().robbed_by(0.0)


def _within(name: str, says: str, measured: Sequence[float], expected: Sequence[float], quiet: bool) -> Claim:
    """The claim that the percentiles of measured times, ascending, are those expected."""
    pairs = [(percentile(measured, each), percentile(expected, each)) for each in PERCENTS]
    errors = [abs(found - known) / known for found, known in pairs]
    said = [f"p{each} {found:.2f} for {known:.2f} ms" for each, (found, known) in zip(PERCENTS, pairs, strict=True)]
    return Claim(name=name, says=says, found=joined(said), value=max(errors), limit=TIMES_WITHIN, quiet=quiet)


def _of_ratio(name: str, says: str, rounds: Rounds, first: str, second: str) -> Claim:
    """The claim that two ways of measuring agree: the whole interval of their ratio lies within the limit."""
    ratio = paired_ratio(rounds.medians_ms(first), rounds.medians_ms(second), within=TIMES_WITHIN)
    off = max(abs(ratio.low - 1), abs(ratio.high - 1))
    return Claim(
        name=name,
        says=says,
        found=f"{ratio.value:.3f} ({ratio.low:.3f} – {ratio.high:.3f}) of its time; off by {percent(off)} at most",
        value=off,
        limit=TIMES_WITHIN,
        quiet=rounds.quiet,
        ratio=ratio,
    )
