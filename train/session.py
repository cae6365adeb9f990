"""Owns one run of `zoo train`, from its options to a finished run folder; each step is another file's."""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, ExitStack, contextmanager, nullcontext
from dataclasses import dataclass, replace
from itertools import chain
from pathlib import Path
from typing import Any

import torch
from rich.console import Console
from rich.markup import escape

from train.folder import CHECKPOINT, STATE, Found, find_run, fold_name, keep_apart, keep_last_good, move_aside
from train.input.decoders import decoders_kept
from train.learn.budgeted import choose_length, go_on
from train.learn.distill import Teacher
from train.learn.job import Job, Start, TrainAndVal, make_job, with_recipe
from train.learn.label_answers import LabelValidation
from train.learn.loop import fit
from train.learn.memory import fit_to_memory
from train.learn.pace import measure_pace
from train.learn.run import Epoch, HeadStart, Run, merit_name, merit_of, start_run
from train.learn.scores import balanced_figure
from train.learn.state import head_start_of_state, load_state, read_state, recipe_of_state, with_batches_of
from train.learn.suitability import suited_to
from train.learn.validation import Judged, validate_together
from train.learn.watcher import Watcher, Watchers
from train.lock import locked, only_run_of_process
from train.options import Metric, TrackerRow, TrainOptions
from train.processes.distributed import find_world, gather, joined, restarts, wait_for_all
from train.processes.stopping import RunFinished, signals_held, stop_requests
from train.progressive.balance import balance_remarks, classes_seen, unequal_remark
from train.progressive.budget import Deadline, Pace, read_duration
from train.progressive.overrides import better_start, gives_batches
from train.progressive.recipe import KeptWeights, Recipe
from train.room import FLOAT_BYTES, room_remark
from train.watch.live import LiveView
from train.watch.record import RunRecord, provenance
from train.watch.trackers import find_trackers, open_trackers
from zoo.data.open import remarks
from zoo.errors import CheckpointError, DivergedError, WorkerError, ZooError
from zoo.files import check_folder
from zoo.label_scores import DEFAULT_THRESHOLD
from zoo.model.counts import count_params
from zoo.model.fake_quantize import ranges_of
from zoo.model.spec import RGB
from zoo.weights.checkpoint import Checkpoint, TrainedRange
from zoo.weights.resolve import run_folder

# What a run that lost a decoding process can do next.
GOES_ON = "The same command with --resume goes on from the last state, with any number of workers."
NOTHING_YET = "It had learnt nothing yet: give the same command again."


@dataclass(frozen=True)
class Outcome:
    """A finished run: its folder, what its checkpoint answers at `size` px, and its epochs.

    `best_epoch` is the one whose weights the checkpoint has, 0 for the head start; if `halfway`, the checkpoint's lie
    between both. `test` is the answer to a test split, where there is one, which nothing was chosen by.
    """

    folder: Path
    result: Judged
    history: tuple[Epoch, ...]
    size: int
    best_epoch: int
    test: Judged | None = None
    head_start: HeadStart | None = None
    kept_weights: KeptWeights = "averaged"
    halfway: bool = False
    metric: Metric = "top1"

    @property
    def checkpoint(self) -> Path:
        """The file other commands take."""
        return self.folder / CHECKPOINT

    @property
    def result_file(self) -> Path:
        """What to look at next."""
        return self.checkpoint

    @property
    def summary(self) -> str:
        """The result in a line, the figure that nothing was chosen by first."""
        epochs = len(self.history)
        which = "the head start" if not self.best_epoch else f"epoch {self.best_epoch} of {epochs}"
        if self.halfway:
            which = f"the weights halfway from the head start to {which}"
        chosen = "" if self.best_epoch == epochs and not self.halfway else f", of {which}"
        fair = balanced_figure(self.test or self.result, self.metric)
        balanced = "" if fair is None else f", {100 * fair:.2f} % balanced accuracy"
        if self.test is None:
            return f"{_figure(self.result)}{balanced} at {self.size} px{chosen}"
        return (
            f"{_figure(self.test)}{balanced} at {self.size} px on {len(self.test.answers.index):,} test pictures "
            f"({100 * merit_of(self.result.top1, self.result.map):.2f} % in validation){chosen}"
        )

    def to_dict(self) -> dict[str, Any]:
        """What `zoo train --json` prints."""
        return {
            "checkpoint": str(self.checkpoint),
            "top1": self.result.top1,
            "loss": self.result.loss,
            "image_size": self.size,
            "epochs": len(self.history),
            "best_epoch": self.best_epoch,
            "halfway": self.halfway,
            "kept_weights": self.kept_weights,
            "test_top1": self.test.top1 if self.test else None,
            "test_loss": self.test.loss if self.test else None,
            "map": self.result.map,
            "test_map": self.test.map if self.test else None,
        }


