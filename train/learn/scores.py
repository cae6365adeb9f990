"""Owns figures of merit of a validation, as pure functions of its answers; which one chooses is the recipe's word."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from train.learn.label_answers import LabelValidation
from train.learn.validation import Answers, Judged, Validation
from train.options import COUNTS_CLASSES_ALIKE, Metric

Counts = NDArray[np.int64]
# Probabilities of float32 may be 0, of which there is no logarithm.
SMALLEST_SCORE = 1e-12


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


def balanced_loss(answers: Answers) -> float:
    """The mean over the classes that have pictures of −log p of the true class: the loss if all had equally many."""
    counts = np.bincount(answers.label)
    sums = np.bincount(answers.label, -np.log(np.maximum(answers.label_score, SMALLEST_SCORE)))
    return float((sums[counts > 0] / counts[counts > 0]).mean())


def balanced_figure(result: Judged, metric: Metric) -> float | None:
    """The balanced accuracy, where that is the metric."""
    if isinstance(result, LabelValidation) or metric != "balanced_accuracy":
        return None
    return balanced_accuracy(result.answers)


def weight_of(answers: Answers, metric: Metric) -> float:
    """How many pictures, of classes equally many, a metric is as sure by as it is by these.

    The variance of a mean of K recalls is Σ p (1 − p) / nₖ / K²: that of K² / Σ 1/nₖ pictures. 200 good and 10
    scratched ones are as good as 38. Of the share of right answers it is all of them.
    """
    if metric not in COUNTS_CLASSES_ALIKE:
        return float(len(answers.label))
    counts = np.bincount(answers.label)
    there = counts[counts > 0]
    return float(len(there) ** 2 / (1 / there).sum())


# What the best epoch has most of.
SCORES: dict[Metric, Callable[[Validation], float]] = {
    "top1": lambda result: result.top1,
    "loss": lambda result: -result.loss,
    "balanced_accuracy": lambda result: balanced_accuracy(result.answers),
    "macro_f1": lambda result: macro_f1(result.answers),
}


def score_of(result: Judged, metric: Metric) -> tuple[float, float]:
    """What decides which of two validations is better, the larger one: the metric, then the loss of its kind."""
    if isinstance(result, LabelValidation):
        return (-result.loss if metric == "loss" else result.map), -result.loss
    alike = metric in COUNTS_CLASSES_ALIKE
    return SCORES[metric](result), -balanced_loss(result.answers) if alike else -result.loss
