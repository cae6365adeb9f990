from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from zoo.intervals import difference_interval, mcnemar, median_interval, share_interval


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


def test_the_middle_of_a_few_values_has_the_interval_of_the_signed_rank_test() -> None:
    # n = 10: the signed-rank test leaves 8 of the 55 means of two out at each end (Hollander and Wolfe, Table A.4).
    values = [1.1, 2.2, 0.8, 1.0, 1.7, 1.4, 0.9, 1.3, 1.2, 1.5]
    means = sorted((one + other) / 2 for place, one in enumerate(values) for other in values[place:])
    assert median_interval(values) == (means[27], means[8], means[-9])


def test_the_middle_of_fewer_than_six_values_has_their_whole_range() -> None:
    assert median_interval([3.0, 1.0, 2.0]) == (2.0, 1.0, 3.0)
    assert median_interval([2.0]) == (2.0, 2.0, 2.0)


def test_one_bad_value_in_ten_moves_the_middle_little() -> None:
    middle, low, high = median_interval([1.0] * 9 + [100.0])
    assert middle == low == 1.0 and high < 100
