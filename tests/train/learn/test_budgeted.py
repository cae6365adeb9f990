"""What is left of a run's budget where it is resumed, and what is refused then."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from rich.console import Console

from train.learn.budgeted import go_on
from train.learn.job import make_job, with_recipe
from train.learn.run import start_run
from train.learn.state import read_state, save_state
from train.options import TrainOptions
from train.processes.distributed import ALONE
from train.progressive.budget import Amount, Budget, Deadline, Pace
from train.progressive.recipe import Recipe
from zoo.errors import CheckpointError

PACE = Pace(train_s=0.01, train_s_per_px=0.0, validate_s=0.002, validate_s_per_px=0.0)
AMOUNT = Amount(classes=3, train=36, validate=18)
BEGAN = 1000.0
GoesOn = Callable[..., tuple[Recipe, Deadline | None]]


@pytest.fixture
def goes_on(small: Callable[..., TrainOptions], picture_folder: Path, tmp_path: Path) -> GoesOn:
    """`goes_on(seconds, lr=…)`: what a run of a minute, of which 40 s are gone, gets when it is asked for so."""
    asked = small(picture_folder, tmp_path, epochs=None, batch_size=None)
    path = tmp_path / "state.pt"

    def job_of(options: TrainOptions) -> Any:
        return make_job(options, ALONE, None, None, None, None)

    job = job_of(asked)
    budget = Budget(seconds=60.0, pace=PACE, amount=AMOUNT, asked=job.recipe, spent_s=40.0)
    chosen = with_recipe(job, replace(job.recipe, epoch_pictures=77))
    save_state(start_run(chosen), chosen, path, budget)

    def resumed(seconds: float | None, **changes: Any) -> tuple[Recipe, Deadline | None]:
        options = replace(asked, **changes)
        state = read_state(path, torch.device("cpu"))
        found, deadline = go_on(job_of(options), options, state, path, BEGAN, seconds, Console(quiet=True))
        return found.recipe, deadline

    return resumed


def test_a_resumed_run_keeps_its_choice_and_has_what_is_left(goes_on: GoesOn) -> None:
    recipe, deadline = goes_on(60.0)
    assert recipe.epoch_pictures == 77 and deadline and deadline.at == BEGAN + 20


def test_more_or_less_time_is_asked_for_by_extend(goes_on: GoesOn) -> None:
    with pytest.raises(CheckpointError, match=r"other budget \(1\smin, here 1\smin\s30\ss\)\.") as error:
        goes_on(90.0)
    assert "--extend goes on" in error.value.hint
    recipe, deadline = goes_on(90.0, extend=True)
    assert recipe.epoch_pictures == 77 and deadline and deadline.at == BEGAN + 50
    assert deadline.budget.seconds == 90.0  # by which it is known when it is resumed again
    assert goes_on(30.0, extend=True)[1] == Deadline(at=BEGAN, budget=replace(deadline.budget, seconds=30.0))


def test_the_part_of_a_fold_is_another_each_time(goes_on: GoesOn) -> None:
    with pytest.raises(CheckpointError, match="other labels") as error:  # a fold has other pictures
        goes_on(50.0, fold=1, folds=3)
    assert "budget" not in error.value.problem


@pytest.mark.parametrize(
    ("changes", "named"),
    [({"metric": "loss"}, "metric"), ({"learning_rate": 0.5}, "learning_rate"), ({"find_lr": True}, "find_lr")],
)
@pytest.mark.parametrize("extend", [False, True])
def test_other_settings_are_refused_which_the_choice_would_pass_over(
    changes: dict[str, Any], named: str, extend: bool, goes_on: GoesOn
) -> None:
    with pytest.raises(CheckpointError, match=f"a run with other {named}"):
        goes_on(60.0, extend=extend, **changes)


def test_a_budget_is_given_again(goes_on: GoesOn) -> None:
    with pytest.raises(CheckpointError, match=r"other budget \(1\smin, here none\)"):
        goes_on(None)
