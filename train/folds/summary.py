"""Owns what the runs of a cross-validation say together, read from what each of them left; it trains nothing."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import fmean, stdev
from typing import Annotated, Any, Literal, get_args

import numpy as np

from train.folder import CHECKPOINT, PREDICTIONS, fold_name
from train.learn.scores import balanced_accuracy, macro_f1
from train.learn.validation import Answers
from train.options import Keep, Metric
from train.spreadsheets import FOLD, HEADS, LABEL_HEADS, read_sheet
from zoo.data.fingerprint import name_below
from zoo.data.folds import Folds, fold_rule
from zoo.errors import CheckpointError, DataError
from zoo.intervals import share_interval
from zoo.rows import Count, CountOrNone, NotNegative, Positive, Row, Share, Some, Text, Within
from zoo.visible import visible
from zoo.weights.checkpoint import Checkpoint, read_card

Format = Literal["zoo-folds-1"]
FORMAT: Format = "zoo-folds-1"
METRIC_NAMES: dict[Metric, str] = {
    "top1": "top-1",
    "loss": "loss",
    "balanced_accuracy": "balanced accuracy",
    "macro_f1": "macro F1",
    "map": "mAP",
}


@dataclass(frozen=True, kw_only=True)
class FoldResult(Row):
    """What the run of one fold reached on the pictures it held out; shares 0…1.

    `top1`, `balanced_accuracy` and `macro_f1` are None of pictures with several labels, `map` of all others. `run` is
    the run's folder inside that of the cross-validation.
    """

    fold: Count
    run: Text
    train: Count
    val: Count
    broken: CountOrNone
    loss: Annotated[float, Within(-1)] | None
    top1: Share | None
    balanced_accuracy: Share | None
    macro_f1: Share | None
    map: Share | None
    epochs: Count
    best_epoch: CountOrNone | None
    image_size: Count
    learning_rate: Positive
    training_seconds: NotNegative

    def figure(self, metric: Metric) -> float | None:
        """The figure of a metric."""
        found: float | None = getattr(self, metric)
        return found


@dataclass(frozen=True, kw_only=True)
class Summary(Row):
    """A cross-validation: mean and standard deviation of `metric` over `n` folds, and every fold's figures.

    The deviation is that of a sample, with n − 1. `top1`, with the ends of its 95 % interval, is the share of all
    `pictures` that the run which had not seen them has right; None where pictures may have several labels. `pooled` is
    `metric` over all those answers, of balanced accuracy and macro F1: a fold leaves a class out of which it holds no
    picture, so that the mean over the folds of a rare class flatters.
    """

    format: Format = FORMAT
    model: Text
    data: Text
    recipe: Text
    seed: CountOrNone
    group_by: str | None
    metric: Metric
    keep: Keep
    n: Count
    mean: Annotated[float, Within(-1)]
    std: NotNegative
    pictures: Count
    top1: Share | None
    low: Share | None
    high: Share | None
    folds: Annotated[tuple[FoldResult, ...], Some()]
    pooled: Share | None = None

    @property
    def pooled_text(self) -> str:
        """“50.00 % balanced accuracy over all 42 pictures”, or "" where the metric is not of classes."""
        if self.pooled is None:
            return ""
        return f"{100 * self.pooled:.2f} % {METRIC_NAMES[self.metric]} over all {self.pictures:,} pictures"

    @property
    def mean_text(self) -> str:
        """“92.31 ± 1.20 % top-1”; a loss without percent."""
        name = METRIC_NAMES[self.metric]
        if self.metric == "loss":
            return f"{name} {self.mean:.3f} ± {self.std:.3f}"
        return f"{100 * self.mean:.2f} ± {100 * self.std:.2f} % {name}"

    @property
    def sentence(self) -> str:
        """The result in a line."""
        said = f"{self.mean_text} (mean ± standard deviation of {self.n} folds)"
        if self.top1 is None or self.low is None or self.high is None:
            return said
        ends = f"95 % interval {100 * self.low:.2f} … {100 * self.high:.2f}"
        if self.pooled is not None:
            said = f"{said}; {self.pooled_text}"
        return (
            f"{said}; {100 * self.top1:.2f} % of all {self.pictures:,} pictures right, each by the run that had not "
            f"seen it ({ends})"
        )


@dataclass(frozen=True)
class OutOfFold:
    """The answers to every readable picture by the run that had not seen it: a sheet, in the order of the pictures.

    `answers` are None where pictures may have several labels; their `index` is the picture's place among all.
    """

    heads: tuple[str, ...]
    rows: Sequence[Sequence[str | int]]
    answers: Answers | None


def read_out_of_fold(folder: Path, folds: Folds) -> OutOfFold:
    """Put the predictions of all folds' runs together.

    Raises:
        DataError: a run has none, or they are of other pictures than its fold's.
    """
    several = folds.pictures.multi_label
    heads = LABEL_HEADS if several else HEADS
    found: dict[int, tuple[int, list[str]]] = {}
    for number in range(1, folds.count + 1):
        path = folder / fold_name(number) / PREDICTIONS
        own, rows = read_sheet(path)
        if own != heads:
            raise DataError(f"{path} has the columns {', '.join(own)}.", f"Expected {', '.join(heads)}.")
        places = folds.places(number)
        held_out = folds.splits(number)[1]
        place_of = {name_below(held_out, index): int(place) for index, place in enumerate(places)}
        for row in rows:
            if row[1] not in place_of:
                raise DataError(f"{path} has answers to {row[1]}, which is not in fold {number}.", "Train again.")
            found[place_of[row[1]]] = number, row
    order = sorted(found)
    rows_of_all: list[list[str | int]] = []
    for place in order:
        number, row = found[place]
        rows_of_all.append([row[0], name_below(folds.pictures, place), *row[2:], number])
    answers = None if several else _answers(folds, order, [found[place][1] for place in order])
    return OutOfFold((*heads, FOLD), rows_of_all, answers)


def _answers(folds: Folds, order: Sequence[int], rows: Sequence[Sequence[str]]) -> Answers:
    classes = {visible(name): place for place, name in enumerate(folds.pictures.classes)}
    return Answers(
        index=np.array(order, np.int64),
        label=np.array([classes[row[2]] for row in rows], np.int64),
        predicted=np.array([classes[row[3]] for row in rows], np.int64),
        label_score=np.array([row[4] for row in rows], np.float32),
        score=np.array([row[5] for row in rows], np.float32),
    )


def summarize(folder: Path, data: str, folds: Folds, answered: OutOfFold) -> Summary:
    """The figures of all folds' runs.

    Raises:
        CheckpointError: a run has no checkpoint that can be read, or it is not of its fold.
    """
    cards = []
    for number in range(1, folds.count + 1):
        path = folder / fold_name(number) / CHECKPOINT
        card, rule = read_card(path), fold_rule(number, folds.count)
        if card.provenance.get("hold_out") != rule:
            raise CheckpointError(f"{path} is not of {rule}.", "Move that run away; --resume trains it anew.")
        cards.append(card)
    results = tuple(
        _result(number, card, folds, _of_fold(answered, folds, number)) for number, card in enumerate(cards, start=1)
    )
    first = cards[0]
    metric: Metric = next(known for known in get_args(Metric) if known == first.recipe["metric"])
    figures = [figure for result in results if (figure := result.figure(metric)) is not None]
    top1, low, high = _pooled(answered)
    return Summary(
        model=first.variant.id,
        data=data,
        recipe=str(first.recipe["name"]),
        seed=first.provenance["seed"],
        group_by=first.provenance["group_by"],
        metric=metric,
        keep=first.recipe["keep"],
        n=len(figures),
        mean=fmean(figures),
        std=stdev(figures),
        pictures=len(answered.rows),
        folds=results,
        top1=top1,
        low=low,
        high=high,
        pooled=_of_classes(metric, answered.answers),
    )


def _of_classes(metric: Metric, answers: Answers | None) -> float | None:
    """The metric over all answers, if it is one of classes."""
    made = {"balanced_accuracy": balanced_accuracy, "macro_f1": macro_f1}.get(metric)
    return made(answers) if made and answers else None


def _pooled(answered: OutOfFold) -> tuple[float, float, float] | tuple[None, None, None]:
    """The share of all pictures that is right, and the ends of its 95 % interval."""
    answers = answered.answers
    if answers is None:
        return None, None, None
    right, total = int((answers.label == answers.predicted).sum()), len(answers.index)
    return right / total, *share_interval(right, total)


def _of_fold(answered: OutOfFold, folds: Folds, number: int) -> Answers | None:
    """The answers of one fold's run."""
    if answered.answers is None:
        return None
    own = folds.fold[answered.answers.index] == number
    return Answers(**{name: column[own] for name, column in vars(answered.answers).items()})


def _result(number: int, card: Checkpoint, folds: Folds, answers: Answers | None) -> FoldResult:
    said: Mapping[str, Any] = card.provenance
    held_out = len(folds.places(number))
    return FoldResult(
        fold=number,
        run=fold_name(number),
        train=len(folds.pictures) - held_out,
        val=held_out,
        broken=said["broken_pictures"],
        loss=said["val_loss"],
        top1=said["val_top1"],
        balanced_accuracy=balanced_accuracy(answers) if answers else None,
        macro_f1=macro_f1(answers) if answers else None,
        map=said["val_map"],
        epochs=said["epochs"],
        best_epoch=said["best_epoch"],
        image_size=card.preprocessing.image_size,
        learning_rate=card.recipe["learning_rate"],
        training_seconds=said["training_seconds"],
    )
