"""Owns the training benchmark: real optimizer steps at every stage's size, timed; it keeps no weights."""

from __future__ import annotations

import time
from collections.abc import Iterator
from dataclasses import asdict, replace
from itertools import pairwise
from typing import Any

import numpy as np
import torch
from rich.console import Console

from train.augment.host import draw_augmentation
from train.input.loader import Batch
from train.learn.run import Run, Settings, enter_stage, start_run
from train.learn.step import train_step
from train.progressive.recipe import Recipe, TrainingStage
from zoo.errors import ZooError
from zoo.machine import processor_name
from zoo.model.spec import Variant
from zoo.model.variants import VARIANTS
from zoo.results import Result, Subject, Summary, measured_on, row_sha256, summarize

# A tenth of the samples are warm-up, three at least: cuDNN picks its algorithms, allocators fill.
WARMUP_STEPS = 3


def measure_training(
    variant: Variant, recipe: Recipe, settings: Settings, *, steps: int, num_classes: int, console: Console
) -> Result:
    """Time `steps` optimizer steps at every distinct stage of a recipe, on pictures already in memory.

    What is timed: transfer, flip and RandAugment where they are the device's, normalisation, mixing, forward, backward,
    clipping, the recipe's optimizer and the weight average; not decoding, which is another benchmark's. Pictures are
    uint8 noise: convolutions take the same time for any values, and the loss of a few steps does not matter.

    Raises:
        ZooError: the device runs out of memory; names the stage and the remedy.
    """
    run = start_run(variant, tuple(map(str, range(num_classes))), recipe, settings)
    rows = []
    for index, stage in enumerate(recipe.stages, start=1):
        console.print(f"stage {index}/{len(recipe.stages)}: {stage.image_size} px, batch {stage.batch_size}")
        rows.append({"stage": index} | _measure_stage(run, variant, recipe, stage, settings, steps))
    is_gpu = settings.device.type == "cuda"
    compiled = "-compiled" if settings.compile else ""
    subject = Subject(
        name=f"{variant.id}-{recipe.name}-{recipe.largest_size}px-augmented-on-{settings.augment_on}{compiled}",
        batch_sizes=tuple(dict.fromkeys(stage.batch_size for stage in recipe.stages)),
        precision=settings.precision,
        threads=None if is_gpu else torch.get_num_threads(),
        sha256=None if variant in VARIANTS else row_sha256(variant),
    )
    return Result(
        kind="train",
        name=f"{variant.id}-{recipe.name}-{settings.precision}",
        environment=measured_on(torch.cuda.get_device_name() if is_gpu else processor_name()),
        settings={
            "subjects": [subject.to_dict()],
            "model": variant.id,
            "recipe": recipe.name,
            "precision": settings.precision,
            "threads": subject.threads,
            "memory_format": "channels_last",
            "compiled": settings.compile,
            "augment_on": settings.augment_on,
            "optimizer": recipe.optimizer,
            "steps": steps,
            "warmup_steps": WARMUP_STEPS,
        },
        data={"rows": rows},
    )


def _measure_stage(
    run: Run, variant: Variant, recipe: Recipe, stage: TrainingStage, settings: Settings, steps: int
) -> dict[str, Any]:
    enter_stage(run, stage, settings)
    parts = [noise(recipe, stage, settings, run.model.num_classes)] * stage.accumulate
    rng = np.random.default_rng(0)
    preprocessing = variant.preprocessing.at(stage.image_size)

    def step() -> None:
        train_step(run, parts, recipe, stage, preprocessing, settings, rng, num_parts=len(parts))

    try:
        for _ in range(WARMUP_STEPS):
            step()
        samples = list(_time_on_gpu(step, steps) if settings.device.type == "cuda" else _time_on_cpu(step, steps))
    except torch.OutOfMemoryError as error:
        raise ZooError(
            f"Batch {stage.batch_size} at {stage.image_size} px does not fit into the GPU's memory.",
            "Use a smaller --batch-size.",
        ) from error
    summary: Summary = summarize(samples)
    memory = torch.cuda.max_memory_allocated() if settings.device.type == "cuda" else None
    return asdict(stage) | {
        "pictures_per_second": 1000.0 * stage.batch_size / summary.p50_ms,
        "ms_per_step": summary.to_dict(),
        "peak_memory_bytes": memory,
    }


def noise(recipe: Recipe, stage: TrainingStage, settings: Settings, num_classes: int) -> Batch:
    """One part of a stage's batch, of uint8 noise with random labels; to be augmented where the settings say so."""
    rng = np.random.default_rng(0)
    shape = (stage.part_size, stage.image_size, stage.image_size, 3)
    pictures = torch.from_numpy(rng.integers(0, 256, shape, dtype=np.uint8))
    labels = torch.from_numpy(rng.integers(0, num_classes, stage.part_size))
    batch = Batch(pictures, labels, (), torch.arange(stage.part_size))
    if settings.augment_on == "device":
        magnitude, num_layers = stage.randaugment_magnitude, recipe.randaugment_layers
        draws = [
            draw_augmentation(rng, flips=True, magnitude=magnitude, num_layers=num_layers)
            for _ in range(stage.part_size)
        ]
        batch = replace(batch, draws=torch.from_numpy(np.stack(draws)))
    return batch.pin_memory() if settings.device.type == "cuda" else batch


def _time_on_cpu(step: Any, steps: int) -> Iterator[float]:
    for _ in range(steps):
        started = time.perf_counter_ns()
        step()
        yield (time.perf_counter_ns() - started) / 1e6


def _time_on_gpu(step: Any, steps: int) -> Iterator[float]:
    """Time between events at the steps' borders: the host runs ahead as it does in training."""
    borders = [torch.cuda.Event(enable_timing=True) for _ in range(steps + 1)]  # type: ignore[no-untyped-call]
    torch.cuda.reset_peak_memory_stats()
    borders[0].record()
    for border in borders[1:]:
        step()
        border.record()
    torch.cuda.synchronize()  # the one host–device synchronisation: after the last step
    for before, after in pairwise(borders):
        yield before.elapsed_time(after)
