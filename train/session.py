"""Owns one call of `zoo train`: from names and flags to a finished run folder; each step is another file's."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal, cast

import torch
from rich.console import Console

from train.augment.host import AugmentOn
from train.input.loader import default_workers
from train.learn.distill import Teacher, load_teacher
from train.learn.loop import Watcher, fit
from train.learn.losses import resolve_class_weights
from train.learn.memory import fit_to_memory
from train.learn.run import Epoch, Precision, Run, Settings, Start, load_state, read_state, start_run
from train.learn.validation import Validation
from train.processes.distributed import find_world, gather, joined, restarts, wait_for_all
from train.processes.stopping import RunFinished, signals_held, stop_requests
from train.progressive.cost import estimate
from train.progressive.recipe import Recipe, TrainingStage, check_recipe, find_recipe
from train.watch.live import LiveView
from train.watch.record import CHECKPOINT, METRICS, STATE, RunRecord, provenance
from train.watch.report import RunFacts
from train.watch.trackers import TrackerRow, find_trackers, open_trackers
from zoo.data.pictures import Pictures
from zoo.errors import CheckpointError, ZooError
from zoo.machine import Device, choose_device
from zoo.model.spec import Preprocessing, Variant
from zoo.model.variants import VARIANTS
from zoo.weights.checkpoint import Checkpoint, save_checkpoint
from zoo.weights.resolve import ROW_SUFFIX, load_model

LAST_GOOD = "last-good.safetensors"


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

    def on_validation(self, result: Validation) -> None:
        """Tell all."""
        for watcher in self.each:
            watcher.on_validation(result)

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


def choose_augmentation(name: str, device: torch.device) -> AugmentOn:
    """Resolve "auto": on a GPU, which has time while a processor has none; else by the workers."""
    if name == "auto":
        return "device" if device.type == "cuda" else "workers"
    return cast(AugmentOn, name)


def run_preprocessing(base: Preprocessing, recipe: Recipe) -> Preprocessing:
    """The contract of what a recipe trains: the normalisation the weights expect, at the recipe's test size."""
    return replace(
        base,
        image_size=recipe.test_size,
        resize=recipe.test_resize,
        resize_size=recipe.test_size + recipe.test_crop_margin if recipe.test_crop_margin else None,
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
    device: Device = "auto",
    precision: str = "auto",
    seed: int = 0,
    workers: int | None = None,
    augment_on: str = "auto",
    resume: bool = False,
    auto_resume: bool = False,
    start: Start | None = None,
    teacher: Teacher | None = None,
    auto_batch: bool = False,
    compile: bool = False,
    save_every_s: float = Settings.save_every_s,
    trackers: Sequence[str] = (),
    console: Console | None = None,
) -> Outcome:
    """Train a network and write its run folder.

    Args:
        data: the name the pictures were opened by; kept in the checkpoint, so that later checks find them.
        folder: where to write. A finished run in it is moved aside, never overwritten.
        augment_on: who flips and RandAugments: "workers", one picture after the other, or "device", a batch at a time;
            "auto" is the device where it is a GPU. The pictures are the same.
        resume: go on with the interrupted run in `folder`; `auto_resume`: where there is one, and leave a finished one.
        start: weights to begin from instead of a fresh initialisation.
        teacher: any classifier of the same classes, in place of the one the recipe names.
        auto_batch: take a stage's batch in as many parts as the device's memory asks for, instead of an error.
        compile: compile the network anew for each stage.
        save_every_s: how often the state to resume from is written.
        trackers: names of `train.watch.trackers.TRACKERS` that get the run's figures as well.
        console: where progress goes; None is silent.

    Raises:
        MissingCapabilityError: no such device, or a tracker's package is not installed.
        CheckpointError: nothing to resume, or a state of another run. DataError, ZooError: as `fit`, or the recipe
        cannot be run as it is, or does not fit the device's memory. RunStopped: SIGTERM or Ctrl-C; the state is kept.
        RunFinished: with `auto_resume`, or started again by torchrun: the run was at its end.
    """
    world = find_world()
    console = console if console and world.is_first else Console(quiet=True)
    tracker_rows = find_trackers(trackers)
    chosen = torch.device(choose_device(device))
    if chosen.type == "cuda" and not world.is_alone:
        chosen = torch.device("cuda", world.local_rank)
    settings = Settings(
        device=chosen,
        precision=choose_precision(precision, chosen),
        seed=seed,
        workers=default_workers(train_set) if workers is None else workers,
        augment_on=choose_augmentation(augment_on, chosen),
        compile=compile,
        save_every_s=save_every_s,
        world=world,
    )
    with joined(world, chosen):
        # The first process's word: the others may see the files later, or not as they were.
        found = gather(world, _find_run(folder))[0]
        again = auto_resume or restarts() > 0
        if again and found == "finished":
            raise RunFinished(f"{folder} is finished.")
        return _train(
            variant,
            recipe,
            train_set,
            val_set,
            settings,
            data=data,
            folder=folder,
            resume=resume or (again and found == "interrupted"),
            start=start,
            teacher=teacher,
            auto_batch=auto_batch,
            trackers=tracker_rows,
            console=console,
        )


