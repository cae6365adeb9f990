"""Owns which range of a tensor's values is worth its type's steps: four methods, by histogram; it sees no graph."""

from __future__ import annotations

from typing import Literal

import numpy as np
from numpy.typing import NDArray

from export.precision.statistics import BINS, Histogram

Method = Literal["min-max", "percentile", "mse", "entropy"]
PERCENTILE = 0.9999
# Shares of the whole range that are tried at each end.
SHARES = np.linspace(0.3, 1.0, 29)
SYMMETRIC_STEPS, STEPS = 127, 255


def choose_range(histogram: Histogram, method: Method, *, symmetric: bool) -> tuple[float, float]:
    """The range (low ≤ 0 ≤ high) that a tensor's 8 bits should cover; what is outside is clipped.

    Args:
        histogram: of the tensor on calibration pictures.
        method: min-max covers all; percentile all but a ten-thousandth at each end; mse has the smallest mean squared
            error; entropy the distribution nearest to the tensor's own (NVIDIA, GTC 2017 session S7310).
        symmetric: −high … high, in 127 steps to each side; else 255 steps in all, with zero among them.
    """
    low, high = min(histogram.low, 0.0), max(histogram.high, 0.0)
    if low == high:
        return 0.0, 1.0  # a tensor of zeros: any scale will do
    if method == "percentile":
        low, high = _percentile(histogram, low, high)
    if symmetric:
        low, high = -max(-low, high), max(-low, high)
    if method in ("mse", "entropy"):
        measure = _squared_error if method == "mse" else _divergence
        lows = SHARES if low < 0 and not symmetric else SHARES[-1:]
        ranges = [(low * below, high * above) for below in lows for above in (SHARES if high > 0 else SHARES[-1:])]
        if symmetric:
            ranges = [(-end, end) for _, end in ranges]
        low, high = min(ranges, key=lambda ends: measure(histogram, *ends, symmetric=symmetric))
    return low, high


def scale_and_zero(low: float, high: float, *, symmetric: bool) -> tuple[float, int]:
    """A step's size and the step that is zero: of 255 from 0 on, or 0 of symmetric ones."""
    if symmetric:
        return max(-low, high) / SYMMETRIC_STEPS, 0
    scale = (high - low) / STEPS
    return scale, round(-low / scale)


def _percentile(histogram: Histogram, low: float, high: float) -> tuple[float, float]:
    share = np.cumsum(histogram.counts) / histogram.counts.sum()
    centres = histogram.centres
    below, above = (centres[min(int(np.searchsorted(share, end)), BINS - 1)] for end in (1 - PERCENTILE, PERCENTILE))
    return max(low, min(float(below), 0.0)), min(high, max(float(above), 0.0))


def _rounded(values: NDArray[np.float64], low: float, high: float, symmetric: bool) -> NDArray[np.float64]:
    scale, zero = scale_and_zero(low, high, symmetric=symmetric)
    first, last = (-SYMMETRIC_STEPS, SYMMETRIC_STEPS) if symmetric else (-zero, STEPS - zero)
    rounded: NDArray[np.float64] = np.clip(np.rint(values / scale), first, last) * scale
    return rounded


def _squared_error(histogram: Histogram, low: float, high: float, *, symmetric: bool) -> float:
    values = histogram.centres
    return float((histogram.counts * (_rounded(values, low, high, symmetric) - values) ** 2).sum())


def _divergence(histogram: Histogram, low: float, high: float, *, symmetric: bool) -> float:
    """Kullback–Leibler, in nats, of the values from what their steps can tell: each step's count spread over its bins.

    What is clipped counts for the outermost bins that are not.
    """
    values, counts = histogram.centres, histogram.counts
    inside = (values >= low) & (values <= high)
    if not inside.any():
        return np.inf
    own = counts[inside].copy()
    own[0] += counts[values < low].sum()
    own[-1] += counts[values > high].sum()
    _, step = np.unique(_rounded(values[inside], low, high, symmetric), return_inverse=True)
    filled = counts[inside] > 0
    total = np.bincount(step, weights=counts[inside])
    bins = np.bincount(step, weights=filled.astype(np.float64))
    told = np.where(filled, (total / np.maximum(bins, 1))[step], 0.0)
    if not told.sum():
        return np.inf
    p, q = own / own.sum(), told / told.sum()
    both = (p > 0) & (q > 0)
    lost = p[(p > 0) & ~both].sum()  # clipped onto an empty bin
    return float((p[both] * np.log(p[both] / q[both])).sum() + lost * np.log(BIG))


BIG = 1e6  # stands for the infinite ratio of a bin that the steps cannot tell of
