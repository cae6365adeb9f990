"""How a deadline is kept: the length of epochs after what came before, and the end of the last one."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import fields, replace
from pathlib import Path
from typing import Any

import pytest
import torch

from train.learn import timekeeper as module
from train.learn.job import Job, make_job
from train.learn.run import Epoch, PartialEpoch, Run, start_run
from train.learn.timekeeper import TELLING_STEPS, Timekeeper
from train.options import TrainOptions
from train.processes.distributed import ALONE
from train.progressive.budget import FINISH_S, Amount, Budget, Deadline, Pace, Slower
from train.progressive.overrides import choose_recipe
from zoo.model.variants import find_variant

# 10 ms a picture to train on, 2 ms to look at, of any size.
PACE = Pace(train_s=0.010, train_s_per_px=0.0, validate_s=0.002, validate_s_per_px=0.0)
AMOUNT = Amount(classes=3, train=36, validate=18)
NOW = 1000.0
ASKED = choose_recipe(TrainOptions(model="tiny", data="pictures"), find_variant("tiny"), counts=(36, 3))
BUDGET = Budget(seconds=60.0, pace=PACE, amount=AMOUNT, asked=ASKED)
AFTER = FINISH_S + 18 * 0.002  # of the last step: a validation, and the end


@pytest.fixture
def run_of(small: Callable, picture_folder: Path, tmp_path: Path) -> Callable[..., tuple[Run, Job]]:
    """`run_of(done=1)`: a run of four epochs of 20 pictures, of which so many are done, each in 0.4 s (twice 0.2)."""

    def make(done: int) -> tuple[Run, Job]:
        options = small(picture_folder, tmp_path / "run", overrides=("epoch_pictures=20",))
        job = make_job(options, ALONE, None, None, None, None)
        run = start_run(job)
        line: dict[str, Any] = {field.name: 1 for field in fields(Epoch)}
        line |= {"train_top1": 0.5, "val_top1": 0.5, "pictures_per_second": 50.0, "seconds": 0.4}
        run.history = [Epoch(**line)] * done
        return run, job

    return make


@pytest.fixture(autouse=True)
def clock(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module.time, "monotonic", lambda: NOW)


def deadline(seconds: float) -> Deadline:
    return Deadline(at=NOW + seconds, budget=BUDGET)


def test_epochs_left_are_as_long_as_the_last_one_says(run_of: Callable) -> None:
    """Training took twice the pace's time: 3 epochs of 100 pictures need 6 s, and three validations as planned."""
    run, job = run_of(done=1)
    keeper = Timekeeper(run, job, deadline(6.0 + 3 * 18 * 0.002 + FINISH_S))
    keeper.after_epoch(0.4 + 18 * 0.002)
    assert run.portion == (0, pytest.approx(100, abs=1))


def test_a_resumed_run_has_what_was_left_and_goes_as_what_came_before(run_of: Callable) -> None:
    """3 epochs at half the pace in 12 s: 200 pictures each. An epoch that has begun keeps its pictures."""
    run, job = run_of(done=1)
    budget = Timekeeper(run, job, deadline(45.0)).budget()
    assert budget and (budget.spent_s, budget.slower) == (15.0, Slower())
    assert Timekeeper(run, job, deadline(-5.0)).budget() == replace(BUDGET, spent_s=65.0)
    run.step, slower = 3, replace(BUDGET, spent_s=45.0, slower=Slower(training=2.0, rest=1.0))
    left = Deadline(at=NOW + 12.0 + 3 * 18 * 0.002 + FINISH_S, budget=slower)
    run.partial = PartialEpoch(torch.zeros(2))
    Timekeeper(run, job, left).after_resuming()
    assert run.portion == (0, 20)
    run.partial = None
    Timekeeper(run, job, left).after_resuming()
    assert run.portion == (0, pytest.approx(200, abs=1))


@pytest.mark.parametrize(("slower", "pictures"), [(0.5, 1200), (1.0, 600), (3.0, 600)])
def test_the_last_epoch_is_planned_by_the_pace_where_what_came_before_was_slow(
    run_of: Callable, slower: float, pictures: int
) -> None:
    """600 pictures in 6 s. A first epoch of few steps is mostly its beginning, and the last one ends in time anyway."""
    run, job = run_of(done=3)
    keeper = Timekeeper(run, job, deadline(6.0 + 18 * 0.002 + FINISH_S))
    keeper.slower = Slower(training=slower, rest=1.0)
    run.step = 3
    keeper.after_resuming()
    assert run.portion == (0, pytest.approx(pictures, abs=1))


def test_a_last_epoch_of_too_few_steps_to_tell_is_planned_by_what_came_before(run_of: Callable) -> None:
    """It could not be cut before it is over: 60 pictures at a tenth of the pace are less than 8 steps of 8."""
    run, job = run_of(done=3)
    keeper = Timekeeper(run, job, deadline(6.0 + 18 * 0.002 + FINISH_S))
    keeper.slower = Slower(training=10.0, rest=1.0)
    run.step = 3
    keeper.after_resuming()
    assert run.portion == (0, pytest.approx(60, abs=1))


def test_without_a_deadline_nothing_changes(run_of: Callable) -> None:
    run, job = run_of(done=1)
    keeper = Timekeeper(run, job, None)
    keeper.after_epoch(100.0)
    keeper.after_head_start(100.0)
    assert run.portion == (0, 20)
    assert keeper.steps_in_time(PartialEpoch(torch.zeros(2), steps=50, seconds=5.0), 100) == 100


@pytest.mark.parametrize(("left", "fitting"), [(100.0, 100), (2.05, 70), (0.05, 50), (-3.0, 50)])
def test_the_last_epoch_ends_when_its_time_is_up(run_of: Callable, left: float, fitting: int) -> None:
    """50 steps took 5 s: in 2 s there are 20 more, and none where nothing is left."""
    run, job = run_of(done=3)
    keeper = Timekeeper(run, job, deadline(left + AFTER))
    done = PartialEpoch(torch.zeros(2), steps=50, seconds=5.0)
    assert keeper.steps_in_time(done, 100) == fitting


def test_other_epochs_and_first_steps_are_not_cut(run_of: Callable) -> None:
    run, job = run_of(done=2)
    late = deadline(-1.0)
    assert Timekeeper(run, job, late).steps_in_time(PartialEpoch(torch.zeros(2), steps=50, seconds=5.0), 100) == 100
    run, job = run_of(done=3)
    first = PartialEpoch(torch.zeros(2), steps=TELLING_STEPS - 1, seconds=5.0)
    assert Timekeeper(run, job, late).steps_in_time(first, 100) == 100
