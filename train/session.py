"""Owns one call of `zoo train`: from names and flags to a finished run folder; each step is another file's."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import cast

import torch
from rich.console import Console

from train.live import LiveView
from train.loader import default_workers
from train.loop import Validation, Watcher, fit
from train.recipe import Recipe, TrainingStage, find_recipe
from train.record import CHECKPOINT, STATE, RunRecord, provenance
from train.run import Epoch, Precision, Run, Settings, Start, load_state, start_run
from zoo.checkpoint import Checkpoint
from zoo.datasets import Pictures
from zoo.errors import CheckpointError, MissingCapabilityError, ZooError
from zoo.registry import ROW_SUFFIX, load_model
from zoo.spec import Preprocessing, Variant
from zoo.variants import VARIANTS


@dataclass(frozen=True)
class Outcome:
    """A finished run: its folder, its validation and its epochs."""

    folder: Path
    result: Validation
    history: tuple[Epoch, ...]

    @property
    def checkpoint(self) -> Path:
        """The file other commands take."""
        return self.folder / CHECKPOINT


@dataclass(frozen=True)
class Watchers:
    """Several watchers as one."""

    each: Sequence[Watcher]

    def on_stage(self, index: int, stage: TrainingStage) -> None:
        """Tell all."""
        for watcher in self.each:
            watcher.on_stage(index, stage)

    def on_step(self, epoch: int, step: int, steps: int, pictures: int, loss: float | None) -> None:
        """Tell all."""
        for watcher in self.each:
            watcher.on_step(epoch, step, steps, pictures, loss)

    def on_broken(self, message: str) -> None:
        """Tell all."""
        for watcher in self.each:
            watcher.on_broken(message)

    def on_epoch(self, run: Run, epoch: Epoch) -> None:
        """Tell all."""
        for watcher in self.each:
            watcher.on_epoch(run, epoch)


def default_recipe(data: str) -> str:
    """The recipe of a data set that none was named for."""
    return "digits" if data == "digits" else "folder"


def recipe_for(variant: Variant, data: str, name: str | None) -> Recipe:
    """Resolve the recipe by name, or the data set's own."""
    return find_recipe(name or default_recipe(data), variant)


def find_start(model: str) -> Start | None:
    """The weights MODEL names: those of a checkpoint or of a published id; None for a row's id or file: fresh.

    Raises:
        CheckpointError, MissingCapabilityError: they cannot be loaded.
    """
    if Path(model).suffix == ROW_SUFFIX or any(model in (variant.id, variant.name) for variant in VARIANTS):
        return None
    return Start(*load_model(model))


def choose_device(name: str) -> torch.device:
    """Resolve "auto", "cpu" or "cuda".

    Raises:
        MissingCapabilityError: CUDA was asked for and does not work here.
    """
    if name == "cpu" or (name == "auto" and not torch.cuda.is_available()):
        return torch.device("cpu")
    if not torch.cuda.is_available():
        raise MissingCapabilityError(
            "--device cuda: PyTorch finds no usable NVIDIA GPU here.", "`zoo doctor` says why; --device cpu works."
        )
    return torch.device("cuda")


def choose_precision(name: str, device: torch.device) -> Precision:
    """Resolve "auto": bf16 where the GPU has it, else fp16 on a GPU, fp32 on a CPU.

    Raises:
        ZooError: fp16 on a CPU, which has no loss scaling to go with it.
    """
    if name == "auto":
        if device.type == "cpu":
            return "fp32"
        return "bf16" if torch.cuda.is_bf16_supported(including_emulation=False) else "fp16"
    if name == "fp16" and device.type == "cpu":
        raise ZooError("--precision fp16 needs a GPU.", "Use fp32 or bf16 on a CPU.")
    return cast(Precision, name)


def run_preprocessing(base: Preprocessing, recipe: Recipe) -> Preprocessing:
    """The contract of what a recipe trains: the normalisation the weights expect, at the recipe's test size."""
    return replace(
        base,
        image_size=recipe.test_size,
        resize=recipe.test_resize,
        resize_size=None,
        interpolation="bilinear",
    )


def train_model(
    variant: Variant,
    recipe: Recipe,
    train_set: Pictures,
    val_set: Pictures,
    *,
    data: str,
    folder: Path,
    device: str = "auto",
    precision: str = "auto",
    seed: int = 0,
    workers: int | None = None,
    resume: bool = False,
    start: Start | None = None,
    console: Console | None = None,
) -> Outcome:
    """Train a network and write its run folder.

    Args:
        data: the name the pictures were opened by; kept in the checkpoint, so that later checks find them.
        folder: where to write. A finished run in it is moved aside, never overwritten.
        start: weights to begin from instead of a fresh initialisation.
        console: where progress goes; None is silent.

    Raises:
        CheckpointError: nothing to resume, or a state of another run. DataError, ZooError: as `fit`.
    """
    console = console or Console(quiet=True)
    chosen = choose_device(device)
    settings = Settings(
        device=chosen,
        precision=choose_precision(precision, chosen),
        seed=seed,
        workers=default_workers(train_set) if workers is None else workers,
    )
    state_path = folder / STATE
    if resume and not state_path.is_file():
        done = "that run is finished" if (folder / CHECKPOINT).is_file() else "there is no interrupted run"
        raise CheckpointError(f"Nothing to resume in {folder}: {done}.", "Leave --resume out to start a new run.")
    if not resume:
        _move_aside(folder, console)
    run = start_run(variant, train_set.classes, recipe, settings, start)
    if start and not resume:
        head = "same classes" if start.card.classes == train_set.classes else "other classes: the classifier is new"
        console.print(f"Starting from the weights of {start.label}; {head}.")
    if resume:
        load_state(run, recipe, settings, train_set, state_path)
        console.print(f"Resuming {folder} after epoch {len(run.history)} of {recipe.epochs}.")
    preprocessing = run_preprocessing(start.card.preprocessing if start else variant.preprocessing, recipe)
    record = RunRecord(folder, recipe, f"{variant.name} on {data}: {recipe.name} recipe")
    with LiveView(recipe, len(train_set), console) as live:
        result = fit(
            run,
            recipe,
            train_set,
            val_set,
            preprocessing,
            settings,
            state_path=state_path,
            watcher=Watchers([record, live]),
        )
    card = Checkpoint(
        variant=variant,
        classes=train_set.classes,
        preprocessing=preprocessing,
        padding=run.model.padding,
        recipe=recipe.to_dict(),
        provenance=provenance(
            data=data,
            seed=seed,
            precision=settings.precision,
            device=torch.cuda.get_device_name() if chosen.type == "cuda" else "cpu",
            run=run,
            result=result,
            num_val=len(val_set),
            start=start.label if start else None,
        ),
    )
    record.finish(run, card, result)
    return Outcome(folder, result, tuple(run.history))


def _move_aside(folder: Path, console: Console) -> None:
    """Keep an earlier run: runs/s becomes runs/s.1, or the next free number."""
    if not folder.exists() or not any(folder.iterdir()):
        return
    number = 1
    while (kept := folder.with_name(f"{folder.name}.{number}")).exists():
        number += 1
    folder.rename(kept)
    console.print(f"The earlier run in {folder} is kept as {kept}.")
