"""The reward is the paper's, and its interval is made of what was measured."""

from __future__ import annotations

import pytest

from tests.train.search.made import UNIT, costs, trained
from train.search.reward import score
from train.search.rows import Latency, Unit
from zoo.model.space import Reward

PAPER = Reward()


def test_the_reference_has_its_accuracy_as_reward() -> None:
    found = score(PAPER, costs(), UNIT, trained(0.8))
    assert found.value == pytest.approx(0.8)
    assert (found.low, found.high) == pytest.approx(trained(0.8).interval, rel=1e-9)


def test_twice_the_step_time_and_twice_the_parameters_cost_what_the_paper_says() -> None:
    assert score(PAPER, costs(ratio=2), UNIT, trained(0.8)).value == pytest.approx(0.8 * 0.9526, abs=1e-4)
    assert score(PAPER, costs(num_params=2000), UNIT, trained(0.8)).value == pytest.approx(0.8 * 0.9659, abs=1e-4)


def test_noise_of_the_step_time_widens_the_interval_as_its_exponent_says() -> None:
    alone = score(PAPER, costs(), UNIT, trained(0.8))
    noisy = score(PAPER, costs(spread=0.5), UNIT, trained(0.8))
    assert noisy.low < alone.low < noisy.value < alone.high < noisy.high
    assert noisy.value == alone.value
    without = score(Reward(step_time=0), costs(spread=0.5), UNIT, trained(0.8))
    assert without == alone


def test_latency_counts_only_where_both_have_one() -> None:
    latency = Latency(ms=4, low=3, high=5)
    slow = costs().to_dict() | {"latency": latency.to_dict()}
    slow_costs = type(costs()).from_dict(slow)
    unit = Unit(code="x", num_params=1000, latency_ms=2)
    assert score(PAPER, slow_costs, unit, trained(0.8)).value == pytest.approx(0.8 * 0.9526, abs=1e-4)
    assert score(PAPER, slow_costs, UNIT, trained(0.8)).value == pytest.approx(0.8)
    assert score(PAPER, costs(), unit, trained(0.8)).value == pytest.approx(0.8)


def test_a_network_that_has_learnt_nothing_has_no_reward() -> None:
    found = score(PAPER, costs(spread=0.1), UNIT, trained(0.0))
    assert found.value == found.low == 0 < found.high
