"""Owns the reward of a network, A · S^w · P^v with its interval; what is known of the network comes as rows."""

from __future__ import annotations

import math

from train.search.rows import Costs, Scored, Trained, Unit
from zoo.intervals import Interval
from zoo.model.space import Reward


def score(reward: Reward, costs: Costs, unit: Unit, trained: Trained) -> Scored:
    """The reward of what a training reached: A · (S/S₀)^w · (P/P₀)^v, and (L/L₀)^u where there is a table of latencies.

    V2 §3.3, w = −0.07, v = −0.05: at the accuracy of a network, one of twice its step time has 0.953 of its reward, and
    one of twice its parameters 0.966. The paper normalises S and does not say by what; here all are divided by the
    reference network's, which moves every reward by one factor and changes no order.

    Args:
        reward: the exponents.
        costs: the network's.
        unit: the reference network's; S is a ratio to its steps already.
        trained: what the network reached.
    """
    return score_of(reward, costs, unit, trained.top1, trained.interval)


def score_of(reward: Reward, costs: Costs, unit: Unit, accuracy: float, interval: Interval) -> Scored:
    """The same of an accuracy with the ends of its interval.

    The logarithm of the reward is a sum, and its parts are measured independently: their half-widths are added in
    quadrature. Parameters are counted, and have none.
    """
    factor, below, above = 1.0, 0.0, 0.0
    for value, low, high, exponent in _measured(reward, costs, unit):
        factor *= value**exponent
        # Exponents are negative: the reward is lowest where the cost is highest.
        below += (exponent * math.log(high / value)) ** 2
        above += (exponent * math.log(value / low)) ** 2
    factor *= (costs.num_params / unit.num_params) ** reward.params
    low, high = interval
    value = accuracy * factor
    if not accuracy:  # the logarithm of nothing: only the accuracy's own interval is left
        return Scored(value=0.0, low=0.0, high=high * factor)
    below += math.log(accuracy / low) ** 2 if low else math.inf
    above += math.log(high / accuracy) ** 2
    return Scored(value=value, low=value * math.exp(-math.sqrt(below)), high=value * math.exp(math.sqrt(above)))


def _measured(reward: Reward, costs: Costs, unit: Unit) -> list[tuple[float, float, float, float]]:
    """Value, ends of the interval and exponent of each figure that was measured."""
    step = costs.step
    figures = [(step.ratio, step.low, step.high, reward.step_time)]
    if costs.latency and unit.latency_ms:
        ends = (costs.latency.ms, costs.latency.low, costs.latency.high)
        ms, low, high = (end / unit.latency_ms for end in ends)
        figures.append((ms, low, high, reward.latency))
    return figures