def _train(
    variant: Variant,
    recipe: Recipe,
    train_set: Pictures,
    val_set: Pictures,
    settings: Settings,
    *,
    data: str,
    folder: Path,
    resume: bool,
    start: Start | None,
    teacher: Teacher | None,
    auto_batch: bool,
    trackers: Sequence[TrackerRow],
    console: Console,
) -> Outcome:
    """`train_model` once it is settled where: this process's part of it; files are the first one's."""
    world, chosen = settings.world, settings.device
    recipe = _resolve(recipe, variant, train_set, start)
    preprocessing = run_preprocessing(start.card.preprocessing if start else variant.preprocessing, recipe)
    if teacher is None and recipe.teacher:
        teacher = load_teacher(
            recipe.teacher, train_set.classes, chosen, alpha=recipe.distill_alpha, temperature=recipe.temperature
        )
    state_path = folder / STATE
    if resume and not state_path.is_file():
        done = "that run is finished" if (folder / CHECKPOINT).is_file() else "there is no interrupted run"
        raise CheckpointError(f"Nothing to resume in {folder}: {done}.", "Leave --resume out to start a new run.")
    if chosen.type == "cuda":
        console.print("Trying every stage's batch on the GPU …")
        recipe = fit_to_memory(
            variant,
            train_set.classes,
            recipe,
            preprocessing,
            settings,
            start=start,
            teacher=teacher,
            auto_batch=auto_batch,
        )
    if not resume and world.is_first:
        _move_aside(folder, console)
    wait_for_all(world)
    run = start_run(variant, train_set.classes, recipe, settings, start, teacher)
    if start and not resume:
        head = "same classes" if start.card.classes == train_set.classes else "other classes: the classifier is new"
        console.print(f"Starting from the weights of {start.label}; {head}.")
    if resume:
        load_state(run, recipe, settings, train_set, state_path)
        steps = f" and {run.partial.steps} steps" if run.partial else ""
        console.print(f"Resuming {folder} after epoch {len(run.history)}{steps} of {recipe.epochs}.")
    facts = RunFacts(
        title=f"{variant.name} on {data}",
        variant=variant,
        recipe=recipe,
        data=data,
        num_train=len(train_set),
        val_set=val_set,
        cost=estimate(variant, recipe, len(train_set), len(train_set.classes)),
        settings={
            "started from": start.label if start else "a fresh initialisation",
            "seed": settings.seed,
            "precision": settings.precision,
            "device": torch.cuda.get_device_name() if chosen.type == "cuda" else "CPU",
            "decoding processes": settings.workers,
            "flip and RandAugment": f"by the {settings.augment_on}",
        }
        | ({} if world.is_alone else {"training processes": world.size}),
    )
    card = Checkpoint(
        variant=variant,
        classes=train_set.classes,
        preprocessing=preprocessing,
        padding=run.model.padding,
        recipe=recipe.to_dict(),
    )
    record = RunRecord(folder, facts) if world.is_first else None
    with ExitStack() as stack:
        watchers: list[Watcher] = []
        if record:
            tracking = open_trackers(
                trackers,
                name=facts.title,
                folder=folder,
                config={"model": variant.id, "data": data, **facts.settings, "recipe": recipe.to_dict()},
                recipe=recipe,
                first_step=run.step,
                console=console,
            )
            live = LiveView(recipe, len(train_set), console)
            watchers = [stack.enter_context(record), stack.enter_context(live), *stack.enter_context(tracking)]
        stop = stack.enter_context(stop_requests())
        try:
            result = fit(
                run,
                recipe,
                train_set,
                val_set,
                preprocessing,
                settings,
                state_path=state_path,
                watcher=Watchers(watchers),
                stop=stop,
            )
        except ZooError as error:
            kept = _keep_last_good(folder, card, error) if record else ""
            raise type(error)(error.problem, f"{error.hint} {kept}".strip()) from error
    if record:
        made = provenance(
            data=data,
            seed=settings.seed,
            precision=settings.precision,
            device=torch.cuda.get_device_name() if chosen.type == "cuda" else "cpu",
            run=run,
            result=result,
            num_val=len(val_set),
            start=start.label if start else None,
        )
        with signals_held():  # the training is done, and only seconds of plotting and writing are left
            record.finish(run, replace(card, provenance=made), result)
    wait_for_all(world)
    return Outcome(folder, result, tuple(run.history))


