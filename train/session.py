"""Owns one run of `zoo train`, from its options to a finished run folder; each step is another file's."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import dataclass, replace
from itertools import chain
from pathlib import Path

from rich.console import Console
from rich.markup import escape

from train.folder import CHECKPOINT, STATE, Found, find_run, keep_last_good, move_aside
from train.learn.distill import Teacher
from train.learn.job import Job, Start, TrainAndVal, make_job
from train.learn.loop import fit
from train.learn.memory import fit_to_memory
from train.learn.run import Epoch, Run, start_run
from train.learn.state import load_state
from train.learn.validation import Validation
from train.learn.watcher import Watcher, Watchers
from train.options import TrackerRow, TrainOptions
from train.processes.distributed import find_world, gather, joined, restarts, wait_for_all
from train.processes.stopping import RunFinished, signals_held, stop_requests
from train.progressive.cost import estimate
from train.progressive.overrides import choose_recipe
from train.progressive.plan import Plan
from train.progressive.recipe import Recipe
from train.watch.live import LiveView
from train.watch.record import RunRecord, provenance
from train.watch.trackers import find_trackers, open_trackers
from zoo.data.open import open_splits, remarks
from zoo.errors import CheckpointError, ZooError
from zoo.files import check_folder
from zoo.weights.checkpoint import Checkpoint
from zoo.weights.resolve import find_model_variant, run_folder


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


def plan_training(options: TrainOptions, *, recipe: Recipe | None = None, pictures: TrainAndVal | None = None) -> Plan:
    """What `train_model` would do, and what it costs; arguments and errors are those of `train_model`."""
    variant = find_model_variant(options.model)
    chosen = choose_recipe(options, variant, recipe)
    train_set, _ = pictures or open_splits(options.data, seed=options.seed, group_by=options.group_by)
    return Plan(variant=variant, recipe=chosen, cost=estimate(variant, chosen, len(train_set), len(train_set.classes)))


def train_model(
    options: TrainOptions,
    *,
    recipe: Recipe | None = None,
    pictures: TrainAndVal | None = None,
    start: Start | None = None,
    teacher: Teacher | None = None,
    console: Console | None = None,
) -> Outcome:
    """Train a network and write its run folder. A finished run in the folder is moved aside, never overwritten.

    Args:
        recipe: use this one instead of the recipe that `options` name; the other options change it all the same.
        pictures: (train, val) that are open already; then `options.data` only names them, so that later checks find
            them.
        start: weights to begin from, instead of those that `options.model` names, if it does.
        teacher: any classifier of the same classes, instead of the one that `options` or the recipe name.
        console: where progress is printed; None is silent.

    Raises:
        MissingCapabilityError: no such device, or a tracker's package is not installed.
        CheckpointError: nothing to resume, or a state of another run. DataError, ZooError: as `fit`, or the recipe
        cannot be run as it is, or does not fit the device's memory. RunStopped: SIGTERM or Ctrl-C; the state is saved.
        RunFinished: with `auto_resume`, or restarted by torchrun: the run is finished.
    """
    world = find_world()
    console = console if console and world.is_first else Console(quiet=True)
    trackers = find_trackers(options.trackers)
    job = make_job(options, world, recipe, pictures, start, teacher)
    folder = run_folder(job.variant.id, options.out)
    if world.is_first:
        check_folder(folder)
    console.print(_headline(job))
    for remark in remarks(job.train_set, job.val_set):
        console.print(escape(remark))
    with joined(world, job.settings.device):
        # The first process decides for all: the others may see its files later, or other ones.
        resume = _must_resume(options, folder, gather(world, find_run(folder))[0])
        if job.settings.device.type == "cuda":
            console.print("Trying every stage's batch on the GPU …")
            job = replace(job, recipe=fit_to_memory(job, auto_batch=options.auto_batch))
        if world.is_first and not resume:
            move_aside(folder, console)
        wait_for_all(world)
        outcome = _train(job, folder, resume, trackers, console)
        wait_for_all(world)
        return outcome


def _train(job: Job, folder: Path, resume: bool, trackers: Sequence[TrackerRow], console: Console) -> Outcome:
    """This process's part of the training; the first process writes the files."""
    is_first = job.settings.world.is_first
    run = start_run(job)
    if resume:
        load_state(run, job, folder / STATE)
    _say_where_it_begins(run, job, folder, resume, console)
    card = Checkpoint(
        variant=job.variant,
        classes=job.classes,
        preprocessing=job.preprocessing,
        padding=run.model.padding,
        recipe=job.recipe.to_dict(),
    )
    record = RunRecord(folder, job, console)
    with ExitStack() as stack:
        watchers: list[Watcher] = []
        if is_first:
            opened = open_trackers(trackers, job, folder, run.step, console)
            watchers = [
                stack.enter_context(watcher) for watcher in chain((record, LiveView(job.recipe, console)), opened)
            ]
        stop = stack.enter_context(stop_requests())
        try:
            result = fit(run, job, state_path=folder / STATE, watcher=Watchers(watchers), stop=stop)
        except ZooError as error:
            kept = keep_last_good(folder, card, error) if is_first else ""
            raise type(error)(error.problem, f"{error.hint} {kept}".strip()) from error
    if is_first:
        with signals_held():  # the training is done, and only seconds of drawing and writing are left
            record.finish(run, replace(card, provenance=provenance(job, run, result)), result)
    return Outcome(folder, result, tuple(run.history))


def _must_resume(options: TrainOptions, folder: Path, found: Found) -> bool:
    """Whether to resume the run that was found in the folder.

    Raises:
        RunFinished: it is finished, and only to be resumed if it is not. CheckpointError: there is nothing to resume.
    """
    if_needed = options.auto_resume or restarts() > 0
    if if_needed and found == "finished":
        raise RunFinished(f"{folder} is finished.")
    if options.resume and found != "interrupted":
        done = "that run is finished" if found == "finished" else "there is no interrupted run"
        raise CheckpointError(f"Nothing to resume in {folder}: {done}.", "Leave --resume out to start a new run.")
    return found == "interrupted" and (options.resume or if_needed)


def _headline(job: Job) -> str:
    return (
        f"[bold]{escape(job.variant.name)}[/] on {escape(job.data)}: {len(job.train_set)} training and "
        f"{len(job.val_set)} validation pictures, {len(job.classes)} classes, recipe {job.recipe.name}, "
        f"{job.cost.share_of_fixed_size:.0%} of the compute of training at {job.recipe.largest_size} px throughout"
    )


def _say_where_it_begins(run: Run, job: Job, folder: Path, resume: bool, console: Console) -> None:
    if resume:
        steps = f" and {run.partial.steps} steps" if run.partial else ""
        console.print(f"Resuming {escape(str(folder))} after epoch {len(run.history)}{steps} of {job.recipe.epochs}.")
    elif job.start:
        same = job.start.card.classes == job.classes
        head = "same classes" if same else "other classes: the classifier is new"
        console.print(f"Starting from the weights of {escape(job.start.label)}; {head}.")
