"""Owns the dry run: every stage's batch is tried on the device before the first step; it does not train the run.

A progressive run needs most memory in its last stage, hours after the first. It is better to know before.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import partial

import numpy as np
import torch

from train.learn.job import Job
from train.learn.run import Run, enter_stage, start_run
from train.learn.step import train_step
from train.learn.throughput import noise
from train.processes.distributed import ALONE, gather
from train.progressive.recipe import Recipe, TrainingStage
from zoo.errors import ZooError
from zoo.wording import joined

Attempt = Callable[[TrainingStage], bool]


def fit_to_memory(job: Job, *, auto_batch: bool) -> Recipe:
    """Try every stage on the device with a network of its own, which is dropped afterwards.

    Returns:
        The job's recipe; with `auto_batch`, with the accumulation that fits every process's device.

    Raises:
        ZooError: as `choose_accumulation`.
    """
    # Never compiled: each attempt would compile for a minute, and the eager step needs no less memory.
    plain = replace(job, settings=replace(job.settings, compile=False, world=ALONE))
    run = start_run(plain)
    attempt, recomputes = partial(fits, run, plain), job.settings.checkpoint_activations
    chosen = choose_accumulation(job.recipe, attempt, auto_batch=auto_batch, recomputes=recomputes)
    return smallest_parts(gather(job.settings.world, chosen))


def smallest_parts(recipes: Sequence[Recipe]) -> Recipe:
    """What fits every process: each stage in the parts of the process that has the least memory.

    The parts must be the same everywhere: in each of them the processes' batch norms wait for one another.
    """
    stages = zip(*(recipe.stages for recipe in recipes), strict=True)
    return replace(recipes[0], stages=tuple(max(same, key=lambda stage: stage.accumulate) for same in stages))


def fits(run: Run, job: Job, stage: TrainingStage) -> bool:
    """Whether one part of a stage's batch goes forward, backward and through the optimizer."""
    on_gpu = job.settings.device.type == "cuda"
    try:
        enter_stage(run, stage, job.settings)
        part = noise(job, stage)
        for _ in range(2):  # the optimizer's state exists only after its first step
            train_step(run, job, stage, [part], np.random.default_rng(0))
        if on_gpu:
            torch.cuda.synchronize()
    except torch.OutOfMemoryError:
        return False
    finally:
        run.optimizer.zero_grad(set_to_none=True)
        if on_gpu:
            torch.cuda.empty_cache()
    return True


def choose_accumulation(recipe: Recipe, attempt: Attempt, *, auto_batch: bool, recomputes: bool = False) -> Recipe:
    """Find, for each stage that does not fit as it is, into how many parts its batch must be taken.

    The largest parts are tried first; a stage is not tried if its size and part are below those of one that fits.

    Args:
        recomputes: activations are checkpointed already, so that it is no remedy to propose.

    Raises:
        ZooError: a stage does not fit, and `auto_batch` is off: the hint has the flags that make it fit. Or not even
            two pictures fit, or the batch has no equal parts that do.
    """
    stages = list(recipe.stages)
    fitting: list[TrainingStage] = []
    changed: dict[int, TrainingStage] = {}
    for index in sorted(range(len(stages)), key=lambda index: -stages[index].part_size * stages[index].image_size ** 2):
        stage = stages[index]
        if not any(_covers(known, stage) for known in fitting) and not attempt(stage):
            stage = changed[index] = stages[index] = _accumulate(stage, index + 1, attempt, recomputes=recomputes)
        fitting.append(stage)
    if changed and not auto_batch:
        also = "" if recomputes else " --checkpoint-activations may do, too, with the batch whole."
        raise ZooError(_describe(recipe, changed), f"{_flags(changed)} does; --auto-batch takes it.{also}")
    return replace(recipe, stages=tuple(stages))


def _covers(known: TrainingStage, stage: TrainingStage) -> bool:
    larger = known.image_size >= stage.image_size and known.part_size >= stage.part_size
    return larger and (stage.freeze_backbone or not known.freeze_backbone)


def _accumulate(stage: TrainingStage, number: int, attempt: Attempt, *, recomputes: bool) -> TrainingStage:
    largest = largest_part(stage, attempt)
    if largest < 2:
        raise ZooError(
            f"Stage {number}: not even two pictures of {stage.image_size} px fit into the device's memory.",
            f"Use {'' if recomputes else '--checkpoint-activations, '}a smaller --image-size, a smaller network, or "
            "--precision bf16.",
        )
    for count in range(-(-stage.batch_size // largest), stage.batch_size // 2 + 1):
        if stage.batch_size % count == 0:
            return replace(stage, accumulate=count)
    raise ZooError(
        f"Stage {number} ({stage.image_size} px): {largest} pictures fit at once, and the batch of {stage.batch_size} "
        "has no equal parts of so few.",
        f"--set stages.{number}.batch_size={largest}, or a batch that is a multiple of it.",
    )


def largest_part(stage: TrainingStage, attempt: Attempt) -> int:
    """The most pictures of a stage that fit at once, below its own part, by bisection; 1 if not even two fit."""
    fitting, failing = 1, stage.part_size
    while failing - fitting > 1:
        middle = (fitting + failing) // 2
        if attempt(replace(stage, batch_size=middle, accumulate=1)):
            fitting = middle
        else:
            failing = middle
    return fitting


def _describe(recipe: Recipe, changed: dict[int, TrainingStage]) -> str:
    which: Sequence[str] = [
        f"stage {index + 1} ({stage.image_size} px, {recipe.stages[index].part_size} pictures at once)"
        for index, stage in sorted(changed.items())
    ]
    return f"This run would end without memory: {joined(which)} do{'es' * (len(which) == 1)} not fit the device."


def _flags(changed: dict[int, TrainingStage]) -> str:
    return " ".join(
        f"--set stages.{index + 1}.accumulate={stage.accumulate}" for index, stage in sorted(changed.items())
    )