def _figure(result: Judged) -> str:
    """“92.50 % top-1”, or “71.30 % mAP” of several labels."""
    return f"{100 * merit_of(result.top1, result.map):.2f} % {merit_name(result.map)}"


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
    _check_fold(options)
    _check_budget(options)
    began = time.monotonic()
    seconds = None if options.budget is None else read_duration(options.budget)
    world = find_world()
    console = console if console and world.is_first else Console(quiet=True)
    trackers = find_trackers(options.trackers)
    job = make_job(options, world, recipe, pictures, start, teacher)
    folder = run_folder(job.variant.id, options.out)
    if options.fold and options.out is None:
        folder /= fold_name(options.fold)
    keep_apart(folder, options.model, job.recipe.teacher)
    if world.is_first:
        check_folder(folder)
    console.print(_headline(job))
    seen = classes_seen(job.train_set, job.recipe)
    balanced = balance_remarks(seen, job.recipe, multi_label=job.multi_label)
    known = (*remarks(job.train_set, job.val_set), unequal_remark(job.train_set, job.recipe), *balanced)
    room = room_remark(folder, FLOAT_BYTES * count_params(job.variant, len(job.classes))) if world.is_first else ""
    for remark in filter(None, (*known, better_start(options, job.variant), room)):
        console.print(escape(remark))
    with ExitStack() as stack:
        stack.enter_context(only_run_of_process())
        stack.enter_context(locked(folder) if world.is_first else nullcontext())
        stack.enter_context(joined(world, job.settings.device))
        stack.enter_context(_decoders_kept(job))
        # The first process decides for all: the others may see its files later, or other ones.
        resume = _must_resume(options, folder, gather(world, find_run(folder))[0])
        deadline = None
        if resume:
            state = read_state(folder / STATE, torch.device("cpu"))
            job, deadline = go_on(job, options, state, folder / STATE, began, seconds, console)
            own = recipe is not None or gives_batches(options)
            job = _as_it_was(job, state, folder / STATE, own_batches=own)
            del state  # as large as the run, which reads it onto its device
        elif seconds is not None:
            job, deadline = choose_length(job, options, began, seconds, console)
        if job.settings.device.type == "cuda":
            console.print("Trying every stage's batch on the GPU …")
            job = replace(job, recipe=fit_to_memory(job, auto_batch=options.auto_batch))
        if world.is_first and not resume:
            move_aside(folder, console)
        wait_for_all(world)
        with _said_what_is_saved(folder):
            outcome = _train(job, folder, resume, options.extend, trackers, console, deadline)
        wait_for_all(world)
        return outcome


def _as_it_was(job: Job, state: Mapping[str, Any], path: Path, *, own_batches: bool) -> Job:
    """The job with what its state knows: the rate that was found, batches, unless they are asked for, and mirrors."""
    there = recipe_of_state(state, path)
    rate = there.learning_rate if job.recipe.find_lr else job.recipe.learning_rate
    recipe = replace(job.recipe, learning_rate=rate)
    job = with_recipe(job, recipe if own_batches else with_batches_of(recipe, there))
    found = head_start_of_state(state)
    return suited_to(job, found) if found else job


