"""Owns the loop: stages, epochs, steps and what is needed to go on; it draws and prints nothing."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Generator, Iterator
from contextlib import closing, contextmanager
from dataclasses import replace
from functools import partial
from itertools import chain
from pathlib import Path
from typing import Protocol, TypeVar

import numpy as np
import torch
from torch import Tensor

from train.input.loader import Augmented, Batch, epoch_batches, load
from train.learn.run import (
    Epoch,
    PartialEpoch,
    Run,
    Settings,
    enter_stage,
    keep_random_state,
    restore_random_state,
    save_state,
)
from train.learn.step import train_step
from train.learn.validation import Validation, validate_together
from train.processes.distributed import agreed, gather, share_of, sum_over, wait_for_all
from train.processes.stopping import Interrupted, RunStopped, StopRequest
from train.progressive.recipe import Recipe, TrainingStage
from train.progressive.schedule import learning_rate, stage_of_epoch, steps_per_epoch
from zoo.data.pictures import Pictures
from zoo.errors import DataError, ZooError
from zoo.model.spec import Preprocessing

T = TypeVar("T")
# Of the batch behind a loss that is not finite; all of a batch of thousands helps nobody.
NAMED_PICTURES = 8
DIVERGED_HINT = "Lower --lr, clip with --set clip_grad_norm=1, or use --precision fp32."


class Watcher(Protocol):
    """Sees a run go by: the live view and the record on disk."""

    def on_stage(self, index: int, stage: TrainingStage) -> None:
        """A stage begins."""

    def on_step(self, epoch: int, step: int, steps: int, pictures: int, loss: float | None) -> None:
        """A step ended; `loss` is None where reading it would make the device wait."""

    def on_broken(self, message: str) -> None:
        """A picture could not be decoded; told once per picture."""

    def on_validation(self, result: Validation) -> None:
        """The validation of an epoch ended; `on_epoch` follows."""

    def on_epoch(self, run: Run, epoch: Epoch) -> None:
        """An epoch and its validation ended."""


def fit(
    run: Run,
    recipe: Recipe,
    train_set: Pictures,
    val_set: Pictures,
    preprocessing: Preprocessing,
    settings: Settings,
    *,
    state_path: Path,
    watcher: Watcher,
    stop: StopRequest | None = None,
) -> Validation:
    """Train from where `run` stands to the end of the recipe.

    Args:
        stop: asked between steps, and while pictures are waited for; a wish makes the loop write the state and raise.

    Returns:
        The averaged weights' validation at the recipe's test size. The weights are in `run.average.model`.

    Raises:
        DataError: no picture could be decoded. ZooError: loss or weights are no longer finite; the state on disk is
        from before. RunStopped: `stop` has a wish; the state is written.
    """
    loop = _Loop(run, recipe, train_set, preprocessing, settings, state_path, watcher, stop or StopRequest())
    result = None
    entered = None
    for epoch in range(len(run.history), recipe.epochs):
        index = stage_of_epoch(recipe.stages, epoch)
        stage = recipe.stages[index]
        if index != entered:  # a resumed run enters its stage in the middle
            enter_stage(run, stage, settings)
            watcher.on_stage(index, stage)
            entered = index
        val_size = recipe.test_size
        if epoch + 1 < recipe.epochs:
            val_size = round(stage.image_size * recipe.test_size / recipe.largest_size)
        with loop.kept(stage, epoch):
            done = loop.train_epoch(stage, epoch)
            contract = preprocessing.at(val_size)
            result = loop.wait_for(partial(validate_together, run.average.model, val_set, contract, settings))
        totals, world = done.totals.clone(), settings.world
        sum_over(world, totals)
        loss_sum, right_sum = totals.tolist()
        seen = sum(gather(world, done.seen))
        loop.report_broken(result.broken)
        line = Epoch(
            epoch=epoch + 1,
            stage=index + 1,
            image_size=stage.image_size,
            learning_rate=learning_rate(recipe, epoch + 1, stage.batch_size * world.size),
            train_loss=loss_sum / seen,
            train_top1=right_sum / seen,
            val_loss=result.loss,
            val_top1=result.top1,
            val_size=val_size,
            pictures_per_second=seen / done.seconds,
            seconds=done.seconds,
            broken=len(run.broken),
        )
        run.history.append(line)
        run.partial = None
        watcher.on_validation(result)
        watcher.on_epoch(run, line)
        if epoch + 1 < recipe.epochs:
            loop.rest(f"after epoch {epoch + 1} of {recipe.epochs}")
    return result or validate_together(run.average.model, val_set, preprocessing.at(recipe.test_size), settings)


class _Loop:
    """The steps of a run, and the state it leaves between two of them."""

    def __init__(
        self,
        run: Run,
        recipe: Recipe,
        train_set: Pictures,
        preprocessing: Preprocessing,
        settings: Settings,
        state_path: Path,
        watcher: Watcher,
        stop: StopRequest,
    ) -> None:
        self.run = run
        self.recipe = recipe
        self.train_set = train_set
        self.preprocessing = preprocessing
        self.settings = settings
        self.state_path = state_path
        self.watcher = watcher
        self.stop = stop
        self.saved_at = time.monotonic()
        self.unread: list[tuple[str, list[int], Tensor, int]] = []
        self.between_steps = True  # no part of an accumulated batch has been used without the rest

    def train_epoch(self, stage: TrainingStage, epoch: int) -> PartialEpoch:
        """One pass over the pictures, or what is left of it: the sums of all of it."""
        run, settings, device = self.run, self.settings, self.settings.device
        world = settings.world
        batches = epoch_batches(
            self.train_set, self.recipe, stage, seed=settings.seed, epoch=epoch, processes=world.size
        )
        steps = [_parts(share_of(batch, world), stage.accumulate) for batch in batches]
        # Sums stay on the device, so that no step waits.
        done = run.partial = run.partial or PartialEpoch(torch.zeros(2, device=device))
        began = time.monotonic() - done.seconds
        with closing(self._load(steps[done.steps :], stage, epoch)) as loaded:
            for step in range(done.steps, len(steps)):
                for group in run.optimizer.param_groups:
                    rate = learning_rate(self.recipe, epoch + (step + 1) / len(steps), stage.batch_size * world.size)
                    group["lr"] = rate * group["lr_scale"]
                loss_sum, right, count = train_step(
                    run,
                    self._fetch(loaded, len(steps[step]), done),
                    self.recipe,
                    stage,
                    self.preprocessing,
                    settings,
                    np.random.default_rng((settings.seed, epoch, 7, step, *((world.rank,) if world.rank else ()))),
                    num_parts=len(steps[step]),
                )
                done.totals += torch.stack([loss_sum, right.float()])
                done.seen += count
                done.steps = step + 1
                done.seconds = time.monotonic() - began
                if not count:
                    continue
                where = f"epoch {epoch + 1}, step {step + 1} ({stage.image_size} px)"
                self.unread.append((where, list(chain.from_iterable(steps[step])), loss_sum, count))
                # Host–device synchronisation: on a GPU only every 20th step reads the loss back.
                readable = device.type == "cpu" or step % 20 == 0 or step + 1 == len(steps)
                self.watcher.on_step(epoch, step + 1, len(steps), count, self._read_losses() if readable else None)
                # Several processes agree on a rest by a word of each, for which the device is waited for as well.
                if step + 1 < len(steps) and (world.is_alone or readable):
                    self.rest(f"in epoch {epoch + 1} of {self.recipe.epochs}, after step {step + 1} of {len(steps)}")
        self._read_losses()
        if not done.seen:
            raise DataError("Not one training picture could be decoded.", "The files are damaged, or not pictures.")
        return done

    def rest(self, where: str) -> None:
        """Between two steps: write the state where it is time to, and stop where that is wished.

        Raises:
            RunStopped: it is. ZooError: weights are no longer finite.
        """
        due = time.monotonic() - self.saved_at >= self.settings.save_every_s
        due, wish = agreed(self.settings.world, due, self.stop.wish, self.settings.device)
        if not due and wish is None:
            return
        self._read_losses()
        self._check_weights(where)
        self._save()
        self.saved_at = time.monotonic()
        if wish is not None:
            raise RunStopped(wish, where, own=self.stop.wish is not None)

    @contextmanager
    def kept(self, stage: TrainingStage, epoch: int) -> Iterator[None]:
        """Write the state where pictures are waited for no more: the steps so far are sound.

        Not with several processes, which stand at different steps, nor in the middle of an accumulated batch.

        Raises:
            RunStopped: a signal ended the wait. DataError: as it came.
        """
        run = self.run
        try:
            yield
        except (DataError, Interrupted) as ended:
            if run.partial and not run.partial.seen:
                run.partial = None  # not a step of this epoch yet
            steps = steps_per_epoch(len(self.train_set), stage.batch_size * self.settings.world.size)
            done = run.partial.steps if run.partial else 0
            where = f"in epoch {epoch + 1} of {self.recipe.epochs}, after step {done} of {steps}"
            # Who stops a run goes on with it, be it from the beginning; of one that failed there nothing is kept.
            begun = isinstance(ended, Interrupted) or run.partial or run.history
            if begun and self.settings.world.is_alone and self.between_steps:
                self._read_losses()
                self._check_weights(where)
                self._save()
            if isinstance(ended, Interrupted):
                raise RunStopped(ended.wish, where) from None
            raise

    def wait_for(self, get: Callable[[], T]) -> T:
        """`get()`, which mostly waits for pictures and changes nothing of the run: a wish to stop ends it at once.

        Not with several processes: the others would wait for this one in the middle of a step.

        Raises:
            Interrupted: a wish to stop is there, or came.
        """
        return self.stop.wait_for(get) if self.settings.world.is_alone else get()

    def _save(self) -> None:
        """Write the state, the first process for all: sums of all, and everybody's generators."""
        world, own = self.settings.world, self.run.partial
        everybody = None
        if own:
            everybody = replace(own, totals=own.totals.clone(), seen=sum(gather(world, own.seen)))
            everybody.random = tuple(gather(world, keep_random_state(self.settings.device)))
            sum_over(world, everybody.totals)
        if world.is_first:
            self.run.partial = everybody
            save_state(self.run, self.recipe, self.settings, self.train_set, self.state_path)
            self.run.partial = own
        wait_for_all(world)

    def report_broken(self, messages: tuple[str, ...]) -> None:
        """Tell of each broken picture once."""
        for message in messages:
            if message not in self.run.broken:
                self.run.broken.add(message)
                self.watcher.on_broken(message)

    def _load(self, steps: list[list[list[int]]], stage: TrainingStage, epoch: int) -> Generator[Batch, None, None]:
        """The parts of all steps, and torch's generators as they belong at the beginning of an epoch.

        Dropout and stochastic depth draw from torch's own generator: fixed per epoch, a resumed run draws the same.
        """
        settings = self.settings
        torch.manual_seed(settings.seed * 100_003 + epoch + 1_000_000_007 * settings.world.rank)
        dataset = Augmented(self.train_set, self.recipe, stage, settings.seed, epoch, settings.augment_on)
        parts = list(chain.from_iterable(steps))
        return load(dataset, parts, workers=settings.workers, pin=settings.device.type == "cuda")

    def _fetch(self, loaded: Iterator[Batch], count: int, done: PartialEpoch) -> Iterator[Batch]:
        """The parts of a step, each as soon as it is there. A wish to stop ends the wait for the first only."""
        take = partial(next, loaded)
        for used in range(count):
            try:
                part = take() if used else self.wait_for(take)
            finally:
                if done.random:
                    # Inside an epoch torch's generators go on where they were, but only once the loader has drawn from
                    # them what it draws at its start.
                    restore_random_state(done.random[self.settings.world.rank])
                    done.random = ()
            self.between_steps = used + 1 == count
            self.report_broken(part.broken)
            yield part

    def _read_losses(self) -> float | None:
        """The mean loss of the latest step, after a look at every one since the last time: it waits for the device.

        Raises:
            ZooError: a loss is not finite; names step and pictures.
        """
        if not self.unread:
            return None
        values = torch.stack([loss_sum for _, _, loss_sum, _ in self.unread]).tolist()
        for value, (where, indices, _, _) in zip(values, self.unread, strict=True):
            if not math.isfinite(value):
                named = ", ".join(self.train_set.describe(index) for index in indices[:NAMED_PICTURES])
                more = f" and {len(indices) - NAMED_PICTURES} more" if len(indices) > NAMED_PICTURES else ""
                raise ZooError(f"The loss became {value} in {where}, with {named}{more}.", DIVERGED_HINT)
        latest: float = values[-1] / self.unread[-1][3]
        self.unread.clear()
        return latest

    def _check_weights(self, where: str) -> None:
        """A state must be worth going on from: finite losses do not see what the last step did to the weights."""
        largest = torch.stack([tensor.abs().max() for tensor in self.run.model.parameters()]).max()
        if not torch.isfinite(largest):
            raise ZooError(f"Weights became {largest.item()} {where}.", DIVERGED_HINT)


def _parts(batch: list[int], count: int) -> list[list[int]]:
    """A batch in `count` equal parts; a data set smaller than a batch may have fewer and smaller ones."""
    size = -(-len(batch) // count)
    return [batch[start : start + size] for start in range(0, len(batch), size)]
