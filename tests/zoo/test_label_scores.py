from __future__ import annotations

import warnings

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from zoo.label_scores import (
    average_precisions,
    binary_cross_entropy,
    choose_thresholds,
    count_labels,
    mean_average_precision,
    sigmoid,
)


def test_average_precision_of_a_hand_computed_example() -> None:
    """Right at ranks 1 and 3: (1/1 + 2/3) / 2; right at rank 2 only: 1/2; a class without pictures has none."""
    scores = np.array([[0.9, 0.9, 0.1], [0.8, 0.8, 0.2], [0.7, 0.7, 0.3]], np.float32)
    targets = np.array([[1, 0, 0], [0, 1, 0], [1, 0, 0]], np.bool_)
    found = average_precisions(scores, targets)
    assert found[:2].tolist() == pytest.approx([5 / 6, 1 / 2])
    assert np.isnan(found[2])
    assert mean_average_precision(scores, targets) == pytest.approx((5 / 6 + 1 / 2) / 2)
    assert mean_average_precision(scores, np.zeros_like(targets)) == 0.0


@given(st.integers(0, 1000), st.integers(1, 60))
def test_average_precision_and_f1_are_scikit_learns(seed: int, count: int) -> None:
    from sklearn.metrics import average_precision_score, f1_score

    rng = np.random.default_rng(seed)
    scores = rng.integers(0, 10, (count, 4)).astype(np.float32) / 10  # with many ties
    targets = rng.random((count, 4)) < 0.4
    ours = average_precisions(scores, targets)
    for place in np.flatnonzero(targets.any(0)):
        assert ours[place] == pytest.approx(average_precision_score(targets[:, place], scores[:, place]))
    thresholds = np.array([0.3, 0.5, 0.5, 0.8])
    counts = count_labels(scores, targets, thresholds)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of classes without pictures
        known = targets.any(0)
        assert counts.micro_f1 == pytest.approx(f1_score(targets, scores >= thresholds, average="micro"))
        if known.any():
            theirs = f1_score(targets[:, known], (scores >= thresholds)[:, known], average="macro")
            assert counts.macro_f1 == pytest.approx(theirs)


@given(st.integers(0, 1000))
def test_no_other_threshold_has_a_higher_f1(seed: int) -> None:
    rng = np.random.default_rng(seed)
    scores = rng.random((40, 1)).astype(np.float32)
    targets = rng.random((40, 1)) < scores
    if targets.sum() < 5:
        return
    best = count_labels(scores, targets, choose_thresholds(scores, targets)).macro_f1
    for other in np.linspace(0, 1, 101):
        assert count_labels(scores, targets, np.array([other])).macro_f1 <= best + 1e-12


def test_a_class_with_few_pictures_keeps_the_default_threshold() -> None:
    scores = np.linspace(0.01, 0.3, 10, dtype=np.float32)[:, None]
    assert choose_thresholds(scores, (np.arange(10) >= 6)[:, None]).tolist() == [0.5]
    chosen = choose_thresholds(scores, (np.arange(10) >= 5)[:, None])
    assert scores[4, 0] < chosen[0] < scores[5, 0]


def test_scores_and_losses_of_large_logits_are_finite() -> None:
    logits = np.array([[-1000.0, 1000.0, 0.0]], np.float32)
    assert sigmoid(logits).tolist() == [[0.0, 1.0, 0.5]]
    assert sigmoid(logits).dtype == np.float32
    targets = np.array([[True, True, False]])
    assert binary_cross_entropy(logits, targets).tolist() == pytest.approx([1000 + np.log(2)])
