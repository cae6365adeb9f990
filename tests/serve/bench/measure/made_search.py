"""Tables of trained networks with figures that a test chooses."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

from serve.bench.measure.ratio import Ratio
from serve.bench.measure.search_rows import LongRun, NetworkRow, Published, Replay, SearchData
from zoo.model.space import Candidate, Reward, Space
from zoo.model.spaces import CONTROL

# Rewards are accuracies: nothing is paid for steps and parameters.
FREE = Reward(step_time=0.0, params=0.0)


def a_table(
    top1: Callable[[Candidate], float],
    step: Callable[[Candidate], float] = lambda candidate: 1.0,
    *,
    space: Space = CONTROL,
    reward: Reward = FREE,
    **more: Any,
) -> SearchData:
    """Every network of a space, with what the functions say of it."""
    rows = [
        NetworkRow(
            candidate=candidate,
            top1=top1(candidate),
            step=Ratio(value=step(candidate), low=step(candidate), high=step(candidate), rounds=5, paired=True),
            num_params=1000,
            macs=10_000,
        )
        for candidate in space.candidates()
    ]
    fields: dict[str, Any] = {
        "space": replace(space, reward=reward),
        "data": "digits",
        "train_pictures": 1437,
        "val_pictures": 360,
        "short_epochs": 3,
        "long_epochs": 12,
        "seed": 0,
        "reference": rows[0].code,
        "networks": tuple(rows),
    }
    return SearchData(**fields | more)


def rising(data: SearchData) -> SearchData:
    """The same table with accuracies 0, 1/n, 2/n … in its order."""
    count = len(data.networks)
    return replace(data, networks=tuple(replace(row, top1=i / count) for i, row in enumerate(data.networks)))


def searches(sampler: str, *orders: Sequence[int]) -> tuple[Replay, ...]:
    """A repetition for each order."""
    return tuple(Replay(sampler=sampler, seed=seed, order=tuple(order)) for seed, order in enumerate(orders))


def long_runs(code: str, *top1: float, why: Any = "ranking", beside: str = "") -> tuple[LongRun, ...]:
    """A run for each accuracy, with seeds from 1."""
    return tuple(
        LongRun(code=code, seed=seed, top1=value, why=why, beside=beside) for seed, value in enumerate(top1, start=1)
    )


def published(data: SearchData, *places: int) -> tuple[Published, ...]:
    """Networks of the table as published ones: p0, p1, …"""
    return tuple(Published(model=f"p{place}", code=data.networks[place].code) for place in places)
