"""Owns how fast this machine trains a job: a few real steps at two sizes, in seconds; what fits a time is others'."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import replace
from functools import partial

import numpy as np
import torch

from train.input.loader import Augmented, Batch, Item, Prepared, collate
from train.learn.job import Job
from train.learn.run import Run, enter_stage, start_run
from train.learn.step import autocast, normalize, train_step
from train.processes.distributed import ALONE
from train.progressive.balance import imbalance_of
from train.progressive.budget import Amount, Pace, features_seen
from train.progressive.recipe import TrainingStage
from zoo.errors import DataError, ZooError
from zoo.machine import usable_processors

# A processor takes pictures one after the other, so few large ones show what many cost: as many as have the pixels of
# four at 224 px. Of small ones it gets the whole batch, as a GPU always does: there a step's own cost counts.
PIXELS = 4 * 224**2
LEAST = 4
SMALLER = 0.6
# Each thing is timed this often at least, and again while that takes little: a machine that is busy for a moment must
# not look slow.
LEAST_TIMES, MOST_TIMES, ENOUGH_S = 2, 8, 0.5


def measure_pace(job: Job) -> Pace:
    """Time decoding, training steps and validation of a job's own pictures at two sizes; the job is not changed.

    A processor that trains has less time to decode, so that both add up; a GPU and its decoders work side by side.

    Raises:
        DataError: the pictures that were tried cannot be decoded.
    """
    plain = replace(job, settings=replace(job.settings, compile=False, world=ALONE))
    run = start_run(plain)
    largest = job.recipe.largest_size
    sizes = (max(16, round(SMALLER * largest)), largest)
    ratio = job.recipe.test_size / largest
    training = [_training_pace(run, plain, size) for size in sizes]
    tested = [round(size * ratio) for size in sizes]
    validation = [_validation_pace(run, plain, size) for size in tested]
    return Pace(
        **dict(zip(("train_s", "train_s_per_px"), _line(sizes, training), strict=True)),
        **dict(zip(("validate_s", "validate_s_per_px"), _line(tested, validation), strict=True)),
    )


def amount_of(job: Job) -> Amount:
    """How many pictures the job's run goes through."""
    pictures = job.train_set
    features = features_seen(len(pictures), flip_keeps_class=pictures.flip_keeps_class) if job.start else 0
    test = len(job.test_set) if job.test_set else 0
    return Amount(
        classes=len(job.classes),
        train=len(pictures),
        validate=len(job.val_set),
        test=test,
        features=features,
        imbalance=imbalance_of(pictures, job.val_set if job.fold else None),
    )


def _line(sizes: tuple[int, ...] | list[int], seconds: list[float]) -> tuple[float, float]:
    """The constant and the part in px² that explain seconds a picture at two sizes; neither is negative."""
    small, large = (size**2 for size in sizes)
    slope = max(0.0, (seconds[1] - seconds[0]) / max(large - small, 1))
    constant = seconds[1] - slope * large
    return (constant, slope) if constant >= 0 else (0.0, seconds[1] / large)


def _training_pace(run: Run, job: Job, size: int) -> float:
    """Seconds a picture: decoded and augmented, then a step's share."""
    stage = replace(job.recipe.stages[-1], image_size=size, accumulate=1)
    on_gpu = job.settings.device.type == "cuda"
    count = max(2, min(_batch(stage.batch_size, size, on_gpu), len(job.train_set)))
    stage = replace(stage, batch_size=count)
    chosen = np.random.default_rng(0).permutation(len(job.train_set))[:count].tolist()
    seed, augment_on = job.settings.seed, job.settings.augment_on
    dataset = Augmented(job.train_set, job.recipe, stage, seed, 0, augment_on, job.preprocessing.channels)
    decode_s, batch = _decoding(lambda: dataset.__getitems__(chosen), len(chosen))
    enter_stage(run, stage, job.settings)
    step = partial(_step, run, job, stage, batch)
    step()  # the first one is slower: the optimizer makes its state
    step_s = _fastest(step, on_gpu=on_gpu) / len(batch.labels)
    return _together(job, decode_s, step_s)


def _validation_pace(run: Run, job: Job, size: int) -> float:
    on_gpu = job.settings.device.type == "cuda"
    count = min(_batch(64, size, on_gpu), len(job.val_set))
    dataset = Prepared(job.val_set, job.preprocessing.at(size))
    decode_s, batch = _decoding(lambda: dataset.__getitems__(list(range(count))), count)

    def answer() -> None:
        with torch.inference_mode(), autocast(job.settings):
            run.average.model(normalize(batch.pictures.to(job.settings.device), job.preprocessing))

    answer()
    return _together(job, decode_s, _fastest(answer, on_gpu=on_gpu) / len(batch.labels))


def _batch(whole: int, size: int, on_gpu: bool) -> int:
    """How many pictures of a size are tried at once, of a whole batch."""
    return whole if on_gpu else min(whole, max(LEAST, PIXELS // size**2))


def _step(run: Run, job: Job, stage: TrainingStage, batch: Batch) -> None:
    train_step(run, job, stage, [batch], np.random.default_rng(0))


def _decoding(get: Callable[[], list[Item | str] | ZooError], count: int) -> tuple[float, Batch]:
    """Seconds a picture for one process, and the batch; the first time does not count: files are not in memory yet."""
    batch = collate(get())
    if isinstance(batch, ZooError):
        raise batch
    if len(batch.labels) < 2:
        raise DataError("The first pictures cannot be decoded.", "`zoo data check` names the broken ones.")
    return _fastest(lambda: collate(get())) / count, batch


def _fastest(work: Callable[[], object], *, on_gpu: bool = False) -> float:
    """Seconds of the fastest of a few calls: what else the machine does is not the run's pace."""
    taken: list[float] = []
    while len(taken) < LEAST_TIMES or (len(taken) < MOST_TIMES and sum(taken) < ENOUGH_S):
        began = time.perf_counter()
        work()
        if on_gpu:
            torch.cuda.synchronize()
        taken.append(time.perf_counter() - began)
    return min(taken)


def _together(job: Job, decode_s: float, step_s: float) -> float:
    """Seconds a picture of decoding and computing, by who does which."""
    workers = job.settings.workers
    if job.settings.device.type == "cuda":
        return max(step_s, decode_s / workers) if workers else step_s + decode_s
    return step_s + decode_s / (min(workers, usable_processors()) if workers else 1)
