"""The classifier a run begins with, and what is said of a run that does not begin where guessing does."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn import functional as F

from train.input.loader import Batch
from train.learn.head_start import PENALTIES, STRONGER, choose_penalty, fit_classifier
from train.learn.run import enter_stage, start_run
from train.learn.step import train_step
from train.learn.throughput import noise_job
from train.options import TrainOptions
from train.progressive.recipe import Situation, find_recipe
from train.session import train_model
from train.settings import Settings
from zoo.model.spec import Variant
from zoo.model.variants import VARIANTS

SETTINGS = Settings(device=torch.device("cpu"), precision="fp32", seed=0, workers=0)


def thin(variant: Variant) -> Variant:
    """The row with one or two layers a stage: every kind of stage, in a fraction of the time."""
    return replace(
        variant, stages=tuple(replace(stage, num_layers=min(stage.num_layers, 2)) for stage in variant.stages)
    )


NETWORKS = [variant for variant in VARIANTS if not variant.is_resnet]
TINY = next(variant for variant in NETWORKS if variant.id == "tiny")


@pytest.mark.parametrize(
    ("variant", "num_classes"),
    [*((variant, 7) for variant in NETWORKS), (TINY, 2), (TINY, 1000)],
    ids=lambda value: getattr(value, "id", str(value)),
)
def test_every_network_begins_where_guessing_does(variant: Variant, num_classes: int) -> None:
    """ln K for cross-entropy with smoothing; K · ln 2 for BCE; whatever the number of classes."""
    small = thin(variant)
    generator = torch.Generator().manual_seed(0)
    pictures = torch.randint(0, 256, (4, 32, 32, 3), dtype=torch.uint8, generator=generator)
    batch = Batch(pictures, torch.arange(4) % num_classes, (), torch.arange(4))
    for loss, chance in (("cross_entropy", math.log(num_classes)), ("bce", num_classes * math.log(2))):
        recipe = replace(find_recipe("folder", small, Situation(variant=small)), loss=loss)
        job = noise_job(small, recipe, SETTINGS, num_classes)
        run = start_run(job)
        enter_stage(run, recipe.stages[-1], SETTINGS)
        loss_sum, _, count = train_step(run, job, recipe.stages[-1], [batch], np.random.default_rng(0))
        assert loss_sum.item() / count == pytest.approx(chance, rel=0.02)
        assert run.first_loss is not None
        assert run.first_loss[1].item() == pytest.approx(chance, rel=0.02)


def test_a_classifier_is_fitted_to_what_can_be_told_apart() -> None:
    generator = torch.Generator().manual_seed(0)
    centres = torch.randn(5, 64, generator=generator)
    labels = torch.arange(500) % 5
    features = 3.0 + centres[labels] * 2 + torch.randn(500, 64, generator=generator)  # not standardised
    weight, bias = fit_classifier(features[:400], labels[:400], 5, 1e-2)
    logits = F.linear(features[400:], weight, bias)
    assert (logits.argmax(1) == labels[400:]).float().mean() > 0.98
    noise = torch.randint(0, 5, (500,), generator=generator)
    assert choose_penalty(features, labels, 5) in PENALTIES
    assert choose_penalty(features, noise, 5) in STRONGER[1:]  # nothing to learn: the most cautious


@pytest.mark.parametrize("pictures", [24, 100])
def test_a_classifier_of_features_that_tell_nothing_is_no_surer_than_chance(pictures: int) -> None:
    """So that training does not begin far above ln K, from where it takes many steps to come back."""
    generator = torch.Generator().manual_seed(1)
    features, labels = torch.randn(2 * pictures, 256, generator=generator), torch.arange(2 * pictures) % 4
    penalty = choose_penalty(features[:pictures], labels[:pictures], 4)
    for seen in (slice(0, pictures), slice(pictures, None)):
        logits = F.linear(features[seen], *fit_classifier(features[:pictures], labels[:pictures], 4, penalty))
        assert F.cross_entropy(logits, labels[seen]).item() < 1.1 * math.log(4)


def test_a_classifier_is_fitted_with_the_frequencies_of_training() -> None:
    """Nothing tells the classes apart, and one has nine in ten: weights make it undecided."""
    generator = torch.Generator().manual_seed(0)
    features, labels = torch.randn(500, 8, generator=generator), (torch.arange(500) % 10 == 0).long()
    chance = {
        weights: F.linear(features, *fit_classifier(features, labels, 2, 1.0, weights)).softmax(1)[:, 1].mean().item()
        for weights in (None, torch.tensor([5 / 9, 5.0]))
    }
    assert list(chance.values()) == pytest.approx([0.1, 0.5], abs=0.02)
    for weights in (None, torch.tensor([5 / 9, 5.0])):
        assert choose_penalty(features, labels, 2, weights) in STRONGER[1:]


def test_several_labels_get_a_regression_each() -> None:
    generator = torch.Generator().manual_seed(0)
    labels = torch.rand(500, 3, generator=generator) < 0.3
    directions = torch.randn(3, 64, generator=generator)
    features = 2.0 + labels.float() @ directions * 3 + torch.randn(500, 64, generator=generator)
    weight, bias = fit_classifier(features[:400], labels[:400], 3, 1e-2)
    scores = F.linear(features[400:], weight, bias).sigmoid()
    assert ((scores > 0.5) == labels[400:]).float().mean() > 0.98
    noise = torch.rand(500, 3, generator=generator) < 0.3
    assert choose_penalty(features, noise, 3) in STRONGER[1:]


def test_known_classes_keep_a_classifier_that_is_better(tiny_run: Path, small: Callable, tmp_path: Path) -> None:
    """A run that goes on from its own weights does not forget its classifier for a linear one."""
    options = TrainOptions(model=str(tiny_run), recipe="finetune", epochs=1, batch_size=64, device="cpu", workers=0)
    outcome = train_model(replace(options, image_size=32, out=tmp_path / "run"))
    found = outcome.head_start
    assert found is not None and found.top1 >= 0.7
    assert outcome.result.top1 >= found.top1


def test_a_classifier_that_is_no_beginning_is_said(
    small: Callable, picture_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As a new classifier at ±1/√K once was: the first loss is many times that of guessing."""
    import train.learn.run as module

    build = module.build_network
    said: list[str] = []
    monkeypatch.setattr("train.watch.live.LiveView.on_remark", lambda self, remark: said.append(remark))
    assert train_model(small(picture_folder, tmp_path / "good")).history
    assert said == []

    def arbitrary(*arguments: object, **named: object) -> nn.Module:
        model = build(*arguments, **named)
        model.classifier.weight.requires_grad_(True)
        return model

    monkeypatch.setattr("train.learn.run.build_network", arbitrary)
    monkeypatch.setattr("train.learn.run.nn.init.zeros_", lambda tensor: nn.init.normal_(tensor, std=3.0))
    train_model(small(picture_folder, tmp_path / "bad"))
    assert len(said) == 1 and "where guessing costs 1.1" in said[0]
    assert "where guessing costs" in (tmp_path / "bad" / "report.html").read_text()
