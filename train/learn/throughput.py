"""Owns the training benchmark: real optimizer steps at every stage's size, timed; it saves no weights."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import replace
from functools import partial
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
from zoo.measure.gpu_trace import GpuTrace
from zoo.measure.rounds import MIN_ROUNDS, Rounds, measure_rounds
from zoo.measure.timing import Schedule, time_call, time_cuda
from zoo.measure.torch_threads import torch_threads
from zoo.model.spec import Variant
from zoo.model.variants import VARIANTS
from zoo.results import Result, Subject, measured_on, row_sha256
from zoo.weights.resolve import find_model_variant

# In the first steps cuDNN picks its algorithms and allocators fill.
WARMUP_STEPS = 3
NUM_CLASSES = 1000
# The networks whose steps take turns.
OURS, THEIRS = "zoo", "timm"


def measure_training(options: BenchTrainOptions, *, console: Console | None = None) -> Result:
    """Time optimizer steps at every stage of a recipe, on pictures already in memory, in `NUM_CLASSES` classes.

    With sizes or batches of its own it is every size with every batch instead, regularised as the last stage is; what
    does not fit into a GPU's memory is told then, as in the paper's Table 2. With `beside_timm` timm's network makes
    the same steps in turn.

    What is timed: transfer, flip and RandAugment where they are the device's, normalisation, mixing, forward, backward,
    clipping, the recipe's optimizer and the weight average; not decoding, which is another benchmark's. Pictures are
    uint8 noise: convolutions take the same time for any values, and the loss of a few steps does not matter. Steps that
    were disturbed are made again (`zoo.measure.rounds`).

    Raises:
        ZooError: as `choose_recipe` and `choose_settings`, or the device runs out of memory; names the stage and the
        remedy.
    """
    variant = find_model_variant(options.model)
    recipe = choose_recipe(options.training, variant)
    settings = choose_settings(options.training, no_pictures(NUM_CLASSES), ALONE)
    on_gpu = settings.device.type == "cuda"
    if on_gpu and options.threads:
        raise ZooError("--threads has no effect: the steps are made on the GPU.", "Leave it out.")
    stages = grid_of(recipe.stages[-1], options) if options.is_grid else list(recipe.stages)
    job = noise_job(variant, recipe, settings, NUM_CLASSES)
    if options.beside_timm:
        load_timm(variant)
    device = settings.device_name if on_gpu else processor_name()
    with torch_threads(options.threads) as threads, GpuTrace(device) as trace:
        rows, too_large = _measure_stages(job, stages, options, console)
    compiled = "-compiled" if settings.compile else "-checkpointed" if settings.checkpoint_activations else ""
    size = _size(stages, options, recipe)
    subject = Subject(
        name=f"{variant.id}-{recipe.name}-{size}-augmented-on-{settings.augment_on}{compiled}",
        batch_sizes=tuple(dict.fromkeys(stage.batch_size for stage in stages)),
        precision=settings.precision,
        threads=None if on_gpu else threads,
        sha256=None if variant in VARIANTS else row_sha256(variant),
        way="beside timm" if options.beside_timm else None,
    )
    return Result(
        kind="train",
        name=f"{variant.id}-{recipe.name}-{settings.precision}",
        environment=measured_on(device),
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
        data={
            "rows": rows,
            "out_of_memory": too_large,
            "quiet": all(rounds.quiet for rounds in rounds_of(rows)),
            "gpu": trace.to_dict(),
            "gpu_reason": trace.reason,
        },
    )


def rounds_of(rows: Iterable[Mapping[str, Any]]) -> list[Rounds]:
    """Every round of a result's rows."""
    return [Rounds.from_dict(row["rounds"]) for row in rows]


def _size(stages: Sequence[TrainingStage], options: BenchTrainOptions, recipe: Recipe) -> str:
    """“128-192px” of a grid, “300px” of a recipe, which goes up to it."""
    sizes = dict.fromkeys(stage.image_size for stage in stages) if options.is_grid else (recipe.largest_size,)
    return f"{'-'.join(map(str, sizes))}px"


def _measure_stages(
    job: Job, stages: Sequence[TrainingStage], options: BenchTrainOptions, console: Console | None
) -> tuple[list[dict[str, Any]], list[dict[str, int]]]:
    """The rows of what fits into the memory, and what does not."""
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
    return rows, too_large


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
    steps = {OURS: _warm_step(run, job, stage)}
    peak = torch.cuda.max_memory_allocated() if on_gpu else None
    if options.beside_timm:
        steps[THEIRS] = _warm_step(twin_of(run, job, stage), job, stage)
    rounds = measure_rounds(steps, schedule_of(options.steps), timer=time_cuda if on_gpu else time_call)
    ours = rounds.summary(OURS)
    row = stage.to_dict() | {
        "pictures_per_second": 1000.0 * stage.batch_size / ours.p50_ms,
        "ms_per_step": ours.to_dict(),
        "rounds": rounds.to_dict(),
        "peak_memory_bytes": peak,
        "peak_process_bytes": None if on_gpu else peak_bytes(),
    }
    if not options.beside_timm:
        return row
    _, name = load_timm(job.variant)
    return row | {"timm": {"network": name, "ms_per_step": rounds.summary(THEIRS).to_dict()}}


def schedule_of(steps: int) -> Schedule:
    """So many steps in ten rounds, each network as many in turn; 20 steps → A A B B A A B B …

    The warm-up goes on until two steps in a row take the same time; a visit has none, as a step fills all caches anew.
    """
    return Schedule(
        warmup_ms=0,
        min_warmup_iterations=0,
        duration_ms=0,
        min_iterations=steps,
        rounds=min(steps, MIN_ROUNDS),
        visit_warmup_iterations=0,
    )


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
