from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from zoo.intervals import difference_interval, mcnemar, share_interval


@pytest.mark.parametrize(
    ("right", "total", "low", "high"),
    # Newcombe 1998, Statistics in Medicine 17:857, Table I, method 3.
    [(81, 263, 0.2553, 0.3662), (15, 148, 0.0624, 0.1605), (0, 20, 0.0, 0.1611), (1, 29, 0.0061, 0.1718)],
)
def test_the_interval_of_a_share_is_the_published_one(right: int, total: int, low: float, high: float) -> None:
    assert share_interval(right, total) == pytest.approx((low, high), abs=5e-5)


@given(st.integers(1, 10_000).flatmap(lambda total: st.tuples(st.integers(0, total), st.just(total))))
def test_an_interval_holds_its_share_and_stays_within_0_and_1(pair: tuple[int, int]) -> None:
    right, total = pair
    low, high = share_interval(right, total)
    assert 0 <= low <= right / total <= high <= 1
    assert (low == 0) is (right == 0)
    assert (high == 1) is (right == total)


def test_mcnemar_is_the_binomial_test() -> None:
    assert mcnemar(1, 9) == pytest.approx(2 * (1 + 10) / 2**10)
    assert mcnemar(9, 1) == mcnemar(1, 9)
    assert mcnemar(0, 0) == mcnemar(5, 5) == 1
    assert mcnemar(3000, 3400) == pytest.approx(6.12e-7, rel=0.01)  # (3399.5 − 3200) / 40 = 4.99 deviations


def test_the_interval_of_a_difference_has_its_sign_and_narrows_with_pictures() -> None:
    low, high = difference_interval(10, 40, 200)
    assert 0 < low < 0.15 < high
    assert difference_interval(40, 10, 200) == pytest.approx((-high, -low))
    wide, narrow = difference_interval(10, 40, 200), difference_interval(100, 400, 2000)
    assert narrow[1] - narrow[0] < wide[1] - wide[0]
    assert difference_interval(0, 0, 10)[0] < 0 < difference_interval(0, 0, 10)[1]
