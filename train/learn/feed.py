"""Owns how an epoch's pictures come to a run's steps: its batches, this process's parts of them, and their loading."""

from __future__ import annotations

from collections.abc import Generator, Sequence
from itertools import chain

import numpy as np

from train.input.decoders import load
from train.input.loader import Augmented, Batch
from train.input.order import Batches, epoch_draws
from train.learn.job import Job
from train.processes.distributed import share_of
from train.progressive.recipe import TrainingStage

Parts = list[list[int]]  # of a batch, as draws


def batches_of(job: Job, stage: TrainingStage, epoch: int, portion: tuple[int, int] | None = None) -> Batches:
    """The batches of an epoch, of all processes together; `portion` as `epoch_draws` has it."""
    settings = job.settings
    return epoch_draws(
        job.train_set,
        job.recipe,
        stage,
        seed=settings.seed,
        epoch=epoch,
        processes=settings.world.size,
        portion=portion,
    )


def own_parts(job: Job, stage: TrainingStage, batches: Batches) -> list[Parts]:
    """This process's parts of each batch."""
    return [_parts_of(share_of(batch, job.settings.world), stage.accumulate) for batch in batches]


def load_parts(job: Job, stage: TrainingStage, epoch: int, steps: Sequence[Parts]) -> Generator[Batch, None, None]:
    """The parts of all steps, one after the other, as `load` makes them."""
    settings = job.settings
    dataset = Augmented(
        job.train_set, job.recipe, stage, settings.seed, epoch, settings.augment_on, job.preprocessing.channels
    )
    return load(dataset, list(chain.from_iterable(steps)), workers=settings.workers, pin=settings.pin)


def _parts_of(batch: list[int], count: int) -> Parts:
    """A batch in `count` parts that differ by a picture at most; fewer, if some would be of a single picture."""
    return [part.tolist() for part in np.array_split(np.array(batch), max(1, min(count, len(batch) // 2)))]
