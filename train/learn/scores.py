"""Owns figures of merit of a validation, as pure functions of its answers; which one chooses is the recipe's word."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from train.learn.label_answers import LabelValidation
from train.learn.validation import Answers, Judged, Validation
from train.options import Metric

Counts = NDArray[np.int64]


def count_confusion(answers: Answers, num_classes: int) -> Counts:
    """The confusion matrix (K, K), true classes down; for a few thousand classes at most."""
    cells = np.bincount(answers.label * num_classes + answers.predicted, minlength=num_classes**2)
    return cells.reshape(num_classes, num_classes)


@dataclass(frozen=True)
class ClassCounts:
    """Of each class (K,): its pictures, the answers that name it, and those of them that are right."""

    pictures: Counts
    answers: Counts
    right: Counts


def count_classes(answers: Answers, num_classes: int) -> ClassCounts:
    """What precision, recall and F1 of every class are made of."""
    right = answers.label[answers.label == answers.predicted]
    return ClassCounts(
        *(np.bincount(each, minlength=num_classes) for each in (answers.label, answers.predicted, right))
    )


def balanced_accuracy(answers: Answers) -> float:
    """The mean recall over the classes that have pictures: every class counts the same, however few it has."""
    counts, known = _counts_of_known(answers)
    return float((counts.right[known] / counts.pictures[known]).mean())


def macro_f1(answers: Answers) -> float:
    """The mean F1 over the classes that have pictures: 2·right / (pictures of the class + answers of the class)."""
    counts, known = _counts_of_known(answers)
    return float((2 * counts.right[known] / (counts.pictures[known] + counts.answers[known])).mean())


def _counts_of_known(answers: Answers) -> tuple[ClassCounts, NDArray[np.bool_]]:
    """The counts of every class that is there or was answered, and which of them have pictures."""
    counts = count_classes(answers, int(max(answers.label.max(), answers.predicted.max())) + 1)
    return counts, counts.pictures > 0


# What the best epoch has most of.
SCORES: dict[Metric, Callable[[Validation], float]] = {
    "top1": lambda result: result.top1,
    "loss": lambda result: -result.loss,
    "balanced_accuracy": lambda result: balanced_accuracy(result.answers),
    "macro_f1": lambda result: macro_f1(result.answers),
}


def score_of(result: Judged, metric: Metric) -> tuple[float, float]:
    """What decides which of two validations is better, the larger one: the metric, then the loss."""
    if isinstance(result, LabelValidation):
        return (-result.loss if metric == "loss" else result.map), -result.loss
    return SCORES[metric](result), -result.loss
