"""Owns the comparison of finished runs by what each answered to the same pictures; it runs no network.

It reads predictions.csv of every run, and of the checkpoint no more than the card.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

from rich.markup import escape
from rich.table import Table

from train.options import CompareOptions
from train.spreadsheets import PREDICTIONS, Answered, read_predictions
from zoo.console import FittingTable
from zoo.errors import CheckpointError, DataError, ZooError
from zoo.intervals import difference_interval, mcnemar, share_interval
from zoo.rows import Count, CountOrNone, NotNegative, Row, Share, Text, Within
from zoo.weights.checkpoint import Checkpoint, read_card
from zoo.weights.mistaken import FINISH_IT, is_unfinished
from zoo.weights.resolve import CHECKPOINT_NAME
from zoo.wording import duration

Difference = Annotated[float, Within(-1, 1)]


@dataclass(frozen=True, kw_only=True)
class Against(Row):
    """A run beside the first: how much higher its share of right answers is, with the ends of the 95 % interval.

    `only_first` and `only_this` count the pictures that one of the two alone has right; `p` is McNemar's.
    """

    difference: Difference
    low: Difference
    high: Difference
    only_first: CountOrNone
    only_this: CountOrNone
    p: Share


@dataclass(frozen=True, kw_only=True)
class ComparedRun(Row):
    """One run: its share of right answers with the ends of the 95 % interval, and what its checkpoint says of it.

    `against_first` is None of the first run; the last four are None where there is no readable checkpoint.
    """

    run: Text
    right: CountOrNone
    top1: Share
    low: Share
    high: Share
    against_first: Against | None = None
    recipe: str | None = None
    image_size: Count | None = None
    epochs: Count | None = None
    training_seconds: NotNegative | None = None


@dataclass(frozen=True, kw_only=True)
class Comparison(Row):
    """Runs over the same `pictures` of one split, in the order given."""

    split: Text
    pictures: Count
    runs: tuple[ComparedRun, ...]


def compare_runs(options: CompareOptions) -> Comparison:
    """Compare every run with the first.

    Raises:
        ZooError: only one run. DataError: a run has no readable answers to the split, or to other pictures.
    """
    if len(options.runs) < 2:
        raise ZooError("One run cannot be compared.", "Name two run folders or more: zoo compare runs/a runs/b.")
    answers = [_answers_of(run, options.split) for run in options.runs]
    files = [_files_of(run, options.split) for run in options.runs]
    for run, own, its in zip(options.runs[1:], answers[1:], files[1:], strict=True):
        _refuse_others(options.runs[0], answers[0], run, own)
        if files[0] and its and files[0] != its:
            raise DataError(
                f"{options.runs[0]} and {run} answered to other pictures of the same names: their sizes differ.",
                "Train both on the same --data.",
            )
    right = [[line.true == line.predicted for line in own] for own in answers]
    return Comparison(
        split=options.split,
        pictures=len(answers[0]),
        runs=tuple(
            _compared(run, own, right[0] if place else None)
            for place, (run, own) in enumerate(zip(options.runs, right, strict=True))
        ),
    )


def comparison_table(found: Comparison) -> Table:
    """The comparison for a terminal."""
    table = FittingTable(title=escape(f"{found.pictures:,} {found.split} pictures, 95 % intervals"))
    table.add_column("run")
    for head in (
        "top-1 %",
        "points above the first",
        "only first right",
        "only this right",
        "p",
        "px",
        "epochs",
        "time",
    ):
        table.add_column(head, justify="right", no_wrap=True)
    for run in found.runs:
        other = run.against_first
        paired = ["", "", "", ""]
        if other:
            points = f"{100 * other.difference:+.2f} ({100 * other.low:+.2f} … {100 * other.high:+.2f})"
            paired = [points, f"{other.only_first:,}", f"{other.only_this:,}", _p(other.p)]
        share = f"{100 * run.top1:.2f} ({100 * run.low:.2f} … {100 * run.high:.2f})"
        time = "–" if run.training_seconds is None else duration(run.training_seconds)
        sizes = ("–" if value is None else str(value) for value in (run.image_size, run.epochs))
        table.add_row(escape(run.run), share, *paired, *sizes, time)
    return table


def _answers_of(run: Path, split: str) -> list[Answered]:
    """A run's answers to a split, by the pictures' names.

    Raises:
        DataError: there are none.
    """
    path = run if run.suffix == ".csv" else run / PREDICTIONS
    if run.suffix != ".csv":
        _check_finished(run)
    lines = [line for line in read_predictions(path) if line.split == split]
    if not lines:
        there = "Its data had no test/ folder." if split == "test" else "Train again."
        raise DataError(f"{path} has no answers to {split} pictures.", there)
    return sorted(lines, key=lambda line: (line.picture, line.true))


def _check_finished(run: Path) -> None:
    """Refuse what is no folder of a finished run.

    Raises:
        DataError: it is none; says what it is.
    """
    if not run.is_dir():
        kind = "a file" if run.exists() else "not there"
        raise DataError(f"{run} is {kind}; a run is a folder that `zoo train` wrote.", "For example runs/s.")
    if not (run / PREDICTIONS).is_file() and is_unfinished(run):
        raise DataError(
            f"The run in {run} is not finished: it has no {PREDICTIONS} yet.", f"{FINISH_IT[0].upper()}{FINISH_IT[1:]}"
        )


def _refuse_others(first: Path, there: Sequence[Answered], run: Path, here: Sequence[Answered]) -> None:
    """Refuse to pair answers to different pictures.

    Raises:
        DataError: they are; names one.
    """
    known, own = ({(line.picture, line.true) for line in lines} for lines in (there, here))
    if len(there) == len(here) and known == own:
        return
    odd = min(known ^ own, default=there[0][1:3])
    where = first if odd in known else run
    raise DataError(
        f"{first} and {run} answered to different pictures: {len(known - own):,} are only in {first} and "
        f"{len(own - known):,} only in {run}, such as {odd[0]} of class {odd[1]} in {where}.",
        "Train both on the same --data with the same --seed and --group-by, or with a val/ folder.",
    )


def _compared(run: Path, right: Sequence[bool], first: Sequence[bool] | None) -> ComparedRun:
    low, high = share_interval(sum(right), len(right))
    against = None
    if first is not None:
        only_first = sum(there and not here for there, here in zip(first, right, strict=True))
        only_this = sum(here and not there for there, here in zip(first, right, strict=True))
        ends = difference_interval(only_first, only_this, len(right))
        against = Against(
            difference=(only_this - only_first) / len(right),
            low=ends[0],
            high=ends[1],
            only_first=only_first,
            only_this=only_this,
            p=mcnemar(only_first, only_this),
        )
    return ComparedRun(
        run=str(run),
        right=sum(right),
        top1=sum(right) / len(right),
        low=low,
        high=high,
        against_first=against,
        **_told(run),
    )


def _files_of(run: Path, split: str) -> str | None:
    """What tells the pictures of a run's split from others of the same names; None where it is not known."""
    try:
        found = _card_of(run).provenance.get("fingerprints") or {}
    except CheckpointError:
        return None
    return found.get(split)


def _card_of(run: Path) -> Checkpoint:
    return read_card((run.parent if run.suffix == ".csv" else run) / CHECKPOINT_NAME)


def _told(run: Path) -> dict[str, Any]:
    """What the checkpoint beside the answers says of the run; nothing where there is none."""
    try:
        card = _card_of(run)
    except CheckpointError:
        return {}
    return {
        "recipe": card.recipe.get("name"),
        "image_size": card.preprocessing.image_size,
        "epochs": card.provenance.get("epochs"),
        "training_seconds": card.provenance.get("training_seconds"),
    }


def _p(value: float) -> str:
    return "< 0.0001" if value < 1e-4 else f"{value:.4f}"
