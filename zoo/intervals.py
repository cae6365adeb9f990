"""Owns what can be said of shares from few pictures: intervals, and whether two networks differ; it counts nothing."""

from __future__ import annotations

import math
from collections.abc import Sequence
from statistics import median

# The normal distribution's two-sided 95 % point.
Z = 1.959963984540054
Interval = tuple[float, float]


def share_interval(right: float, total: float) -> Interval:
    """The 95 % interval of a share, `right` of `total` (above 0), by Wilson's score: it never leaves 0…1.

    Wilson 1927, JASA 22:209. 8 of 10 → 0.490 … 0.943, where the normal approximation ends above 1.
    """
    share, square = right / total, Z * Z
    middle = share + square / (2 * total)
    reach = Z * math.sqrt(share * (1 - share) / total + square / (4 * total * total))
    scale = 1 + square / total
    # Exactly 0 and 1 where none and all are right, whatever is rounded.
    return (middle - reach) / scale if right else 0.0, (middle + reach) / scale if right < total else 1.0


def difference_interval(only_first: int, only_second: int, total: int) -> Interval:
    """The 95 % interval of a second share minus a first one of the same `total` pictures.

    Agresti and Min 2005, Statistics in Medicine 24:729: half a picture more in each of the four cells of the table,
    then Wald's interval, which alone is too narrow where the two seldom differ.
    """
    gained, lost, count = only_second + 0.5, only_first + 0.5, total + 2.0
    difference = (gained - lost) / count
    reach = Z * math.sqrt(gained + lost - (gained - lost) ** 2 / count) / count
    return max(-1.0, difference - reach), min(1.0, difference + reach)


def mcnemar(only_first: int, only_second: int) -> float:
    """The two-sided p of McNemar's exact test, of pictures that one of two networks alone has right.

    If both are equally good, each such picture is either's with probability one half. 1 and 9 → 0.0215.
    """
    total, fewer = only_first + only_second, min(only_first, only_second)
    whole = math.lgamma(total + 1) - total * math.log(2)
    tail = math.fsum(
        math.exp(whole - math.lgamma(part + 1) - math.lgamma(total - part + 1)) for part in range(fewer + 1)
    )
    return min(1.0, 2 * tail)


def median_interval(values: Sequence[float]) -> tuple[float, float, float]:
    """The Hodges–Lehmann estimate of the middle of a few symmetric values, and its 95 % interval.

    Both are made of the means of every two values (Hollander and Wolfe 1999, §3.2 and §3.3): the estimate is their
    median, the interval leaves out as many at each end as the signed-rank test allows. Of fewer than six values no
    interval reaches 95 %, and it is the whole range. One bad value in four cannot move the estimate far.

    Raises:
        ValueError: no values.
    """
    means = sorted((one + other) / 2 for place, one in enumerate(values) for other in values[place:])
    n = len(values)
    left_out = math.floor(n * (n + 1) / 4 - Z * math.sqrt(n * (n + 1) * (2 * n + 1) / 24)) if n >= 6 else 0
    return median(means), means[left_out], means[-1 - left_out]
