from __future__ import annotations

import numpy as np
import pytest

from serve.bench.measure.scenarios import SCENARIOS, Server, poisson_arrivals, serve_arrivals, wait_until
from tests.serve.bench.measure.simulated import HostClock
from zoo.measure.timing import Schedule, time_call


def rng(seed: int = 0) -> np.random.Generator:
    return np.random.default_rng(seed)


def test_arrivals_are_a_poisson_process() -> None:
    arrivals = poisson_arrivals(100.0, 200_000.0, rng())
    gaps_ms = np.diff(arrivals) / 1e6
    assert (gaps_ms >= 0).all()
    assert len(arrivals) == pytest.approx(20_000, rel=0.03)
    # Exponential: mean and deviation are equal, and e⁻¹ of the gaps are longer than the mean.
    assert gaps_ms.mean() == pytest.approx(10, rel=0.03)
    assert gaps_ms.std() == pytest.approx(10, rel=0.05)
    assert (gaps_ms > 10).mean() == pytest.approx(np.exp(-1), abs=0.015)
    counts = np.bincount((arrivals // 1_000_000_000).astype(int))[:-1]
    assert counts.var() == pytest.approx(counts.mean(), rel=0.25)  # of a Poisson number they are equal


def test_a_visit_too_short_for_its_rate_still_has_arrivals() -> None:
    assert len(poisson_arrivals(0.5, 1.0, rng(), at_least=3)) == 3
    assert poisson_arrivals(0.5, 1.0, rng(), at_least=3)[-1] > 1_000_000


def simulated(arrivals_ms: list[float], service_ms: list[float], most: int = 1) -> tuple[list[float], list[int]]:
    clock, services = HostClock(), iter(service_ms)
    samples, taken = serve_arrivals(
        lambda count: clock.pass_ms(next(services)),
        [round(1e6 * ms) for ms in arrivals_ms],
        most,
        clock=clock,
        wait=lambda moment: clock.pass_ms((moment - clock()) / 1e6),
    )
    return [round(ms, 6) for ms in samples.ms], taken


def test_waiting_counts_from_the_scheduled_arrival() -> None:
    # The first takes 100 ms; those that came meanwhile have waited although nobody sent them.
    latencies, _ = simulated([0, 10, 20, 200], [100, 5, 5, 5])
    assert latencies == [100, 95, 90, 5]


def test_what_waits_is_taken_at_once_up_to_the_batch() -> None:
    latencies, taken = simulated([0, 1, 2, 3, 4], [10, 10, 10], most=3)
    assert taken == [1, 3, 1]
    assert latencies == [10, 19, 18, 17, 26]


def test_a_closed_loop_omits_what_an_open_one_shows() -> None:
    """Coordinated omission: a stall of one second in ten is one sample of a closed loop, a tenth of an open one's."""
    clock = HostClock()
    stalls = iter([False] * 500 + [True] + [False] * 100_000)

    def call(count: int = 1) -> None:
        clock.pass_ms(1000.0 if next(stalls) else 1.0)

    closed = time_call(call, Schedule(warmup_ms=0, min_warmup_iterations=0, duration_ms=10_000), clock=clock)
    assert sum(ms > 100 for ms in closed.ms) == 1
    assert sorted(closed.ms)[int(0.99 * len(closed.ms))] == pytest.approx(1.0)
    stalls = iter([False] * 250 + [True] + [False] * 100_000)
    arrivals = [20_000_000 * number for number in range(500)]  # 50 a second for ten seconds
    wait = lambda moment: clock.pass_ms((moment - clock()) / 1e6)  # noqa: E731
    opened, _ = serve_arrivals(call, arrivals, 1, clock=clock, wait=wait)
    assert sum(ms > 100 for ms in opened.ms) == pytest.approx(47, abs=3)
    assert sorted(opened.ms)[int(0.99 * len(opened.ms))] > 800


def test_all_servers_get_the_same_arrivals_in_their_visits() -> None:
    def seen(service_ms: float) -> list[tuple[float, ...]]:
        clock = HostClock()
        server = Server(
            lambda count: clock.pass_ms(service_ms),
            1,
            20.0,
            clock,
            lambda moment: clock.pass_ms((moment - clock()) / 1e6),
        )
        visits = [server.visit(Schedule(duration_ms=2000, rounds=1)) for _ in range(2)]
        assert sum(server.taken) == sum(len(visit.ms) for visit in visits)
        return [visit.ms for visit in visits]

    quick, slow = seen(1.0), seen(2.0)
    assert [len(visit) for visit in quick] == [len(visit) for visit in slow]
    assert quick[0] != quick[1]


def test_waiting_ends_when_the_moment_has_come() -> None:
    import time

    moment = time.perf_counter_ns() + 3_000_000
    wait_until(moment)
    assert time.perf_counter_ns() >= moment


def test_every_scenario_says_how_pictures_come() -> None:
    assert list(SCENARIOS) == ["single_stream", "multi_stream", "offline", "server"]
    assert all(row.says for row in SCENARIOS.values())
