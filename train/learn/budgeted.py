"""Owns how a run gets its budget: a recipe that fills it, or what is left of it where the run is resumed."""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from rich.console import Console

from train.learn.detail import loses_detail
from train.learn.job import Job, with_recipe
from train.learn.pace import amount_of, measure_pace
from train.learn.state import (
    budget_of_state,
    changed_identity,
    changed_settings,
    recipe_of_state,
    refuse_others,
)
from train.options import TrainOptions
from train.processes.distributed import gather
from train.progressive.budget import Budget, Deadline, seconds_of
from train.progressive.overrides import keeps_sizes, recipe_for_budget
from train.progressive.recipe import Recipe
from zoo.wording import digits, duration


def choose_length(
    job: Job, options: TrainOptions, began: float, seconds: float, console: Console
) -> tuple[Job, Deadline]:
    """The job that fills `seconds` from when it `began`, chosen by a few measured steps; what is chosen is printed."""
    console.print("Measuring a few steps …")
    pace = gather(job.settings.world, measure_pace(job))[0]
    amount, at = amount_of(job), began + seconds

    def fitted(*, detail: bool = False) -> Recipe:
        left, own = at - time.monotonic(), job.multi_label
        return recipe_for_budget(
            options, job.variant, job.recipe, amount, pace, left, multi_label=own, detail=detail, spent_s=seconds - left
        )

    recipe = fitted()
    fits_larger = job.start and recipe.largest_size < fitted(detail=True).largest_size
    if fits_larger and gather(job.settings.world, loses_detail(job, recipe, pace, seconds))[0]:
        console.print(f"Pictures of {recipe.largest_size} px lose what tells the classes apart: larger ones.")
        recipe = fitted(detail=True)
    sizes = " → ".join(f"{stage.image_size}" for stage in recipe.stages)
    seen = recipe.epochs * (recipe.epoch_pictures or amount.train)
    epochs = f"{recipe.epochs} epoch{'s' * (recipe.epochs > 1)}"
    sizes += " px as you said" if keeps_sizes(options) else " px"
    console.print(
        f"{duration(seconds)} are {digits(seen / amount.train, 2)} passes over the pictures here, at {sizes}, "
        f"in {epochs}. Without a budget: {job.recipe.epochs} passes up to {job.recipe.largest_size} px, "
        f"{duration(seconds_of(job.recipe, amount, pace))}."
    )
    budget = Budget(seconds=seconds, pace=pace, amount=amount, asked=job.recipe)
    return with_recipe(job, recipe), Deadline(at=at, budget=budget)


def go_on(
    job: Job,
    options: TrainOptions,
    state: Mapping[str, Any],
    path: Path,
    began: float,
    seconds: float | None,
    console: Console,
) -> tuple[Job, Deadline | None]:
    """The job of the run whose `state` was read from `path`, with what is left of its budget; without one, as it is.

    What a run was asked for is compared before its length is chosen, which is the state's. The budget of a fold is its
    part of what is left of all, and another one each time.

    Raises:
        CheckpointError: that run had another budget or none, or other settings; or as `recipe_of_state`.
    """
    budget = budget_of_state(state)
    if budget is None and seconds is None:
        return job, None
    recipe = recipe_of_state(state, path)
    if budget is None and recipe.epoch_pictures:  # of an earlier version: its time is not known
        return with_recipe(job, recipe), None
    changed = changed_identity(state, job)
    if budget:
        settings = changed_settings(budget.asked.to_dict(), job.recipe)
        changed += [f"{name} ({values})" for name, values in settings.items()]
    if budget and budget.asked.find_lr != job.recipe.find_lr:
        changed.append("find_lr")
    there = budget.seconds if budget else None
    other_time = seconds != there and not options.fold
    if other_time and not (budget and seconds and options.extend):
        longer = bool(budget and seconds and not changed)
        refuse_others(path, [f"budget ({_said(there)}, here {_said(seconds)})", *changed], longer=longer)
    refuse_others(path, changed, longer=False)
    assert budget and seconds, "all else is refused"
    left = max(seconds - budget.spent_s, 0.0)
    console.print(f"{_said(left)} of the budget of {_said(seconds)} are left.")
    return with_recipe(job, recipe), Deadline(at=began + left, budget=replace(budget, seconds=seconds))


def _said(seconds: float | None) -> str:
    return "none" if seconds is None else duration(seconds)
