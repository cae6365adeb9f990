"""Owns what a network answered to pictures that may have several labels, and what that is worth; it asks none."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import chain

import numpy as np
from numpy.typing import NDArray

from zoo.label_scores import LabelCounts, average_precisions, choose_thresholds, count_labels, mean_average_precision


@dataclass(frozen=True)
class LabelAnswers:
    """The answers to the readable pictures: their indices in the set (N,), what is true (N, K) and scores (N, K)."""

    index: NDArray[np.int64]
    targets: NDArray[np.bool_]
    scores: NDArray[np.float32]

    def count(self, thresholds: NDArray[np.float64]) -> LabelCounts:
        """The labels of each class that are there, answered, and right."""
        return count_labels(self.scores, self.targets, thresholds)


@dataclass(frozen=True)
class LabelValidation:
    """`train.learn.validation.Validation` of pictures with several labels: mAP is in the place of top-1.

    The loss is the sum over the classes, the mean over pictures, as in training. No temperature is fitted to several
    labels.
    """

    loss: float
    broken: tuple[str, ...]
    answers: LabelAnswers
    unusable: int = 0
    top1: None = None

    @cached_property
    def map(self) -> float:
        """The mean over the classes of `average_precisions`."""
        return mean_average_precision(self.answers.scores, self.answers.targets)

    @cached_property
    def average_precisions(self) -> NDArray[np.float64]:
        """Of each class (K,); NaN of one without pictures."""
        return average_precisions(self.answers.scores, self.answers.targets)

    @cached_property
    def thresholds(self) -> NDArray[np.float64]:
        """From which score on each class is answered, (K,), as these pictures choose it."""
        return choose_thresholds(self.answers.scores, self.answers.targets)


def merge_label_validations(parts: Sequence[LabelValidation]) -> LabelValidation:
    """Join validations of different pictures into one."""
    index = np.concatenate([part.answers.index for part in parts])
    order = index.argsort(kind="stable")
    targets = np.concatenate([part.answers.targets for part in parts])
    scores = np.concatenate([part.answers.scores for part in parts])
    return LabelValidation(
        sum(part.loss * len(part.answers.index) for part in parts) / len(index),
        tuple(chain.from_iterable(part.broken for part in parts)),
        LabelAnswers(index[order], targets[order], scores[order]),
        sum(part.unusable for part in parts),
    )
