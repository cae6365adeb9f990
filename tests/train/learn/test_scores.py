"""Figures of merit are what they say, by hand."""

from __future__ import annotations

import numpy as np
import pytest

from train.learn.scores import balanced_figure, balanced_loss, score_of, weight_of
from train.learn.validation import Answers, Validation


def judged(label: list[int], predicted: list[int], own_score: list[float]) -> Validation:
    columns = np.array(label), np.array(predicted), np.array(own_score, np.float32)
    answers = Answers(np.arange(len(label)), *columns, columns[2])
    return Validation(0.25, float((columns[0] == columns[1]).mean()), (), answers)


# Three of class 0, one right in two of class 1, none of class 2.
UNEQUAL = judged([0, 0, 0, 1, 1], [0, 0, 0, 1, 0], [1.0, 1.0, 1.0, 0.5, 0.0])


def test_a_rare_class_counts_as_much_in_the_balanced_loss() -> None:
    without = judged([0, 0, 0, 1], [0, 0, 0, 1], [1.0, 1.0, 1.0, 0.5])
    assert balanced_loss(without.answers) == pytest.approx(np.log(2) / 2)
    assert np.isfinite(balanced_loss(UNEQUAL.answers))  # a score of 0 has no logarithm


def test_what_counts_classes_alike_is_known_by_the_pictures_of_the_rarest() -> None:
    answers = judged([0] * 200 + [1] * 10, [0] * 210, [0.5] * 210).answers
    assert weight_of(answers, "top1") == 210
    assert weight_of(answers, "balanced_accuracy") == pytest.approx(4 / (1 / 200 + 1 / 10))
    assert weight_of(judged([0, 1, 2] * 7, [0] * 21, [0.5] * 21).answers, "macro_f1") == pytest.approx(21)


def test_the_loss_that_decides_is_of_the_metrics_kind() -> None:
    assert score_of(UNEQUAL, "top1") == (0.8, -0.25)
    assert score_of(UNEQUAL, "balanced_accuracy") == (0.75, -balanced_loss(UNEQUAL.answers))
    assert balanced_figure(UNEQUAL, "balanced_accuracy") == 0.75
    assert balanced_figure(UNEQUAL, "top1") is None
