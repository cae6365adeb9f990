"""Owns what answers with several labels a picture are worth: average precision, F1, thresholds, loss; it runs none.

Scores are (N, K) in 0…1, targets (N, K) bool, thresholds (K,): a class is answered where its score reaches its own.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

DEFAULT_THRESHOLD = 0.5
# A class with fewer pictures to choose its threshold by keeps the default: the best one of four is mostly chance.
FEWEST_PICTURES = 5


def sigmoid(logits: NDArray[np.float32]) -> NDArray[np.float32]:
    """Scores in 0…1 from logits, each on its own, without overflow."""
    powers = np.exp(-np.abs(logits))
    scores: NDArray[np.float32] = np.where(logits >= 0, 1, powers) / (1 + powers)
    return scores


def average_precisions(scores: NDArray[np.float32], targets: NDArray[np.bool_]) -> NDArray[np.float64]:
    """The average precision of each class, (K,): Σ (R_n − R_n−1) P_n over its distinct scores, the highest first.

    That is scikit-learn's `average_precision_score`: not interpolated, and equal scores are one step. NaN of a class
    without pictures. Of a class with pictures at the ranks 1 and 3: (1/1 + 2/3) / 2 = 0.833.
    """
    found = np.full(targets.shape[1], np.nan)
    for place in np.flatnonzero(targets.any(0)):
        _, right, answered = _steps(scores[:, place], targets[:, place])
        gained = np.diff(right, prepend=0)
        found[place] = (gained * right / answered).sum() / right[-1]
    return found


def mean_average_precision(scores: NDArray[np.float32], targets: NDArray[np.bool_]) -> float:
    """The mean of `average_precisions` over the classes that have pictures (macro mAP); 0 if none has."""
    found = average_precisions(scores, targets)
    return float(np.nanmean(found)) if targets.any() else 0.0


def choose_thresholds(scores: NDArray[np.float32], targets: NDArray[np.bool_]) -> NDArray[np.float64]:
    """The threshold of each class at which its F1 is highest, (K,): in the middle between two scores.

    `DEFAULT_THRESHOLD` of a class with fewer than `FEWEST_PICTURES` pictures.
    """
    chosen = np.full(targets.shape[1], DEFAULT_THRESHOLD)
    for place in np.flatnonzero(targets.sum(0) >= FEWEST_PICTURES):
        values, right, answered = _steps(scores[:, place], targets[:, place])
        best = int(np.argmax(2 * right / (answered + right[-1])))
        below = float(values[best + 1]) if best + 1 < len(values) else 0.0
        chosen[place] = (float(values[best]) + below) / 2
    return chosen


def _steps(
    scores: NDArray[np.float32], targets: NDArray[np.bool_]
) -> tuple[NDArray[np.float32], NDArray[np.int64], NDArray[np.int64]]:
    """Of one class: its distinct scores, the highest first; how many answers reach each, and how many are right."""
    order = np.argsort(-scores, kind="stable")
    ordered = scores[order]
    last = np.flatnonzero(np.append(ordered[1:] != ordered[:-1], True))
    right = np.cumsum(targets[order], dtype=np.int64)[last]
    return ordered[last], right, last + 1


@dataclass(frozen=True)
class LabelCounts:
    """Of each class (K,): its pictures, the answers that name it, and those of them that are right."""

    pictures: NDArray[np.int64]
    answers: NDArray[np.int64]
    right: NDArray[np.int64]

    @property
    def micro_f1(self) -> float:
        """F1 of all labels together, in which frequent classes count more."""
        total = self.pictures.sum() + self.answers.sum()
        return float(2 * self.right.sum() / total) if total else 0.0

    @property
    def macro_f1(self) -> float:
        """The mean F1 of the classes that have pictures: each counts the same."""
        known = self.pictures > 0
        if not known.any():
            return 0.0
        return float((2 * self.right[known] / (self.pictures[known] + self.answers[known])).mean())


def count_labels(
    scores: NDArray[np.float32], targets: NDArray[np.bool_], thresholds: NDArray[np.float64]
) -> LabelCounts:
    """What precision, recall and F1 of every class are made of."""
    answered = scores >= thresholds
    sums: list[NDArray[Any]] = [each.sum(0) for each in (targets, answered, targets & answered)]
    return LabelCounts(*sums)


def binary_cross_entropy(logits: NDArray[np.float32], targets: NDArray[np.bool_]) -> NDArray[np.float64]:
    """−Σ_k log of the score of what is true of class k, in nats, without overflow. (N, K) and (N, K) → (N,)."""
    signed = np.where(targets, logits, -logits).astype(np.float64)
    loss: NDArray[np.float64] = np.logaddexp(0.0, -signed).sum(1)
    return loss
