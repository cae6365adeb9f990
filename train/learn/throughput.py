"""Owns the training benchmark: real optimizer steps at every stage's size, timed; it saves no weights."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import partial
from itertools import cycle, pairwise
from typing import Any

import numpy as np
import torch
from rich.console import Console

from train.augment.host import draw_augmentation
from train.input.loader import Batch
from train.learn.job import Job
from train.learn.run import Run, enter_stage, start_run
from train.learn.step import train_step
from train.learn.twin import load_timm, twin_of
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

    With sizes or batches of its own it is every size with every batch instead, regularised as the last stage is; what
    does not fit into a GPU's memory is told then, as in the paper's Table 2. With `beside_timm` timm's network makes
    the same steps in turn.

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
    stages = grid_of(recipe.stages[-1], options) if options.is_grid else recipe.stages
    job = noise_job(variant, recipe, settings, NUM_CLASSES)
    if options.beside_timm:
        load_timm(variant)
    run = start_run(job)
    rows, too_large = [], list[dict[str, int]]()
    for index, stage in enumerate(stages, start=1):
        if console:
            console.print(f"stage {index}/{len(stages)}: {stage.image_size} px, batch {stage.batch_size}")
        try:
            rows.append({"stage": index} | _measure_stage(run, job, stage, options))
        except torch.OutOfMemoryError as error:
            if not options.is_grid:
                raise ZooError(
                    f"Batch {stage.batch_size} at {stage.image_size} px does not fit into the GPU's memory.",
                    "Use a smaller --batch-size.",
                ) from error
            too_large.append({"image_size": stage.image_size, "batch_size": stage.batch_size})
    if not rows:
        raise ZooError("No size and batch fits into the GPU's memory.", "Use a smaller --at-size or --at-batch.")
    on_gpu = settings.device.type == "cuda"
    grid = f"{'-'.join(map(str, dict.fromkeys(stage.image_size for stage in stages)))}px"
    size = grid if options.is_grid else f"{recipe.largest_size}px"
    compiled = "-compiled" if settings.compile else "-checkpointed" if settings.checkpoint_activations else ""
    subject = Subject(
        name=f"{variant.id}-{recipe.name}-{size}-augmented-on-{settings.augment_on}{compiled}",
        batch_sizes=tuple(dict.fromkeys(stage.batch_size for stage in stages)),
        precision=settings.precision,
        threads=None if on_gpu else torch.get_num_threads(),
        sha256=None if variant in VARIANTS else row_sha256(variant),
        way="beside timm" if options.beside_timm else None,
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
        data={"rows": rows, "out_of_memory": too_large},
    )


def grid_of(stage: TrainingStage, options: BenchTrainOptions) -> list[TrainingStage]:
    """A stage at every size with every batch asked for, the least work first: so each peak of memory is its own."""
    sizes, batches = options.at_sizes or (stage.image_size,), options.at_batches or (stage.batch_size,)
    places = {(size, batch) for size in sizes for batch in batches}
    return [
        replace(stage, image_size=size, batch_size=batch, accumulate=1)
        for size, batch in sorted(places, key=lambda place: (place[0] ** 2 * place[1], place))
    ]


def _measure_stage(run: Run, job: Job, stage: TrainingStage, options: BenchTrainOptions) -> dict[str, Any]:
    on_gpu = job.settings.device.type == "cuda"
    enter_stage(run, stage, job.settings)
    step = _warm_step(run, job, stage)
    peak = torch.cuda.max_memory_allocated() if on_gpu else None
    steps = [step, _warm_step(twin_of(run, job, stage), job, stage)] if options.beside_timm else [step]
    ours, *theirs = _time_on_gpu(steps, options.steps) if on_gpu else _time_on_cpu(steps, options.steps)
    summary = summarize(ours)
    row = stage.to_dict() | {
        "pictures_per_second": 1000.0 * stage.batch_size / summary.p50_ms,
        "ms_per_step": summary.to_dict(),
        "samples_ms": ours,
        "peak_memory_bytes": peak,
        "peak_process_bytes": None if on_gpu else peak_bytes(),
    }
    if not theirs:
        return row
    _, name = load_timm(job.variant)
    return row | {"timm": {"network": name, "ms_per_step": summarize(theirs[0]).to_dict(), "samples_ms": theirs[0]}}


def _warm_step(run: Run, job: Job, stage: TrainingStage) -> Callable[[], object]:
    """A step on noise that was made a few times; on a GPU the peak of memory is that of these times."""
    parts = [noise(job, stage)] * stage.accumulate
    step = partial(train_step, run, job, stage, parts, np.random.default_rng(0), num_parts=len(parts))
    if job.settings.device.type == "cuda":
        torch.cuda.reset_peak_memory_stats()
    for _ in range(WARMUP_STEPS):
        step()
    return step


def peak_bytes() -> int | None:
    """The most memory this process has had so far; None where the system does not tell."""
    try:
        import resource
    except ImportError:  # Windows
        return None
    # Bytes on macOS, KiB elsewhere.
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024)


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


def _time_on_cpu(steps: Sequence[Callable[[], object]], times: int) -> list[list[float]]:
    """Milliseconds of each step, one list for each of the steps that take turns."""
    samples: list[list[float]] = [[] for _ in steps]
    for _ in range(times):
        for step, of_step in zip(steps, samples, strict=True):
            started = time.perf_counter_ns()
            step()
            of_step.append((time.perf_counter_ns() - started) / 1e6)
    return samples


def _time_on_gpu(steps: Sequence[Callable[[], object]], times: int) -> list[list[float]]:
    """The same between events at the borders of steps: the host runs ahead, as it does in training."""
    borders = [torch.cuda.Event(enable_timing=True) for _ in range(len(steps) * times + 1)]  # type: ignore[no-untyped-call]
    borders[0].record()
    for border, step in zip(borders[1:], cycle(steps), strict=False):
        step()
        border.record()
    torch.cuda.synchronize()  # the one host–device synchronisation: after the last step
    taken = [before.elapsed_time(after) for before, after in pairwise(borders)]
    return [taken[place :: len(steps)] for place in range(len(steps))]
