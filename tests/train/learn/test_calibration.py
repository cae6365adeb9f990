"""Scores and how often they are right: the error, and the temperature that mends it."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from train.learn import validation
from train.learn.calibration import answers_at, calibration_error, fit_temperature, reliability
from train.learn.validation import Sample, merge_validations, validate
from train.settings import Settings
from zoo.data.open import open_splits
from zoo.model.build import build_network
from zoo.model.variants import find_variant


def a_sample(temperature: float, count: int = 20_000) -> Sample:
    """Labels drawn from the softmax of logits, which are then multiplied: the temperature mends exactly that."""
    rng = np.random.default_rng(0)
    logits = rng.normal(0, 2, (count, 5)).astype(np.float32)
    noise = rng.gumbel(size=logits.shape)
    return Sample(logits * np.float32(temperature), (logits + noise).argmax(1))


@pytest.mark.parametrize("temperature", [0.4, 1.0, 3.0])
def test_the_temperature_that_spoilt_the_scores_is_found_and_mends_them(temperature: float) -> None:
    sample = a_sample(temperature)
    found = fit_temperature(sample)
    assert found == pytest.approx(temperature, rel=0.03)
    mended = calibration_error(reliability(*answers_at(sample, found)))
    assert mended < 0.02
    if temperature != 1:
        assert calibration_error(reliability(*answers_at(sample, 1.0))) > 5 * mended


def test_there_is_no_temperature_where_every_answer_is_right_or_none() -> None:
    right = Sample(np.eye(3, dtype=np.float32)[[0, 1, 2, 0]], np.array([0, 1, 2, 0]))
    assert fit_temperature(right) is None
    assert fit_temperature(Sample(right.logits, np.array([1, 2, 0, 1]))) is None
    assert fit_temperature(None) is None


def test_huge_logits_overflow_nothing() -> None:
    sample = a_sample(1.0, count=200)
    assert fit_temperature(Sample(sample.logits * 1e4, sample.label)) is None  # it would be 10,000
    score, right = answers_at(Sample(sample.logits * 1e4, sample.label), 1.0)
    assert np.isfinite(score).all()
    assert len(right) == 200


def test_the_error_is_the_mean_gap_between_score_and_share() -> None:
    score = np.array([0.9, 0.9, 0.9, 0.9, 0.3])
    bins = reliability(score, np.array([True, True, True, False, False]))
    assert [(part.count, part.right) for part in bins] == [(1, 0.0), (4, 0.75)]
    assert calibration_error(bins) == pytest.approx((4 * 0.15 + 1 * 0.3) / 5)
    assert reliability(np.ones(2), np.array([True, True]))[0].count == 2


def test_a_validation_keeps_logits_of_pictures_that_are_spread_over_the_set(monkeypatch: pytest.MonkeyPatch) -> None:
    _, val = open_splits("digits")
    torch.manual_seed(0)
    model = build_network(find_variant("tiny"), 10).eval()
    settings = Settings(device=torch.device("cpu"), precision="fp32", seed=0, workers=0)

    def kept(pictures: int) -> Sample:
        result = validate(model, val.head(pictures), find_variant("tiny").preprocessing.at(16), settings)
        assert result.sample is not None
        return result.sample

    whole = kept(100)
    assert whole.logits.shape == (100, 10)
    monkeypatch.setattr(validation, "SAMPLED_VALUES", 250)
    part = kept(100)
    np.testing.assert_array_equal(part.logits, whole.logits[::4])
    np.testing.assert_array_equal(part.label, whole.label[::4])


def test_several_processes_join_what_they_kept() -> None:
    _, val = open_splits("digits")
    settings = Settings(device=torch.device("cpu"), precision="fp32", seed=0, workers=0)
    model = build_network(find_variant("tiny"), 10).eval()
    shares = [np.arange(rank, 50, 2) for rank in range(2)]
    preprocessing = find_variant("tiny").preprocessing.at(16)
    joined = merge_validations([validate(model, val, preprocessing, settings, share) for share in shares])
    assert joined.sample is not None
    assert sorted(joined.sample.label) == sorted(val.labels[:50])
