from __future__ import annotations

from collections.abc import Callable

import pytest

from tests.serve.bench.measure.simulated import BUSY, FakeWatch, HostClock
from zoo.errors import ZooError
from zoo.measure.rounds import (
    MAX_WINDOWS,
    MIN_ROUNDS,
    MOST_ROUNDS,
    Rounds,
    disturbance,
    measure_rounds,
    plan_rounds,
)
from zoo.measure.timing import Schedule
from zoo.results import summarize

SHORT = Schedule(warmup_ms=20, min_warmup_iterations=2, duration_ms=120, min_iterations=10, rounds=12)


def measured(
    *, schedule: Schedule = SHORT, watch: FakeWatch | None = None, a: float = 1.0, b: float = 2.0
) -> tuple[Rounds, list[str]]:
    """Two calls on a simulated clock, and the order they were called in."""
    clock, order = HostClock(), list[str]()

    def call(name: str, ms: float) -> Callable[[], None]:
        def run() -> None:
            order.append(name)
            clock.pass_ms(ms)

        return run

    calls = {"a": call("a", a), "b": call("b", b)}
    return measure_rounds(calls, schedule, clock=clock, watch=watch or FakeWatch()), order


def test_all_are_visited_in_turn_and_every_visit_refills_the_caches_first() -> None:
    rounds, order = measured()
    assert [len(track.visits) for track in rounds.tracks] == [12, 12]
    turns = [name for before, name in zip(["", *order], order, strict=False) if name != before]
    assert turns == ["a", "b"] * 13  # the warm-up of both, then twelve rounds
    visited = sum(visit.n for visit in rounds.track("a").visits)
    assert order.count("a") == rounds.track("a").warm_up.iterations + visited + 12


def test_every_sample_is_kept_in_its_order() -> None:
    clock, durations = HostClock(), iter([1.0] * 40 + [float(number) for number in range(1, 2000)])
    schedule = Schedule(warmup_ms=0, min_warmup_iterations=40, duration_ms=0, min_iterations=1, rounds=3)
    rounds = measure_rounds({"only": clock.call_of(lambda: next(durations))}, schedule, clock=clock, watch=FakeWatch())
    assert rounds.samples_ms("only") == [2.0, 4.0, 6.0]  # before each of them one call that refills the caches
    assert rounds.summary("only") == summarize([2.0, 4.0, 6.0])


def test_rounds_are_written_and_read_back_whole() -> None:
    rounds, _ = measured()
    assert Rounds.from_dict(rounds.to_dict()) == rounds
    assert rounds.to_dict()["quiet"] is True
    assert rounds.processors and rounds.threads >= 1


def test_warm_up_lasts_until_the_time_is_steady_and_says_how_long_that_was() -> None:
    clock = HostClock()
    falling = iter([10.0, 10.0, 6.0, 6.0, 3.0, 3.0, 2.0])
    schedule = Schedule(warmup_ms=0, min_warmup_iterations=4, duration_ms=1, rounds=3)
    rounds = measure_rounds({"a": clock.call_of(lambda: next(falling, 2.0))}, schedule, clock=clock, watch=FakeWatch())
    warm_up = rounds.track("a").warm_up
    assert warm_up.settled
    assert warm_up.iterations == 10  # windows of two: 10, 6, 3, then 2 and 2
    assert set(rounds.samples_ms("a")) == {2.0}


def test_a_call_that_never_settles_is_measured_and_said_to_be_unsettled() -> None:
    clock, grown = HostClock(), [1.0]

    def slower() -> float:
        grown[0] *= 1.1
        return grown[0]

    schedule = Schedule(warmup_ms=0, min_warmup_iterations=2, duration_ms=1, rounds=3)
    rounds = measure_rounds({"a": clock.call_of(slower)}, schedule, clock=clock, watch=FakeWatch())
    assert not rounds.track("a").warm_up.settled
    assert rounds.track("a").warm_up.iterations == MAX_WINDOWS


def test_a_robbed_round_is_marked_and_measured_again() -> None:
    rounds, _ = measured(watch=FakeWatch(*[BUSY] * 2, then=FakeWatch().end()))
    assert rounds.quiet and disturbance([rounds]) == ""
    assert rounds.robbed_rounds == (0,)
    assert len(rounds.track("a").visits) == 13
    assert rounds.telling == tuple(range(1, 13))
    assert "waited for a processor for 20 % of the time" in rounds.track("a").visits[0].robbed


def test_one_robbed_visit_takes_its_round_from_all_so_that_pairs_stay_pairs() -> None:
    rounds, _ = measured(watch=FakeWatch(FakeWatch().end(), BUSY))
    assert [bool(track.visits[0].robbed) for track in rounds.tracks] == [False, True]
    assert rounds.robbed_rounds == (0,)
    assert len(rounds.medians_ms("a")) == len(rounds.medians_ms("b")) == 12


def test_a_machine_that_never_is_quiet_is_measured_twice_as_often_and_no_more() -> None:
    rounds, _ = measured(watch=FakeWatch(then=BUSY))
    assert len(rounds.track("a").visits) == 24
    assert rounds.to_dict()["quiet"] is False
    assert rounds.telling == tuple(range(24))
    assert disturbance([measured()[0], rounds]) == (
        "The machine was not quiet: 24 of 24 rounds were disturbed, at worst a visit waited for a processor for 20 % "
        "of the time; these figures are of a busy machine."
    )


def test_slow_calls_need_no_more_rounds_than_their_time_allows() -> None:
    rounds, _ = measured(schedule=plan_rounds(3.0, warmup_ms=0), a=300.0, b=400.0)
    assert len(rounds.track("a").visits) == MIN_ROUNDS


def test_a_longer_measurement_has_more_rounds_until_their_visits_are_long() -> None:
    assert plan_rounds(3.0, warmup_ms=200).rounds == 30
    assert plan_rounds(0.1, warmup_ms=200).rounds == MIN_ROUNDS
    assert plan_rounds(600.0, warmup_ms=200).rounds == MOST_ROUNDS
    assert plan_rounds(3.0, warmup_ms=200, rounds=7).rounds == 7


def test_nothing_to_measure_is_said() -> None:
    with pytest.raises(ZooError, match="nothing to measure"):
        measure_rounds({}, SHORT)


def test_the_machine_at_hand_is_watched_where_no_fake_is_given() -> None:
    total = 0

    def work() -> None:
        nonlocal total
        total += sum(range(1000))

    rounds = measure_rounds({"a": work}, Schedule(warmup_ms=1, duration_ms=5, rounds=3))
    vitals = rounds.track("a").visits[0].vitals
    assert vitals.cpu_share > 0
    assert rounds.wall_s("a") > 0
