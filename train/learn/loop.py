"""Owns the loop: stages, epochs, steps, and when the state is saved; it draws and prints nothing."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Generator, Iterator
from contextlib import closing, contextmanager
from dataclasses import replace
from functools import partial
from itertools import chain
from pathlib import Path
from typing import TypeVar

import numpy as np
import torch
from torch import Tensor

from train.input.loader import Batch
from train.input.order import picture_of
from train.learn.best import is_hopeless, keep_best
from train.learn.feed import Parts, batches_of, load_parts, own_parts
from train.learn.find_rate import find_rate, with_rate
from train.learn.head_start import begin_with_fitted_head
from train.learn.job import Job
from train.learn.midpoint import try_midpoint
from train.learn.run import DIVERGED_HINT, Epoch, PartialEpoch, Run, enter_stage, finite_or_none
from train.learn.scores import balanced_figure
from train.learn.state import keep_random_state, restore_random_state, save_state
from train.learn.step import train_step
from train.learn.suitability import suited_to
from train.learn.timekeeper import Timekeeper
from train.learn.validation import Judged, glanced_at, validate_together
from train.learn.watcher import Watcher
from train.processes.distributed import agreed, gather, sum_over, wait_for_all
from train.processes.stopping import Interrupted, RunStopped, StopRequest
from train.progressive.budget import Deadline
from train.progressive.recipe import TrainingStage, tested_size, validated_pictures
from train.progressive.schedule import learning_rate, stage_of_epoch, steps_per_epoch
from zoo.errors import DataError, DivergedError, WorkerError

T = TypeVar("T")
# A first loss above this share of what guessing costs is no beginning.
FIRST_LOSS_LIMIT = 1.1
# How many pictures of a batch are named when its loss is not finite.
NAMED_PICTURES = 8


def fit(
    run: Run,
    job: Job,
    *,
    state_path: Path,
    watcher: Watcher,
    stop: StopRequest | None = None,
    deadline: Deadline | None = None,
) -> Judged:
    """Train from where `run` stands to the end of the recipe.

    Args:
        stop: asked between steps, and while pictures are waited for; at a wish the loop saves the state and raises.
        deadline: of a recipe with `epoch_pictures`: the epochs that are left are made longer or shorter to keep it.

    Returns:
        The validation of the averaged weights, of a run without an average of the weights themselves, at the recipe's
        test size. They are in `run.average.model`.

    Raises:
        DataError: no picture could be decoded. WorkerError: the system ended a decoding process; the state is saved.
        DivergedError: losses, weights or answers are no longer finite; the state on disk is from before. RunStopped:
        `stop` has a wish; the state is saved. ZooError: the state cannot be written.
    """
    timekeeper = Timekeeper(run, job, deadline)
    loop = _Loop(run, job, state_path, watcher, stop or StopRequest(), timekeeper)
    if job.recipe.head_start and job.start and run.step == 0 and not run.head_start:
        run.head_start, beginning = begin_with_fitted_head(run, job)
        if not job.recipe.qat:  # no weights are rounded yet
            loop.kept = beginning
            keep_best(run, job.recipe, beginning, epoch=0)
        loop.job = timekeeper.job = job = suited_to(job, run.head_start)
        watcher.on_head_start(run.head_start)
        timekeeper.after_head_start(run.head_start.seconds)
        loop.rest("before the first epoch")
    if job.recipe.find_lr and run.step == 0 and not run.range_test:
        run.range_test = find_rate(run, job, loop.stop)
        if run.range_test:
            loop.job = with_rate(job, run.range_test)
            watcher.on_range_test(run.range_test)
            timekeeper.after_range_test()
        loop.rest("before the first epoch")
    timekeeper.after_resuming()
    recipe, result = job.recipe, None
    entered: int | None = None
    for epoch in range(len(run.history), recipe.epochs):
        if is_hopeless(run, recipe, job.preprocessing.image_size):
            break
        index = stage_of_epoch(recipe.stages, epoch)
        if index != entered:  # a resumed run enters its stage in the middle
            enter_stage(run, recipe.stages[index], job.settings)
            watcher.on_stage(index, recipe.stages[index])
            entered = index
        began = time.monotonic() - (run.partial.seconds if run.partial else 0.0)
        result = loop.run_epoch(index, epoch)
        timekeeper.after_epoch(time.monotonic() - began)
        if epoch + 1 < recipe.epochs:
            loop.rest(f"after epoch {epoch + 1} of {recipe.epochs}")
    if recipe.keep == "best" and run.best:
        between = try_midpoint(run, job) if recipe.tries_midpoint else None
        run.average.model.load_state_dict(run.best.weights)
        result = between or loop.kept  # None if they were kept before the run was interrupted
    return result or validate_together(run.average.model, job.val_set, job.preprocessing, job.settings)


class _Loop:
    """The epochs and steps of a run, and the state it saves between two steps."""

    def __init__(
        self, run: Run, job: Job, state_path: Path, watcher: Watcher, stop: StopRequest, timekeeper: Timekeeper
    ) -> None:
        self.run = run
        self.job = job
        self.world = job.settings.world
        self.state_path = state_path
        self.watcher = watcher
        self.stop = stop
        self.timekeeper = timekeeper
        self.kept: Judged | None = None  # what the weights that are kept answered
        self.saved_at = time.monotonic()
        self.unread: list[tuple[str, list[int], Tensor, int]] = []
        self.between_steps = True  # False while some parts of an accumulated batch have been used and others not

    def run_epoch(self, index: int, epoch: int) -> Judged:
        """Train through an epoch, or what is left of it, validate, and tell the watcher."""
        run, job, recipe = self.run, self.job, self.job.recipe
        stage = recipe.stages[index]
        preprocessing, chosen, last = job.preprocessing, None, epoch + 1 == recipe.epochs
        if not last:
            preprocessing = preprocessing.at(tested_size(recipe, stage))
        looked_at = validated_pictures(recipe, stage, len(job.val_set), last=last)
        if looked_at < len(job.val_set):
            chosen = glanced_at(job.val_set, looked_at, job.settings.seed)
        with self._saving_where_it_ends(stage, epoch):
            done = self._train_epoch(stage, epoch)
            validate = partial(validate_together, run.average.model, job.val_set, preprocessing, job.settings, chosen)
            result = self._wait_for(validate)
        self._report_broken(result.broken)
        totals = done.totals.clone()
        sum_over(self.world, totals)
        loss_sum, right_sum = totals.tolist()
        seen = sum(gather(self.world, done.seen))
        line = Epoch(
            epoch=epoch + 1,
            stage=index + 1,
            image_size=stage.image_size,
            learning_rate=learning_rate(recipe, epoch + 1, stage.batch_size * self.world.size),
            train_loss=finite_or_none(loss_sum / seen),
            train_top1=None if job.multi_label else right_sum / seen,
            val_loss=finite_or_none(result.loss),
            val_top1=result.top1,
            val_size=preprocessing.image_size,
            pictures_per_second=seen / done.seconds,
            seconds=done.seconds,
            broken=len(run.broken),
            val_map=result.map,
            val_pictures=None if chosen is None else looked_at,
            val_balanced=balanced_figure(result, recipe.metric),
        )
        run.history.append(line)
        run.partial = None
        if run.portion:
            start, end = run.portion
            run.portion = end, 2 * end - start
        if preprocessing == job.preprocessing and keep_best(run, recipe, result, epoch=epoch + 1):
            self.kept = result
        self.watcher.on_validation(result)
        self.watcher.on_epoch(run, line)
        return result

    def _train_epoch(self, stage: TrainingStage, epoch: int) -> PartialEpoch:
        """One pass over the pictures, or what is left of it; returns the sums of the whole pass."""
        run, job, world, device = self.run, self.job, self.world, self.job.settings.device
        seed = job.settings.seed
        batches = batches_of(job, stage, epoch, run.portion)
        steps = own_parts(job, stage, batches)
        run.part_sizes = frozenset(len(part) for parts in steps for part in parts)
        # Sums stay on the device, so that no step waits.
        done = run.partial = run.partial or PartialEpoch(torch.zeros(2, device=device))
        began = time.monotonic() - done.seconds
        with closing(self._load(steps[done.steps :], stage, epoch, done)) as loaded:
            for step in range(done.steps, len(steps)):
                fitting = self.timekeeper.steps_in_time(done, len(steps))
                if step >= fitting and run.portion:
                    run.portion = run.portion[0], run.portion[0] + sum(map(len, batches[:step]))
                    break
                for group in run.optimizer.param_groups:
                    progress = epoch + (step + 1) / fitting
                    group["lr"] = group["lr_scale"] * learning_rate(job.recipe, progress, stage.batch_size * world.size)
                rng = np.random.default_rng((seed, epoch, 7, step, *((world.rank,) if world.rank else ())))
                parts = self._fetch(loaded, len(steps[step]))
                loss_sum, right, count = train_step(run, job, stage, parts, rng, num_parts=len(steps[step]))
                done.totals += torch.stack([loss_sum, right.float()])
                done.seen += count
                done.steps = step + 1
                done.seconds = time.monotonic() - began
                if not count:
                    continue
                place = f"epoch {epoch + 1}, step {step + 1} ({stage.image_size} px)"
                self.unread.append((place, list(chain.from_iterable(steps[step])), loss_sum, count))
                # Host–device synchronisation: on a GPU only every 20th step reads the loss back.
                readable = device.type == "cpu" or step % 20 == 0 or step + 1 == len(steps)
                self.watcher.on_step(epoch, step + 1, fitting, count, self._read_losses() if readable else None)
                # To rest, several processes exchange a word, for which they wait for the device: only where it is read.
                if step + 1 < len(steps) and (world.is_alone or readable):
                    self.rest(self._after_step(epoch, step + 1, len(steps)))
        self._read_losses()
        if not done.seen:
            raise DataError("Not one training picture could be decoded.", "The files are damaged, or not pictures.")
        return done

    def rest(self, where: str) -> None:
        """Between two steps: save the state if that is due, and stop if there is a wish.

        Raises:
            RunStopped: there is. DivergedError, ZooError: as `_save`.
        """
        due = time.monotonic() - self.saved_at >= self.job.settings.save_every_s
        due, wish = agreed(self.world, due, self.stop.wish, self.job.settings.device)
        if not due and wish is None:
            return
        self._save(where)
        if wish is not None:
            raise RunStopped(wish, where, own=self.stop.wish is not None)

    @contextmanager
    def _saving_where_it_ends(self, stage: TrainingStage, epoch: int) -> Iterator[None]:
        """Save the state where a wait for pictures ends without them: the steps so far are good.

        Not with several processes, which may be at different steps, and not inside an accumulated batch.

        Raises:
            RunStopped: a signal ended the wait. DataError, WorkerError: as it came.
        """
        run = self.run
        try:
            yield
        except (DataError, WorkerError, Interrupted) as ended:
            if run.partial and not run.partial.seen:
                run.partial = None  # no step of this epoch has been made yet
            start, end = run.portion or (0, len(self.job.train_set))
            steps = steps_per_epoch(end - start, stage.batch_size, self.world.size)
            where = self._after_step(epoch, run.partial.steps if run.partial else 0, steps)
            # Whoever stops a run can resume it, even before its first step. A run that fails there leaves nothing.
            worth_it = isinstance(ended, Interrupted) or run.partial or run.history
            if worth_it and self.world.is_alone and self.between_steps:
                self._save(where)
            if isinstance(ended, Interrupted):
                raise RunStopped(ended.wish, where) from None
            raise

    def _after_step(self, epoch: int, step: int, steps: int) -> str:
        return f"in epoch {epoch + 1} of {self.job.recipe.epochs}, after step {step} of {steps}"

    def _wait_for(self, get: Callable[[], T]) -> T:
        """Call `get`, which mostly waits for pictures and changes nothing of the run: a wish to stop ends it at once.

        With several processes nothing ends it: the others would wait for this one in the middle of a step.

        Raises:
            Interrupted: there was a wish to stop, or one came.
        """
        return self.stop.wait_for(get) if self.world.is_alone else get()

    def _save(self, where: str) -> None:
        """Save the state. The first process does it for all: with the sums of all, and everybody's generators.

        Raises:
            DivergedError: losses or weights are no longer finite. ZooError: the state cannot be written.
        """
        self._read_losses()
        self._check_weights(where)
        own = self.run.partial
        everybody = None
        if own:
            everybody = replace(own, totals=own.totals.clone(), seen=sum(gather(self.world, own.seen)))
            everybody.random = tuple(gather(self.world, keep_random_state(self.job.settings.device)))
            sum_over(self.world, everybody.totals)
        if self.world.is_first:
            self.run.partial = everybody
            save_state(self.run, self.job, self.state_path, self.timekeeper.budget())
            self.run.partial = own
        wait_for_all(self.world)
        self.saved_at = time.monotonic()

    def _report_broken(self, messages: tuple[str, ...]) -> None:
        """Tell of each broken picture once."""
        for message in messages:
            if message not in self.run.broken:
                self.run.broken.add(message)
                self.watcher.on_broken(message)

    def _load(
        self, steps: list[Parts], stage: TrainingStage, epoch: int, done: PartialEpoch
    ) -> Generator[Batch, None, None]:
        """The parts of all steps; torch's generators are set as at the beginning of every such epoch, or as they were.

        Dropout and stochastic depth draw from torch's own generator: seeded per epoch, a resumed run draws the same.
        """
        settings = self.job.settings
        torch.manual_seed(settings.seed * 100_003 + epoch + 1_000_000_007 * self.world.rank)
        if done.random:
            restore_random_state(done.random[self.world.rank])
            done.random = ()
        return load_parts(self.job, stage, epoch, steps)

    def _fetch(self, loaded: Iterator[Batch], count: int) -> Iterator[Batch]:
        """The parts of a step, each as soon as it is loaded. A wish to stop ends the wait for the first one only."""
        take = partial(next, loaded)
        for used in range(count):
            part = take() if used else self._wait_for(take)
            self.between_steps = used + 1 == count
            self._report_broken(part.broken)
            yield part

    def _read_losses(self) -> float | None:
        """Check the losses of all steps since the last call; returns the latest step's mean loss.

        Raises:
            DivergedError: a loss is not finite; names step and pictures.
        """
        if not self.unread:
            return None
        # Host–device synchronisation: one for all of them.
        values = torch.stack([loss_sum for _, _, loss_sum, _ in self.unread]).tolist()
        self._judge_first_loss()
        for value, (where, indices, _, _) in zip(values, self.unread, strict=True):
            if not math.isfinite(value):
                pictures = self.job.train_set
                chosen = (picture_of(draw, len(pictures)) for draw in indices[:NAMED_PICTURES])
                named = ", ".join(map(pictures.describe, chosen))
                more = f" and {len(indices) - NAMED_PICTURES} more" if len(indices) > NAMED_PICTURES else ""
                raise DivergedError(f"The loss became {value} in {where}, with {named}{more}.", DIVERGED_HINT)
        latest: float = values[-1] / self.unread[-1][3]
        self.unread.clear()
        return latest

    def _judge_first_loss(self) -> None:
        """Say so if the run did not start where guessing starts: its classifier is no beginning."""
        if self.run.first_loss is None or self.run.step == 0:
            return
        (first, guessing), self.run.first_loss = (value.item() for value in self.run.first_loss), None
        if self.run.step == 1 and first > FIRST_LOSS_LIMIT * guessing:
            why, start = "does not fit these pictures, and training may never recover from it", self.run.head_start
            if start and start.loss is not None:
                why = f"had a loss of {start.loss:.3g} on whole pictures, and does not bear how they are changed"
            self.watcher.on_remark(
                f"The first loss is {first:.3g}, where guessing costs {guessing:.3g}: the classifier {why}."
            )

    def _check_weights(self, where: str) -> None:
        """Refuse to save what cannot be resumed: a finite loss does not show what its own step did to the weights.

        Nor what the activations did to the statistics of batch norms, which only the validation uses.
        """
        tensors = (*self.run.model.state_dict().values(), *self.run.average.model.state_dict().values())
        largest = torch.stack([tensor.abs().max() for tensor in tensors if tensor.is_floating_point()]).max()
        if not torch.isfinite(largest):
            raise DivergedError(f"Weights became {largest.item()} {where}.", DIVERGED_HINT)
