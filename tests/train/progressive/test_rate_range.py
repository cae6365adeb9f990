"""What a range test's curve says: a pure function, on curves made by hand."""

from __future__ import annotations

import math
from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from train.progressive.rate_range import (
    FEWEST_STEPS,
    HIGHEST_SHARE,
    LOWEST_SHARE,
    MOST_STEPS,
    RangeTest,
    choose_rate,
    has_exploded,
    range_rates,
    range_steps,
    smooth,
)

OWN = 1e-3


def until_it_explodes(losses: list[float], steps: int = 100) -> list[float]:
    """What a range test would have seen of a curve."""
    seen: list[float] = []
    for loss in losses:
        seen.append(loss)
        if has_exploded(seen, steps):
            break
    return seen


def curve(lowest_at: float, *, steps: int = 100, noise: float = 0.02, rise: float = 4.0) -> list[float]:
    """2.3 at low rates, falling by 1 over the two decades before `lowest_at`, exploding after it."""
    rng = np.random.default_rng(0)
    losses = []
    for rate in range_rates(OWN, steps):
        beyond = math.log10(rate / lowest_at)
        fallen = min(max(beyond + 2, 0.0), 2.0) / 2
        losses.append(2.3 - fallen + rise * max(beyond, 0.0) + rng.normal(0, noise))
    return losses


@pytest.mark.parametrize("steps", [FEWEST_STEPS, 63, MOST_STEPS])
@pytest.mark.parametrize("lowest_at", [1e-4, 1e-3, 1e-2])
def test_a_tenth_of_where_the_loss_is_lowest_is_taken(lowest_at: float, steps: int) -> None:
    found = choose_rate(until_it_explodes(curve(lowest_at, steps=steps), steps), OWN, steps)
    assert found.reason == "fell"
    assert found.rate == pytest.approx(0.1 * (found.turn or 0))
    assert 0.4 * lowest_at < (found.turn or 0) < 2.5 * lowest_at
    assert f"Learning rate {found.rate:.3g}: a tenth of" in found.sentence
    assert found.sentence.endswith("the recipe's own is 0.001.")


def test_it_ends_where_the_loss_explodes() -> None:
    seen = until_it_explodes(curve(1e-3))
    assert len(seen) < 80
    found = choose_rate(seen, OWN, 100)
    assert len(found.rates) == len(found.losses) == len(seen)


def test_noise_is_no_fall() -> None:
    """Of two hundred flat curves at most a few are taken for falling ones."""
    rng = np.random.default_rng(0)
    taken = [choose_rate(list(rng.normal(1.0, 0.1, 40)), OWN, 40).reason for _ in range(200)]
    assert taken.count("flat") >= 190


def test_a_flat_curve_keeps_the_recipes_own_rate() -> None:
    found = choose_rate([2.3] * 100, OWN, 100)
    assert (found.rate, found.reason, found.turn) == (OWN, "flat", None)
    assert "the loss did not fall in 100 steps" in found.sentence and "this is the recipe's own" in found.sentence


def test_a_loss_that_never_falls_but_explodes_bounds_the_recipes_own_rate() -> None:
    for explodes_at, rate in ((3e-2, OWN), (3e-3, 3e-4)):
        losses = [2.3 + 50 * max(math.log10(each / explodes_at), 0) for each in range_rates(OWN, 100)]
        found = choose_rate(until_it_explodes(losses), OWN, 100)
        assert found.reason == "exploded"
        assert found.rate == pytest.approx(rate, rel=0.5)


def test_a_loss_that_explodes_at_once_lowers_the_rate_below_all_that_were_tried() -> None:
    seen = until_it_explodes([2.3, 1e5, math.inf, math.nan])
    found = choose_rate(seen, OWN, 100)
    assert found.reason == "exploded" and found.losses[-1] is None
    assert found.rate < OWN * LOWEST_SHARE


def test_not_a_number_from_the_first_batch_on_is_not_the_rates_fault() -> None:
    found = choose_rate([math.nan], OWN, 100)
    assert (found.rate, found.reason, found.losses) == (OWN, "not_finite", (None,))
    assert "no rate is to blame" in found.sentence


def test_not_a_number_ends_a_curve_that_had_fallen() -> None:
    losses = [loss if rate < 1e-2 else math.nan for loss, rate in zip(curve(1e-2), range_rates(OWN, 100), strict=True)]
    found = choose_rate(until_it_explodes(losses), OWN, 100)
    assert found.reason == "fell" and found.rate == pytest.approx(1e-3, rel=0.6)


def test_losses_of_nothing_and_below_it_are_losses() -> None:
    """A perfect network, and distillation, whose divergence may round to a little below 0."""
    assert choose_rate([0.0] * 40, OWN, 40).reason == "flat"
    assert choose_rate([-1e-9] * 40, OWN, 40).reason == "flat"


@given(pictures=st.integers(2, 10**7), batch=st.integers(2, 4096), processes=st.integers(1, 8))
def test_a_test_stays_short(pictures: int, batch: int, processes: int) -> None:
    assert FEWEST_STEPS <= range_steps(pictures, batch, processes) <= MOST_STEPS


def test_steps_follow_the_pictures() -> None:
    assert [range_steps(count, 16) for count in (100, 250, 1000, 10**6)] == [40, 40, 63, 100]


def test_rates_rise_in_a_geometric_row_about_the_recipes_own() -> None:
    rates = range_rates(OWN, 51)
    assert rates[0] == pytest.approx(OWN * LOWEST_SHARE) and rates[-1] == pytest.approx(OWN * HIGHEST_SHARE)
    assert all(after / before == pytest.approx(10**0.1) for before, after in pairwise(rates))


@given(st.lists(st.floats(-5, 5), min_size=1, max_size=100))
def test_smoothing_moves_nothing_beyond_what_there_is(losses: list[float]) -> None:
    smoothed = smooth(losses)
    assert len(smoothed) == len(losses)
    assert min(losses) - 1e-9 <= min(smoothed) and max(smoothed) <= max(losses) + 1e-9


@given(st.lists(st.floats(allow_nan=True, allow_infinity=True, width=32), min_size=1, max_size=40))
def test_any_curve_gives_a_rate_that_can_be_used(losses: list[float]) -> None:
    seen = until_it_explodes(losses, 40)
    found = choose_rate(seen, OWN, 40)
    assert OWN * LOWEST_SHARE * 0.09 < found.rate <= OWN * HIGHEST_SHARE * 0.1 + OWN
    assert RangeTest.from_dict(found.to_dict()) == found
    assert found.sentence
