"""Owns how far a network's scores can be believed: bins of reliability, their error, the temperature that mends them.

Guo et al. 2017 (arXiv 1706.04599): one number, by which all logits are divided, changes no answer and makes scores of
70 % right seven times in ten. It is fitted to validation pictures.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from train.learn.validation import Sample

# As in the paper's tables.
NUM_BINS = 15
# A temperature beyond these says that nothing can be fitted: every answer is right, or none is better than chance.
COLDEST, HOTTEST = 0.05, 20.0
_HALVINGS = 24  # of the logarithm of HOTTEST / COLDEST: to a millionth


@dataclass(frozen=True)
class Bin:
    """Pictures whose scores are near one another: how many, their mean score, and the share that is right."""

    count: int
    score: float
    right: float


def reliability(score: NDArray[np.floating], right: NDArray[np.bool_]) -> list[Bin]:
    """Answers by their score, in `NUM_BINS` equal parts of 0…1; empty ones are left out."""
    places = np.minimum((score * NUM_BINS).astype(np.int64), NUM_BINS - 1)
    found = []
    for place in np.unique(places):
        inside = places == place
        found.append(Bin(int(inside.sum()), float(score[inside].mean()), float(right[inside].mean())))
    return found


def calibration_error(bins: list[Bin]) -> float:
    """The expected calibration error, 0…1: how far score and share of right answers are apart, over all pictures."""
    return sum(part.count * abs(part.score - part.right) for part in bins) / sum(part.count for part in bins)


def answers_at(sample: Sample, temperature: float) -> tuple[NDArray[np.float64], NDArray[np.bool_]]:
    """The score of each picture's answer (M,) at a temperature, and whether it is right."""
    powers = np.exp(_shifted(sample) / temperature)
    return powers.max(1) / powers.sum(1), sample.logits.argmax(1) == sample.label


def fit_temperature(sample: Sample | None) -> float | None:
    """The temperature at which the mean cross-entropy is lowest; None where no finite one is.

    The loss is convex in 1 / T; its slope there, mean of (expected logit − logit of the class), is followed to 0.
    """
    if sample is None or not len(sample.label):
        return None
    logits = _shifted(sample)
    own = float(np.take_along_axis(logits, sample.label[:, None], 1).mean())

    def slope(temperature: float) -> float:
        powers = np.exp(logits / temperature)
        return float(((powers * logits).sum(1) / powers.sum(1)).mean()) - own

    # In 1 / T it rises: above 0 where T is too low.
    low, high = COLDEST, HOTTEST
    if slope(low) <= 0 or slope(high) >= 0:
        return None
    for _ in range(_HALVINGS):
        middle = math.sqrt(low * high)
        low, high = (middle, high) if slope(middle) > 0 else (low, middle)
    return math.sqrt(low * high)


def _shifted(sample: Sample) -> NDArray[np.float64]:
    """Logits whose largest is 0, so that no power overflows."""
    logits = sample.logits.astype(np.float64)
    shifted: NDArray[np.float64] = logits - logits.max(1, keepdims=True)
    return shifted
