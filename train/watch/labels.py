"""Owns the page's and the tables' part on several labels: each class's figures, and answers; it runs no network."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from train.learn.job import Job
from train.learn.label_answers import LabelAnswers, LabelValidation
from train.spreadsheets import LABEL_SEPARATOR
from train.watch.classes import (
    CSV_HEADS,
    SEEN,
    SEEN_NOTE,
    SHOWN_CLASSES,
    ClassLine,
    class_lines,
    csv_row,
    times_seen_by_name,
    with_interval,
)
from train.watch.thumbnails import Drawn
from zoo.data.fingerprint import name_below
from zoo.data.pictures import Pictures
from zoo.label_scores import average_precisions
from zoo.page.elements import table
from zoo.page.markup import Child, Markup, join, tag
from zoo.visible import visible
from zoo.wording import percent

LABEL_CSV_HEADS = (*CSV_HEADS, "average_precision", "threshold")
NUM_PICTURES = 24


class LabelLine(NamedTuple):
    """A class, its average precision (NaN without pictures), and the score from which on it is answered."""

    counts: ClassLine
    average_precision: float
    threshold: float


def label_lines(job: Job, answers: LabelAnswers, thresholds: NDArray[np.float64]) -> list[LabelLine]:
    """Every class in the order of the data."""
    found = average_precisions(answers.scores, answers.targets)
    counted = {line.name: line for line in class_lines(job, answers.count(thresholds))}
    return [
        LabelLine(counted[name], float(precision), float(threshold))
        for name, precision, threshold in zip(job.classes, found, thresholds, strict=True)
    ]


def labels_sections(job: Job, validation: LabelValidation, test: LabelValidation | None, drawn: Drawn) -> list[Markup]:
    """The classes as a table, the weakest first, and the validation pictures whose labels are answered worst.

    The table is of the test pictures, where there are any; thresholds are always those of the validation pictures.
    """
    judged, split = (test, "test") if test else (validation, "validation")
    return [
        _classes_section(job, label_lines(job, judged.answers, validation.thresholds), split),
        *_worst_section(job, validation, drawn),
    ]


def label_headlines(validation: LabelValidation, test: LabelValidation | None) -> Iterator[str]:
    """What there is to say besides mAP."""
    judged, split = (test, "test") if test else (validation, "validation")
    counts = judged.answers.count(validation.thresholds)
    flattered = "" if test else ", which flatters it a little"
    known = int((counts.pictures > 0).sum())
    yield (
        f"With a threshold for each class, chosen by the validation pictures{flattered}: micro F1 "
        f"{100 * counts.micro_f1:.1f} %, macro F1 {100 * counts.macro_f1:.1f} % on "
        f"{len(judged.answers.index):,} {split} pictures; mAP and macro F1 are means over the {known:,} classes "
        "that have pictures there."
    )


def _classes_section(job: Job, lines: Sequence[LabelLine], split: str) -> Markup:
    seen = times_seen_by_name(job)
    heads = ["class", "AP", "F1", "recall", "precision", "n", "threshold", "training"]
    heads += [SEEN, "validation"] if seen else ["validation"]
    heads += ["test"] if job.test_set else []
    rows: list[list[Child]] = []
    for line in sorted(lines, key=lambda line: 2.0 if math.isnan(line.average_precision) else line.average_precision):
        counts = line.counts
        precision = "–" if math.isnan(line.average_precision) else percent(line.average_precision)
        figures = [with_interval(each) for each in (counts.f1, counts.recall, counts.precision)]
        often = [seen.get(counts.name, "–")] if seen else []
        pictures: list[Child] = [f"{counts.train:,}", *often, f"{counts.val:,}"]
        pictures += [f"{counts.test:,}"] if counts.test is not None else []
        rows.append([counts.name, precision, *figures, f"{counts.pictures:,}", f"{line.threshold:.2f}", *pictures])
    more = f" The {SHOWN_CLASSES} weakest are shown; classes.csv has all." if len(lines) > SHOWN_CLASSES else ""
    note = (
        f"{len(lines):,} classes, the lowest average precision first. A picture counts for each of its labels; n is "
        f"the number of {split} pictures with the label. F1, recall and precision are at the threshold; 95 % intervals "
        f"are Wilson's.{SEEN_NOTE if seen else ''}{more}"
    )
    shown = table(heads, rows[:SHOWN_CLASSES])
    return tag("section", tag("h2", "Classes"), tag("p", note, class_="note"), shown, class_="classes")


def _worst_section(job: Job, validation: LabelValidation, drawn: Drawn) -> list[Markup]:
    """The pictures whose answer differs from their labels, those with the highest loss first."""
    answers = validation.answers
    answered = answers.scores >= validation.thresholds
    wrong = np.flatnonzero((answered != answers.targets).any(1))
    heading = tag("h2", "Pictures with other labels than their own")
    if not len(wrong):
        return [tag("section", heading, tag("p", "Every validation picture gets its own labels."))]
    agreed = np.where(answers.targets, answers.scores, 1 - answers.scores)[wrong]
    loss = -np.log(np.maximum(agreed, np.finfo(np.float32).tiny)).sum(1)
    places = wrong[np.argsort(-loss, kind="stable")][:NUM_PICTURES].tolist()
    drawn.update(job.val_set, answers.index[places].tolist())
    figures = (
        drawn.figure(job.val_set, int(answers.index[place]), _differing(job, answers, answered, place))
        for place in places
    )
    note = (
        f"{len(places)} of {len(wrong):,}, the highest loss first: − is a label that was not answered, + an answer "
        "that is no label of it, with their scores."
    )
    return [tag("section", heading, tag("p", note, class_="note"), tag("div", *figures, class_="pictures"))]


def _differing(job: Job, answers: LabelAnswers, answered: NDArray[np.bool_], place: int) -> Markup:
    parts: list[Child] = []
    for which in np.flatnonzero(answered[place] != answers.targets[place]).tolist():
        sign = "+ " if answered[place, which] else "− "
        score = tag("span", percent(float(answers.scores[place, which])), class_="muted")
        parts += [tag("br") if parts else None, sign, job.classes[which], " ", score]
    return join(*parts)


def label_csv_rows(
    job: Job, answers: LabelAnswers, thresholds: NDArray[np.float64], split: str
) -> Iterator[list[str | int | float | None]]:
    """The lines of classes.csv."""
    for line in label_lines(job, answers, thresholds):
        precision = None if math.isnan(line.average_precision) else line.average_precision
        yield [*csv_row(line.counts, split), precision, line.threshold]


def label_predictions(
    split: str, pictures: Pictures, answers: LabelAnswers, thresholds: NDArray[np.float64]
) -> Iterator[list[str | int | float | None]]:
    """The lines of predictions.csv: each picture's labels, those answered, and the scores of these."""
    names = [visible(name) for name in pictures.classes]
    for index, targets, scores in zip(answers.index.tolist(), answers.targets, answers.scores, strict=True):
        answered = np.flatnonzero(scores >= thresholds)
        labels = LABEL_SEPARATOR.join(names[place] for place in np.flatnonzero(targets))
        found = LABEL_SEPARATOR.join(names[place] for place in answered)
        said = LABEL_SEPARATOR.join(f"{score:.6g}" for score in scores[answered].tolist())
        yield [split, name_below(pictures, index), labels, found, said]
