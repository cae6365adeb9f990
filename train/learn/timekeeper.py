"""Owns how a run keeps its deadline: how long the epochs left are, and when the last one ends; it trains nothing."""

from __future__ import annotations

import time
from dataclasses import replace
from math import floor

from train.learn.job import Job
from train.learn.run import PartialEpoch, Run
from train.processes.distributed import gather
from train.progressive.budget import (
    Budget,
    Deadline,
    Slower,
    Taken,
    pictures_left_an_epoch,
    seconds_after_last_step,
    slower_in_epoch,
    slower_in_head_start,
)

# The first steps of an epoch say little of the others: the decoding processes are still beginning.
TELLING_STEPS = 8


class Timekeeper:
    """Keeps the deadline of a run whose recipe has `epoch_pictures`; without a deadline it changes nothing."""

    def __init__(self, run: Run, job: Job, deadline: Deadline | None) -> None:
        self.run = run
        self.job = job
        self.deadline = deadline
        self.slower = deadline.budget.slower if deadline else Slower()

    def budget(self) -> Budget | None:
        """The budget as it is now, for a state."""
        return self.deadline.kept(time.monotonic(), self.slower) if self.deadline else None

    def after_resuming(self) -> None:
        """Choose the length of the epochs that are left anew, but for one that has begun."""
        if self.run.step and not self.run.partial:
            self._choose_length()

    def after_head_start(self, seconds: float) -> None:
        """Choose the length of all epochs anew, by what the head start took."""
        if self.deadline:
            self.slower = slower_in_head_start(self.job.recipe, self.deadline, seconds)
            self._choose_length()

    def after_range_test(self) -> None:
        """Choose the length of all epochs anew, by the time that is left."""
        if self.deadline:
            self._choose_length()

    def after_epoch(self, seconds: float) -> None:
        """Choose the length of the epochs that are left anew, by what the last one took, validation included."""
        if self.deadline:
            done, last = len(self.run.history), self.run.history[-1]
            pictures, rest = round(last.pictures_per_second * last.seconds), max(seconds - last.seconds, 0.0)
            taken = Taken(pictures=pictures, training_s=last.seconds, rest_s=rest)
            self.slower = slower_in_epoch(self.job.recipe, self.deadline, done - 1, taken)
            self._choose_length()

    def _choose_length(self) -> None:
        run, recipe, done = self.run, self.job.recipe, len(self.run.history)
        if self.deadline is None or run.portion is None or done == recipe.epochs:
            return
        left = self.deadline.at - time.monotonic()
        count = pictures_left_an_epoch(recipe, self.deadline, self.slower, done=done, seconds=left)
        telling = TELLING_STEPS * max(stage.batch_size for stage in recipe.stages)
        if done + 1 == recipe.epochs and self.job.settings.world.is_alone and count >= telling:
            # What came before may have been little but a beginning. The last epoch ends when its time is up, so it is
            # planned by the pace, if that is the faster one.
            swift = replace(self.slower, training=min(self.slower.training, 1.0))
            count = pictures_left_an_epoch(recipe, self.deadline, swift, done=done, seconds=left)
        run.portion = run.portion[0], run.portion[0] + gather(self.job.settings.world, count)[0]

    def steps_in_time(self, done: PartialEpoch, planned: int) -> int:
        """How many steps an epoch may have: the last one no more than there is time for at the pace so far.

        Several processes would have to agree on it between all steps: theirs has what was planned.
        """
        recipe, is_last = self.job.recipe, len(self.run.history) + 1 == self.job.recipe.epochs
        if not self.deadline or not is_last or done.steps < TELLING_STEPS or not self.job.settings.world.is_alone:
            return planned
        left = self.deadline.at - time.monotonic() - seconds_after_last_step(recipe, self.deadline, self.slower)
        return max(done.steps, min(planned, done.steps + floor(left * done.steps / done.seconds)))
