"""Trials as the tests of searches need them: made up, of the control space's networks."""

from __future__ import annotations

from typing import Any

from train.search.rows import Costs, StepTime, Trained, Trial, TrialState, Unit
from zoo.model.spaces import CONTROL

CANDIDATES = tuple(CONTROL.candidates())
UNIT = Unit(code=CANDIDATES[0].code, num_params=1000)


def costs(*, ratio: float = 1.0, num_params: int = 1000, spread: float = 0.0) -> Costs:
    """What a network costs: `ratio` of the reference's step, ± a share."""
    step = StepTime(
        ms=10 * ratio,
        reference_ms=10,
        ratio=ratio,
        low=ratio * (1 - spread),
        high=ratio * (1 + spread),
        rounds=10,
        quiet=True,
        batch_size=8,
        image_size=32,
    )
    return Costs(step=step, num_params=num_params, macs=10 * num_params)


def trained(top1: float, *, pictures: int = 1000, seed: int = 0, epochs: int = 10) -> Trained:
    """What a training reached."""
    return Trained(top1=top1, val_pictures=pictures, history=(top1,) * epochs, seed=seed, epochs=epochs, seconds=60)


def trial(number: int, top1: float, *, state: TrialState = "finished", **cost: Any) -> Trial:
    """A trial of the control space's network of that number."""
    return Trial(
        number=number,
        candidate=CANDIDATES[number],
        state=state,
        costs=costs(**cost),
        trained=trained(top1),
    )
