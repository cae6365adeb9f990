"""Owns the learning-rate range test of a run: the steps it takes, and that they leave no trace in the run.

What its curve says is `train/progressive/rate_range.py`'s. It trains as the first epoch will, in the first stage, from
the weights that are there then: after a head start, with its classifier.
"""

from __future__ import annotations

import time
from collections.abc import Generator, Iterator
from contextlib import closing, contextmanager
from copy import deepcopy
from dataclasses import replace
from functools import partial
from itertools import count

import numpy as np
import torch

from train.input.loader import Batch
from train.learn.feed import batches_of, load_parts, own_parts
from train.learn.job import Job, with_recipe
from train.learn.run import Run, enter_stage
from train.learn.state import keep_random_state, restore_random_state
from train.learn.step import train_step
from train.processes.distributed import agreed, sum_over
from train.processes.stopping import Interrupted, StopRequest
from train.progressive.rate_range import RangeTest, choose_rate, has_exploded, range_rates, range_steps
from train.progressive.recipe import TrainingStage
from train.progressive.schedule import batch_factor
from zoo.errors import DataError

# Passes over the pictures in an order and with crops that no epoch of a run has.
FIRST_PASS = 1_000_000


def find_rate(run: Run, job: Job, stop: StopRequest) -> RangeTest | None:
    """Choose the peak learning rate of a run that has made no step; None if there was a wish to stop.

    The run is left as it was, to the bit. Every process of a run comes to the same result: the losses are those of all.

    Raises:
        DataError: not one picture could be decoded. WorkerError: as `load`.
    """
    began = time.monotonic()
    own, world = job.recipe.learning_rate, job.settings.world
    steps = range_steps(len(job.train_set), job.recipe.stages[0].batch_size, world.size)
    with _put_back(run, job.settings.device):
        try:
            losses = _losses(run, job, steps, stop)
        except Interrupted:
            return None
    if losses is None:
        return None
    if not losses:
        raise DataError("Not one training picture could be decoded.", "The files are damaged, or not pictures.")
    return choose_rate(losses, own, steps, seconds=time.monotonic() - began)


def with_rate(job: Job, found: RangeTest) -> Job:
    """The job at the rate that was found."""
    return with_recipe(job, replace(job.recipe, learning_rate=found.rate))


def _losses(run: Run, job: Job, steps: int, stop: StopRequest) -> list[float] | None:
    """Train at rising rates; the mean loss of each step until they explode. None if there was a wish to stop."""
    stage, settings, world = job.recipe.stages[0], job.settings, job.settings.world
    # Eager: a graph for so few steps would take longer to compile than they take.
    enter_stage(run, stage, replace(settings, compile=False))
    torch.manual_seed(settings.seed * 100_003 + FIRST_PASS + 1_000_000_007 * world.rank)
    factor = batch_factor(job.recipe, stage.batch_size * world.size)
    rates = range_rates(job.recipe.learning_rate, steps)
    losses: list[float] = []
    with closing(_batches(job, stage)) as batches:
        for number in range(2 * steps):  # a batch without two readable pictures is no step
            if len(losses) == steps or (losses and has_exploded(losses, steps)):
                break
            if agreed(world, due=False, wish=stop.wish, device=settings.device)[1] is not None:
                return None
            take = partial(next, batches)
            parts = stop.wait_for(take) if world.is_alone else take()
            for group in run.optimizer.param_groups:
                group["lr"] = group["lr_scale"] * rates[len(losses)] * factor
            rng = np.random.default_rng((settings.seed, FIRST_PASS, 7, number, *((world.rank,) if world.rank else ())))
            loss_sum, _, seen = train_step(run, job, stage, parts, rng, num_parts=len(parts))
            totals = torch.stack([loss_sum, loss_sum.new_tensor(seen)])
            sum_over(world, totals)
            total, pictures = totals.tolist()  # host–device synchronisation: the next rate depends on this loss
            if pictures:
                losses.append(total / pictures)
    return losses


def _batches(job: Job, stage: TrainingStage) -> Generator[list[Batch], None, None]:
    """The parts of batches as an epoch of the stage has them, pass after pass."""
    for number in count(FIRST_PASS):
        steps = own_parts(job, stage, batches_of(job, stage, number))
        with closing(load_parts(job, stage, number, steps)) as loaded:
            for own in steps:
                yield [next(loaded) for _ in own]


@contextmanager
def _put_back(run: Run, device: torch.device) -> Iterator[None]:
    """Leave a run that has made no step as it is, to the bit: weights, norms, average, optimizer, random numbers.

    What is kept of the weights meanwhile is in the host's memory, so that a GPU needs no more than in training.
    """
    models = run.model, run.average.model
    weights = [{name: value.to("cpu", copy=True) for name, value in model.state_dict().items()} for model in models]
    optimizer, scaler = deepcopy(run.optimizer.state_dict()), deepcopy(run.scaler.state_dict())
    before = run.step, run.first_loss, run.part_sizes
    random = keep_random_state(device)
    try:
        yield
    finally:
        for model, kept in zip(models, weights, strict=True):
            model.load_state_dict(kept)
        run.optimizer.zero_grad(set_to_none=True)
        run.optimizer.load_state_dict(optimizer)
        run.scaler.load_state_dict(scaler)
        run.step, run.first_loss, run.part_sizes = before
        restore_random_state(random)
