"""Owns a cross-validation from its options to its summary: one run after the other, and which of them are done."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from rich.console import Console
from rich.markup import escape

from train.folder import FOLDS, PREDICTIONS, REPORT, STATE, SUMMARY, find_run, fold_name, keep_apart, move_aside
from train.folds.page import render_summary
from train.folds.summary import Summary, read_out_of_fold, summarize
from train.learn.state import budget_of_state, read_state
from train.lock import locked
from train.options import TrainOptions
from train.processes.distributed import find_world
from train.processes.stopping import RunFinished
from train.progressive.budget import read_duration
from train.session import train_model
from train.spreadsheets import sheet
from zoo.data.fingerprint import fingerprint
from zoo.data.folds import Folds, open_folds
from zoo.errors import CheckpointError, ZooError
from zoo.files import check_folder, write_json, write_text
from zoo.page.markup import printable
from zoo.weights.resolve import find_model_variant, run_folder
from zoo.wording import duration, joined

# Options that may differ where a cross-validation is resumed: where it is, and what belongs to the machine.
FREE = ("data", "out", "resume", "auto_resume", "extend", "fold", "trackers")
MACHINES = ("device", "workers", "augment_on", "auto_batch", "compile", "save_every_s")


@dataclass(frozen=True)
class CrossValidated:
    """A finished cross-validation: its folder, and what its runs say together."""

    folder: Path
    result: Summary

    @property
    def result_file(self) -> Path:
        """What to look at next."""
        return self.folder / REPORT

    @property
    def summary(self) -> str:
        """The result in a line."""
        return self.result.sentence

    def to_dict(self) -> dict[str, Any]:
        """What `zoo train --folds --json` prints."""
        return self.result.to_dict()


def cross_validate(options: TrainOptions, *, console: Console | None = None) -> CrossValidated:
    """Train one run for each fold, each in a folder of its own inside `options.out`, and write what they say together.

    A budget is that of all runs: each gets its part of what is left. With `resume` finished runs stay as they are, and
    the one that was interrupted goes on; those that had not begun get their part of the budget as it was at first.

    Args:
        options: with `folds`.
        console: where progress is printed; None is silent.

    Raises:
        DataError: as `open_folds`. CheckpointError: nothing to resume, or a cross-validation of another kind.
        RunFinished: with `auto_resume`, and all is finished. RunStopped, ZooError: as `train_model`, of one of the
        runs.
    """
    console = console or Console(quiet=True)
    count = options.folds or 0
    _refuse(options)
    seconds = None if options.budget is None else read_duration(options.budget)
    folds = open_folds(options.data, count, seed=options.seed, group_by=options.group_by)
    folder = run_folder(find_model_variant(options.model, options.channels).id, options.out)
    keep_apart(folder, options.model, options.teacher)
    check_folder(folder)
    for remark in folds.remarks():
        console.print(escape(remark))
    with locked(folder):
        asked = _identity(options, folds)
        if not _must_resume(options, folder):
            move_aside(folder, console)
        elif (folder / FOLDS).is_file():
            _refuse_others(folder / FOLDS, asked)
        write_json(folder / FOLDS, asked)
        left = [number for number in range(1, count + 1) if find_run(folder / fold_name(number)) != "finished"]
        gone = {number: _seconds_gone(folder / fold_name(number)) for number in left}
        deadline = None
        if seconds is not None:
            deadline = time.monotonic() + seconds * len(left) / count - sum(gone.values())
        for done, number in enumerate(left):
            share = None
            if deadline is not None:  # an interrupted run's part has in it what it has had of it
                had = sum(gone[later] for later in left[done:])
                share = max(deadline - time.monotonic() + had, 1.0) / (len(left) - done)
            _train_fold(options, number, folder, share, console)
        return _finish(options, folds, folder, console)


def _seconds_gone(own: Path) -> float:
    """What an interrupted run has had of its budget."""
    if find_run(own) != "interrupted":
        return 0.0
    budget = budget_of_state(read_state(own / STATE, torch.device("cpu")))
    return budget.spent_s if budget else 0.0


def _train_fold(options: TrainOptions, number: int, folder: Path, seconds: float | None, console: Console) -> None:
    """One run, from its beginning or from where it was interrupted."""
    own = folder / fold_name(number)
    part = "" if seconds is None else f", {duration(seconds)} of the budget"
    console.print(f"[bold]Fold {number} of {options.folds}[/]{part}")
    train_model(
        replace(
            options,
            fold=number,
            out=own,
            budget=None if seconds is None else f"{seconds:.1f}s",
            resume=find_run(own) == "interrupted",
            auto_resume=False,
        ),
        console=console,
    )


def _finish(options: TrainOptions, folds: Folds, folder: Path, console: Console) -> CrossValidated:
    """Write what the runs say together; the summary last, by which a cross-validation is known to be finished."""
    answered = read_out_of_fold(folder, folds)
    summary = summarize(folder, options.data, folds, answered)
    texts: Mapping[str, Callable[[], str]] = {
        PREDICTIONS: lambda: sheet(answered.heads, answered.rows),
        REPORT: lambda: render_summary(summary, answered, folds.pictures.classes),
    }
    for name, make in texts.items():
        try:
            write_text(folder / name, printable(make()))
        except (OSError, ZooError) as error:
            console.print(f"[yellow]Warning:[/] {escape(f'{folder / name} was not written: {error}')}")
    write_json(folder / SUMMARY, summary.to_dict())
    return CrossValidated(folder, summary)


def _refuse(options: TrainOptions) -> None:
    """Refuse what has no meaning for several runs.

    Raises:
        ZooError: it does; says what to do instead.
    """
    if not find_world().is_alone:
        raise ZooError(
            "--folds trains its runs one after the other in one process, and torchrun has started several.",
            f"Train each under torchrun with --fold 1 … {options.folds}; then --folds {options.folds} --resume without "
            "torchrun puts them together.",
        )
    if options.extend:
        raise ZooError("--extend has no effect with --folds: its finished runs stay as they are.", "Leave it out.")


def _identity(options: TrainOptions, folds: Folds) -> dict[str, Any]:
    """What must be equal for a cross-validation to be resumed."""
    told = {name: value for name, value in options.to_dict().items() if name not in (*FREE, *MACHINES)}
    return told | {"pictures": len(folds.pictures), "files": fingerprint(folds.pictures)}


def _must_resume(options: TrainOptions, folder: Path) -> bool:
    """Whether to go on with the cross-validation that was found in the folder.

    Raises:
        RunFinished: it is finished, and only to be resumed if it is not. CheckpointError: there is nothing to resume.
    """
    finished = (folder / SUMMARY).is_file()
    runs = (folder / fold_name(number) for number in range(1, (options.folds or 0) + 1))
    begun = (folder / FOLDS).is_file() or any(find_run(run) != "nothing" for run in runs)  # they may come by --fold
    if options.auto_resume and finished:
        raise RunFinished(f"{folder} is finished.")
    if options.resume and (finished or not begun):
        done = "that cross-validation is finished" if finished else "there is no interrupted cross-validation"
        raise CheckpointError(f"Nothing to resume in {folder}: {done}.", "Leave --resume out to start a new one.")
    return begun and not finished and (options.resume or options.auto_resume)


def _refuse_others(path: Path, asked: Mapping[str, Any]) -> None:
    """Refuse to go on with a cross-validation of other pictures, or with other settings.

    Raises:
        CheckpointError: names what differs.
    """
    try:
        there = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise CheckpointError(f"{path} is not readable: {error}.", "Start again without --resume.") from error
    changed = [
        name if name == "files" else f"{name} ({there.get(name)}, here {value})"
        for name, value in asked.items()
        if there.get(name) != value
    ]
    if changed:
        raise CheckpointError(
            f"{path} belongs to a cross-validation with other {joined(changed)}.",
            "Give the flags and the pictures of that one again; without --resume a new one begins.",
        )
