"""Owns the training benchmark: real optimizer steps at every stage's size, timed; it saves no weights."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from functools import partial
from itertools import pairwise
from typing import Any

import numpy as np
import torch
from rich.console import Console

from train.augment.host import draw_augmentation
from train.input.loader import Batch
from train.learn.job import Job
from train.learn.run import Run, enter_stage, start_run
from train.learn.step import train_step
from train.options import BenchTrainOptions
from train.processes.distributed import ALONE
from train.progressive.overrides import choose_recipe
from train.progressive.recipe import Recipe, TrainingStage
from train.settings import Settings, choose_settings
from zoo.data.pictures import Pictures
from zoo.errors import ZooError
from zoo.machine import processor_name
from zoo.model.spec import Variant
from zoo.model.variants import VARIANTS
from zoo.results import Result, Subject, measured_on, row_sha256, summarize
from zoo.weights.resolve import find_model_variant

# In the first steps cuDNN picks its algorithms and allocators fill.
WARMUP_STEPS = 3
NUM_CLASSES = 1000


def measure_training(options: BenchTrainOptions, *, console: Console | None = None) -> Result:
    """Time optimizer steps at every stage of a recipe, on pictures already in memory, in `NUM_CLASSES` classes.

    What is timed: transfer, flip and RandAugment where they are the device's, normalisation, mixing, forward, backward,
    clipping, the recipe's optimizer and the weight average; not decoding, which is another benchmark's. Pictures are
    uint8 noise: convolutions take the same time for any values, and the loss of a few steps does not matter.

    Raises:
        ZooError: as `choose_recipe` and `choose_settings`, or the device runs out of memory; names the stage and the
        remedy.
    """
    variant = find_model_variant(options.model)
    recipe = choose_recipe(options.training, variant)
    settings = choose_settings(options.training, no_pictures(NUM_CLASSES), ALONE)
    job = noise_job(variant, recipe, settings, NUM_CLASSES)
    run = start_run(job)
    rows = []
    for index, stage in enumerate(recipe.stages, start=1):
        if console:
            console.print(f"stage {index}/{len(recipe.stages)}: {stage.image_size} px, batch {stage.batch_size}")
        rows.append({"stage": index} | _measure_stage(run, job, stage, options.steps))
    on_gpu = settings.device.type == "cuda"
    compiled = "-compiled" if settings.compile else "-checkpointed" if settings.checkpoint_activations else ""
    subject = Subject(
        name=f"{variant.id}-{recipe.name}-{recipe.largest_size}px-augmented-on-{settings.augment_on}{compiled}",
        batch_sizes=tuple(dict.fromkeys(stage.batch_size for stage in recipe.stages)),
        precision=settings.precision,
        threads=None if on_gpu else torch.get_num_threads(),
        sha256=None if variant in VARIANTS else row_sha256(variant),
    )
    return Result(
        kind="train",
        name=f"{variant.id}-{recipe.name}-{settings.precision}",
        environment=measured_on(settings.device_name if on_gpu else processor_name()),
        settings={
            "subjects": [subject.to_dict()],
            "model": variant.id,
            "recipe": recipe.name,
            "precision": settings.precision,
            "threads": subject.threads,
            "memory_format": "channels_last",
            "compiled": settings.compile,
            "checkpoint_activations": settings.checkpoint_activations,
            "augment_on": settings.augment_on,
            "optimizer": recipe.optimizer,
            "steps": options.steps,
            "warmup_steps": WARMUP_STEPS,
        },
        data={"rows": rows},
    )


def _measure_stage(run: Run, job: Job, stage: TrainingStage, steps: int) -> dict[str, Any]:
    on_gpu = job.settings.device.type == "cuda"
    enter_stage(run, stage, job.settings)
    parts = [noise(job, stage)] * stage.accumulate
    step = partial(train_step, run, job, stage, parts, np.random.default_rng(0), num_parts=len(parts))
    try:
        for _ in range(WARMUP_STEPS):
            step()
        samples = list(_time_on_gpu(step, steps) if on_gpu else _time_on_cpu(step, steps))
    except torch.OutOfMemoryError as error:
        raise ZooError(
            f"Batch {stage.batch_size} at {stage.image_size} px does not fit into the GPU's memory.",
            "Use a smaller --batch-size.",
        ) from error
    summary = summarize(samples)
    return stage.to_dict() | {
        "pictures_per_second": 1000.0 * stage.batch_size / summary.p50_ms,
        "ms_per_step": summary.to_dict(),
        "peak_memory_bytes": torch.cuda.max_memory_allocated() if on_gpu else None,
    }


def no_pictures(num_classes: int) -> Pictures:
    """A set of no picture, of so many classes."""
    return Pictures("noise", tuple(map(str, range(num_classes))), (), np.empty(0, np.int64))


def noise_job(variant: Variant, recipe: Recipe, settings: Settings, num_classes: int) -> Job:
    """A job whose steps are made on `noise`."""
    nothing = no_pictures(num_classes)
    return Job(
        variant=variant,
        recipe=recipe,
        data=nothing.name,
        train_set=nothing,
        val_set=nothing,
        preprocessing=variant.preprocessing,
        settings=settings,
    )


def noise(job: Job, stage: TrainingStage) -> Batch:
    """One part of a stage's batch: uint8 noise with random labels, and what is left to draw if the device augments."""
    rng = np.random.default_rng(0)
    shape = (stage.part_size, stage.image_size, stage.image_size, job.preprocessing.channels)
    pictures = torch.from_numpy(rng.integers(0, 256, shape, dtype=np.uint8))
    labels = torch.from_numpy(rng.integers(0, len(job.classes), stage.part_size))
    batch = Batch(pictures, labels, (), torch.arange(stage.part_size))
    if job.settings.augment_on == "device":
        magnitude, num_layers = stage.randaugment_magnitude, job.recipe.randaugment_layers
        draws = [
            draw_augmentation(rng, flips=True, magnitude=magnitude, num_layers=num_layers)
            for _ in range(stage.part_size)
        ]
        batch = replace(batch, draws=torch.from_numpy(np.stack(draws)))
    return batch.pin_memory() if job.settings.pin else batch


def _time_on_cpu(step: Callable[[], object], steps: int) -> Iterator[float]:
    for _ in range(steps):
        started = time.perf_counter_ns()
        step()
        yield (time.perf_counter_ns() - started) / 1e6


def _time_on_gpu(step: Callable[[], object], steps: int) -> Iterator[float]:
    """Time between events at the borders of steps: the host runs ahead, as it does in training."""
    borders = [torch.cuda.Event(enable_timing=True) for _ in range(steps + 1)]  # type: ignore[no-untyped-call]
    torch.cuda.reset_peak_memory_stats()
    borders[0].record()
    for border in borders[1:]:
        step()
        border.record()
    torch.cuda.synchronize()  # the one host–device synchronisation: after the last step
    for before, after in pairwise(borders):
        yield before.elapsed_time(after)