def _train(
    job: Job,
    folder: Path,
    resume: bool,
    extend: bool,
    trackers: Sequence[TrackerRow],
    console: Console,
    deadline: Deadline | None,
) -> Outcome:
    """This process's part of the training; the first process writes the files."""
    is_first = job.settings.world.is_first
    run = start_run(job)
    if resume and (remark := load_state(run, job, folder / STATE, extend=extend)):
        console.print(remark)
    _say_where_it_begins(run, job, folder, resume, console)
    card = Checkpoint(
        variant=job.variant,
        classes=job.classes,
        preprocessing=job.preprocessing,
        padding=run.model.padding,
        recipe=job.recipe.to_dict(),
        thresholds=(DEFAULT_THRESHOLD,) * len(job.classes) if job.multi_label else None,
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
            result = fit(run, job, state_path=folder / STATE, watcher=Watchers(watchers), stop=stop, deadline=deadline)
        except DivergedError as error:
            kept = keep_last_good(folder, run.model, _at_found_rate(card, run), error) if is_first else ""
            raise DivergedError(error.problem, f"{error.hint} {kept}".strip()) from error
    test = validate_together(run.average.model, job.test_set, job.preprocessing, job.settings) if job.test_set else None
    job = suited_to(job, run.head_start) if run.head_start else job
    best = run.best.epoch if run.best and job.recipe.keep == "best" else len(run.history)
    card = _at_found_rate(replace(card, recipe=job.recipe.to_dict()), run)
    if is_first:
        with signals_held():  # the training is done, and only seconds of drawing and writing are left
            if isinstance(result, LabelValidation):
                card = replace(card, thresholds=tuple(result.thresholds.tolist()))
            if job.recipe.qat:
                card = replace(card, ranges=TrainedRange.of(ranges_of(run.average.model)))
            record.finish(run, replace(card, provenance=provenance(job, run, result, test)), result, test)
    size, kept = job.preprocessing.image_size, job.recipe.kept_weights
    halfway = job.recipe.keep == "best" and bool(run.best and run.best.share < 1)
    metric = job.recipe.metric
    return Outcome(folder, result, tuple(run.history), size, best, test, run.head_start, kept, halfway, metric)


@contextmanager
def _said_what_is_saved(folder: Path) -> Iterator[None]:
    """Add to the error of a lost decoding process whether the run can go on."""
    try:
        yield
    except WorkerError as error:
        there = find_run(folder) == "interrupted"
        raise WorkerError(error.problem, f"{error.hint} {GOES_ON if there else NOTHING_YET}") from error


def _check_budget(options: TrainOptions) -> None:
    """Refuse a number of epochs where a time decides it; the command line does it by its options.

    Raises:
        ZooError: both are given.
    """
    if options.budget is not None and options.epochs is not None:
        raise ZooError("epochs has no effect with a budget, which chooses them.", "Leave one of them out.")


def _check_fold(options: TrainOptions) -> None:
    """Refuse folds where one run is to be trained.

    Raises:
        ZooError: no fold is named, or of no folds.
    """
    if options.folds and not options.fold:
        raise ZooError(
            "train_model trains one run.", "train.folds.run.cross_validate trains one for each of the folds."
        )
    if options.fold and not options.folds:
        raise ZooError("--fold has no effect without --folds.", "Say of how many folds it is one.")


def _at_found_rate(card: Checkpoint, run: Run) -> Checkpoint:
    """The card with the learning rate that the run's range test chose, if it made one."""
    if run.range_test is None:
        return card
    return replace(card, recipe={**card.recipe, "learning_rate": run.range_test.rate})


def _decoders_kept(job: Job) -> AbstractContextManager[None]:
    sets = [pictures for pictures in (job.train_set, job.val_set, job.test_set) if pictures is not None]
    return decoders_kept(sets, workers=job.settings.workers, pin=job.settings.pin)


def measure_pace_of(options: TrainOptions) -> Pace:
    """How fast this machine trains what the options ask for; arguments and errors are those of `train_model`."""
    return measure_pace(make_job(options, find_world(), None, None, None, None))


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
    planes = "" if job.preprocessing.channels == RGB else f" of {job.preprocessing.planes}"
    return (
        f"[bold]{escape(job.variant.name)}[/] on {escape(job.data)}: {len(job.train_set)} training and "
        f"{len(job.val_set)} validation pictures{planes}, {len(job.classes)} classes, recipe {job.recipe.name}, "
        f"{job.cost.share_of_fixed_size:.0%} of the compute of training at {job.recipe.largest_size} px throughout"
    )


def _say_where_it_begins(run: Run, job: Job, folder: Path, resume: bool, console: Console) -> None:
    if resume:
        steps = f" and {run.partial.steps} steps" if run.partial else ""
        console.print(f"Resuming {escape(str(folder))} after epoch {len(run.history)}{steps} of {job.recipe.epochs}.")
    elif job.start:
        head = "same classes" if job.keeps_classifier else "other classes: the classifier is new"
        remark = f"; {job.start.remark}" if job.start.remark else ""
        console.print(f"Starting from the weights of {escape(job.start.label)}; {head}{remark}.")
