"""Owns how far two rankings of the same things agree; what is ranked is others'."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

# Of fewer there is a correlation of ±1 by chance one time in three, and more.
FEWEST_RANKED = 3


def rank_correlation(first: Sequence[float], second: Sequence[float]) -> float | None:
    """Spearman's: −1…1; of ties each has the mean of their ranks. None of fewer than three, or where all are equal.

    (1, 2, 3, 4) and (1, 3, 2, 4) → 0.8.
    """
    if len(first) != len(second):
        raise ValueError(f"{len(first)} values cannot be ranked beside {len(second)}")
    if len(first) < FEWEST_RANKED or len(set(first)) == 1 or len(set(second)) == 1:
        return None
    one, other = _ranks(first), _ranks(second)
    return float(np.clip(np.corrcoef(one, other)[0, 1], -1.0, 1.0))


def _ranks(values: Sequence[float]) -> NDArray[np.float64]:
    _, places, counts = np.unique(np.asarray(values, dtype=np.float64), return_inverse=True, return_counts=True)
    last = np.cumsum(counts)
    return np.asarray(last - (counts - 1) / 2)[places]
