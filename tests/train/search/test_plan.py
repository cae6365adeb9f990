"""What a search would take is said, and what cannot be done is refused, before anything is made."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest

from train.search.options import SearchOptions
from train.search.plan import plan_search
from train.search.run import search
from train.search.worker import open_lab
from zoo.errors import ZooError
from zoo.model.spaces import CONTROL

Asked = Callable[..., SearchOptions]


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"epochs": 1, "recipe": "digits"}, "less than one epoch for each"),
        ({"epochs": 4, "recipe": "digits", "finalists": 1, "long_epochs": 2}, "less than one epoch for each"),
        ({"budget": "soon"}, "is no time"),
        ({"overrides": ("nosuch=1",)}, "has no setting"),
    ],
)
def test_what_cannot_be_done_leaves_no_folder_and_no_store(asked: Asked, changes: dict[str, Any], said: str) -> None:
    options = asked(**changes)
    with pytest.raises(ZooError, match=said):
        search(options)
    assert not options.out.exists()


def test_a_plan_says_how_many_fit(asked: Asked) -> None:
    options = asked(trials=None, budget="1h", finalists=2, long_seeds=2)
    plan = plan_search(open_lab(options), options)
    assert plan.trials == CONTROL.size and plan.long_trainings == (2 + 2) * 2
    assert "what fits the budget of 1" in plan.sentences[-1]
    none = plan_search(open_lab(options), replace(options, budget="0.1s"))
    assert none.trials == 0 and "has no time for one" in none.sentences[-1]
    asked_for = plan_search(open_lab(asked(trials=5)), asked(trials=5))
    assert asked_for.trials == 5 and asked_for.seconds == pytest.approx(5 * asked_for.trial_s)


@pytest.mark.parametrize(
    ("changes", "early"),
    [({"trials": 9}, True), ({"trials": 8}, False), ({"trials": 9, "prune": False}, False)]
    + [({"trials": 9, "sampler": sampler}, sampler == "tpe") for sampler in ("tpe", "nsga2")],
)
def test_a_plan_says_whether_trials_may_end_early(asked: Asked, changes: dict[str, Any], early: bool) -> None:
    """Never before there are some to compare with, nor where all are wanted to their end."""
    options = asked(**changes)
    assert ("stopped early" in plan_search(open_lab(options), options).sentences[-1]) is early
