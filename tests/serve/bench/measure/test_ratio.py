from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import t

from serve.bench.measure.ratio import (
    EVEN_WITHIN,
    FEWEST_ROUNDS,
    Ratio,
    paired_ratio,
    student_quantile,
    unpaired_ratio,
)
from tests.serve.bench.measure.simulated import FakeWatch, HostClock, Pace
from zoo.errors import ZooError
from zoo.measure.rounds import measure_rounds, plan_rounds


def a_ratio(value: float, low: float, high: float) -> Ratio:
    return Ratio(value=value, low=low, high=high, rounds=30, paired=True)


def simulated_ratio(seed: int, slower: float) -> Ratio:
    """Two artifacts on a machine whose pace drifts by a tenth, measured as `zoo bench latency` does."""
    clock = HostClock()
    pace = Pace(clock, seed)
    calls = {"a": clock.call_of(pace.time_of(7.0 * slower)), "b": clock.call_of(pace.time_of(7.0))}
    rounds = measure_rounds(calls, plan_rounds(3.0, warmup_ms=200), clock=clock, watch=FakeWatch())
    return paired_ratio(rounds.medians_ms("a"), rounds.medians_ms("b"))


def test_equal_artifacts_are_even_in_95_of_100_runs() -> None:
    verdicts = [simulated_ratio(seed, 1.0).verdict for seed in range(100)]
    assert verdicts.count("even") >= 95
    assert "faster" not in verdicts and "slower" not in verdicts


def test_an_artifact_5_percent_slower_is_found_in_95_of_100_runs() -> None:
    verdicts = [simulated_ratio(seed, 1.05).verdict for seed in range(100)]
    assert verdicts.count("slower") >= 95
    assert "faster" not in verdicts


def test_the_interval_holds_the_truth_as_often_as_it_says() -> None:
    held = 0
    for seed in range(200):
        noise = np.random.default_rng(seed).normal(0, 0.02, 12)
        ratio = paired_ratio(np.exp(noise).tolist(), [1.0] * 12)
        held += ratio.low <= 1 <= ratio.high
    assert 180 <= held <= 199  # of 200 at 95 %: 190, and four standard deviations of it are 12


def test_what_slows_a_round_slows_both_and_cancels_only_in_pairs() -> None:
    pace = [1.0, 3.0, 1.5, 2.0, 5.0, 1.0, 4.0, 2.5, 1.2, 3.3]
    first, second = [2 * slow for slow in pace], pace
    assert paired_ratio(first, second).low == pytest.approx(2) == paired_ratio(first, second).high
    unpaired = unpaired_ratio(first, second)
    assert unpaired.value == pytest.approx(2)
    assert unpaired.low < 1.2 and unpaired.high > 3


def test_one_wild_round_of_ten_moves_the_ratio_little_and_is_not_dropped() -> None:
    calm = [1.0, 1.01, 0.99, 1.0, 1.02, 0.98, 1.0, 1.01, 0.99]
    wild = paired_ratio([*calm, 30.0], [1.0] * 10)
    assert wild.value == pytest.approx(1.0, abs=0.02)
    assert wild.high > paired_ratio([*calm, 1.0], [1.0] * 10).high


@given(st.lists(st.floats(0.5, 2), min_size=3, max_size=8), st.lists(st.floats(0.5, 2), min_size=3, max_size=8))
def test_turned_round_a_ratio_is_its_inverse(first: list[float], second: list[float]) -> None:
    size = min(len(first), len(second))
    one, other = paired_ratio(first[:size], second[:size]), paired_ratio(second[:size], first[:size])
    assert one.value == pytest.approx(1 / other.value)
    assert one.low == pytest.approx(1 / other.high, rel=0.05)
    assert one.low <= one.value <= one.high


@pytest.mark.parametrize(
    ("low", "high", "verdict"),
    [
        (0.5, 0.97, "faster"),
        (0.5, 0.985, "unclear"),
        (0.985, 1.015, "even"),
        (0.97, 1.0, "unclear"),
        (1.0, 1.05, "unclear"),
        (1.021, 1.5, "slower"),
    ],
)
def test_a_verdict_is_clear_of_2_percent_or_inside_or_none(low: float, high: float, verdict: str) -> None:
    assert a_ratio(math.sqrt(low * high), low, high).verdict == verdict


def test_an_unclear_verdict_says_what_would_settle_it() -> None:
    assert a_ratio(1.05, 1.01, 1.09).settled_by(3.0) == "--duration-s 8 would probably settle it"
    assert a_ratio(1.0, 0.9, 1.1).settled_by(3.0) == "--duration-s 116 would probably settle it"
    border = a_ratio(1 + EVEN_WITHIN, 0.99, 1.05)
    assert border.longer is None
    assert border.settled_by(3.0) == ("the difference lies on the border of 2.0 %, and no duration would settle it")
    assert a_ratio(1.0, 0.999, 1.001).settled_by(3.0) == ""


def test_a_ratio_is_said_in_words() -> None:
    assert a_ratio(0.5, 0.48, 0.52).words() == "2.0× as fast (1.92 – 2.08)"
    assert a_ratio(2.0, 1.9, 2.1).words() == "2.0× as slow (1.90 – 2.10)"
    assert a_ratio(1.0, 0.99, 1.01).words() == "even (0.99 – 1.01 of the time)"
    assert Ratio.from_dict(a_ratio(1.0, 0.9, 1.2).to_dict()).verdict == "unclear"


def test_too_few_rounds_or_rounds_that_are_no_pairs_are_refused() -> None:
    with pytest.raises(ZooError, match="too few"):
        paired_ratio([1.0] * (FEWEST_ROUNDS - 1), [1.0] * (FEWEST_ROUNDS - 1))
    with pytest.raises(ZooError, match="cannot be paired"):
        paired_ratio([1.0] * 4, [1.0] * 5)
    with pytest.raises(ZooError, match="0 ms"):
        unpaired_ratio([0.0, 1.0, 1.0], [1.0] * 3)


@pytest.mark.parametrize("degrees", [3, 5, 9, 29, 99])
def test_students_distribution_is_scipys(degrees: int) -> None:
    assert student_quantile(degrees) == pytest.approx(t.ppf(0.975, degrees), rel=0.01)