def _resolve(recipe: Recipe, variant: Variant, train_set: Pictures, start: Start | None) -> Recipe:
    """The recipe with class weights as numbers, checked.

    Raises:
        ZooError: it cannot be run, or freezes a backbone that has learnt nothing. DataError: of class weights.
    """
    if start is None and any(stage.freeze_backbone for stage in recipe.stages):
        raise ZooError(
            f"The recipe {recipe.name} freezes the backbone, and {variant.id} begins without trained weights.",
            f"Begin from weights: `zoo list` shows them, `zoo pull {variant.id}` fetches some; or a checkpoint's path.",
        )
    weights = resolve_class_weights(recipe.class_weights, train_set.classes, train_set.labels)
    return check_recipe(replace(recipe, class_weights=weights), variant)


def _keep_last_good(folder: Path, card: Checkpoint, error: ZooError) -> str:
    """Make the weights of the last state a checkpoint to begin from; what to say of it, "" where there is no state."""
    if not (folder / STATE).is_file():
        return ""
    state = read_state(folder / STATE, torch.device("cpu"))
    epochs = len(state["history"])
    path = folder / LAST_GOOD
    save_checkpoint(path, state["average"], replace(card, provenance={"epochs": epochs, "stopped_by": error.problem}))
    return (
        f"The weights after {epochs} epochs and {state['step']} steps are in {path}: `zoo train {path}` begins there."
    )


def _find_run(folder: Path) -> Literal["interrupted", "finished", "nothing"]:
    """What a folder holds of an earlier run; a state is removed when all else is written."""
    if (folder / STATE).is_file():
        return "interrupted"
    return "finished" if (folder / CHECKPOINT).is_file() else "nothing"


def _move_aside(folder: Path, console: Console) -> None:
    """Keep an earlier run: runs/s becomes runs/s.1, or the next free number.

    Raises:
        ZooError: what is there is no run.
    """
    folder = folder if folder.name else folder.resolve()  # "." has no name to number
    if not folder.exists() or not any(folder.iterdir()):
        return
    if not any((folder / name).exists() for name in (CHECKPOINT, METRICS, STATE)):
        raise ZooError(f"{folder} holds something else than a run.", "Choose an empty or a new folder with --out.")
    number = 1
    while (kept := folder.with_name(f"{folder.name}.{number}")).exists():
        number += 1
    try:
        folder.rename(kept)
    except OSError as error:
        raise ZooError(
            f"Cannot keep the earlier run in {folder} as {kept}: {error.strerror}.", "Choose another folder with --out."
        ) from error
    console.print(f"The earlier run in {folder} is kept as {kept}.")
