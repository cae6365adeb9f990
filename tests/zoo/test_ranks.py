from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import spearmanr

from zoo.ranks import rank_correlation

FEW = st.integers(0, 6).map(float)


def test_of_two_exchanged_among_four_it_is_as_known() -> None:
    assert rank_correlation((1, 2, 3, 4), (10, 30, 20, 40)) == pytest.approx(0.8)
    assert rank_correlation((1, 2, 3), (9, 5, 1)) == pytest.approx(-1.0)


@given(st.lists(st.tuples(FEW, FEW), min_size=3, max_size=30))
def test_it_is_scipys_with_ties_too(pairs: list[tuple[float, float]]) -> None:
    first, second = (list(each) for each in zip(*pairs, strict=True))
    if len(set(first)) == 1 or len(set(second)) == 1:
        assert rank_correlation(first, second) is None
    else:
        assert rank_correlation(first, second) == pytest.approx(spearmanr(first, second).statistic)


def test_of_too_few_there_is_none() -> None:
    assert rank_correlation((1, 2), (1, 2)) is None
    with pytest.raises(ValueError, match="3 values"):
        rank_correlation((1, 2, 3), (1, 2))
