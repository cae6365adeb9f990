"""Owns the head start: a classifier fitted to the features of the weights as they are; nothing else learns.

It takes seconds, and is the figure that every later epoch has to beat. A network that begins from it has no phase in
which the gradients of an arbitrary classifier reach the backbone (Kumar et al. 2022, arXiv 2202.10054: linear probing,
then fine-tuning).
"""

from __future__ import annotations

import time
from contextlib import closing

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from train.learn.job import Job
from train.learn.run import HeadStart, Run, finite_or_none
from train.learn.validation import Judged, each_batch, validate_together
from train.progressive.budget import MOST_PICTURES, features_seen
from zoo.errors import DataError

# Of the mean squared weight of standardised features; the best on a held-out fifth of the training features is taken.
PENALTIES = (1e-1, 1e-2, 1e-3, 1e-4)
ITERATIONS = 60


def begin_with_fitted_head(run: Run, job: Job) -> tuple[HeadStart, Judged]:
    """Fit the classifier of a run that has not begun; the average gets it too. Returns the better one's validation.

    Raises:
        DataError: not one picture can be decoded. DivergedError: as `validate_together`.
    """
    began = time.monotonic()
    classifier = run.average.model.classifier
    before = _validate(run, job) if job.keeps_classifier else None
    features, labels = features_of(run, job)
    penalty = choose_penalty(features, labels, len(job.classes))
    own = classifier.weight.detach().clone(), classifier.bias.detach().clone()
    _set_classifier(run, *fit_classifier(features, labels, len(job.classes), penalty))
    result = _validate(run, job)
    kept = before is None or result.loss < before.loss
    if before is not None and not kept:
        _set_classifier(run, *own)
        result = before
    return HeadStart(
        top1=result.top1,
        loss=finite_or_none(result.loss),
        features=len(labels),
        penalty=penalty,
        seconds=time.monotonic() - began,
        kept=kept,
        map=result.map,
    ), result


def _validate(run: Run, job: Job) -> Judged:
    return validate_together(run.average.model, job.val_set, job.preprocessing, job.settings)


@torch.no_grad()
def features_of(run: Run, job: Job) -> tuple[Tensor, Tensor]:
    """Features (N, C) float32 of the training pictures as validation sees them, on the CPU, and their labels: (N,), or
    (N, K) bool where there may be several.

    Of more than `MOST_PICTURES` a random part; of `FEW_PICTURES` or fewer also mirrored, if that keeps the class.
    """
    rng = np.random.default_rng((job.settings.seed, 11))
    chosen = rng.permutation(len(job.train_set))[:MOST_PICTURES]
    model = run.average.model
    mirrored = features_seen(len(chosen), flip_keeps_class=job.train_set.flip_keeps_class) > len(chosen)
    views = 2 if mirrored else 1
    width = model.classifier.in_features

    def seen(inputs: Tensor) -> Tensor:
        """The features of each picture, and beside them those of its mirror image."""
        return torch.cat([model.features(view) for view in (inputs, inputs.flip(3))[:views]], 1)

    features, labels = [], []
    asked = each_batch(seen, job.train_set, job.preprocessing, job.settings, width=views * width, chosen=chosen)
    with closing(asked) as made:
        for found, batch in made:
            features.append(found.reshape(-1, width))
            labels.append(batch.labels.repeat_interleave(views, dim=0))
    if not sum(map(len, labels)):
        raise DataError("Not one training picture could be decoded.", "The files are damaged, or not pictures.")
    return torch.cat(features), torch.cat(labels)


def choose_penalty(features: Tensor, labels: Tensor, num_classes: int) -> float:
    """The penalty whose classifier, fitted to four fifths of the features, has the lowest loss on the last fifth."""
    cut = len(labels) * 4 // 5
    if cut < num_classes or len(labels) - cut < 2:
        return PENALTIES[0]
    losses = {}
    for penalty in PENALTIES:
        weight, bias = fit_classifier(features[:cut], labels[:cut], num_classes, penalty)
        losses[penalty] = _loss(F.linear(features[cut:], weight, bias), labels[cut:]).item()
    return min(losses, key=lambda penalty: losses[penalty])


def fit_classifier(features: Tensor, labels: Tensor, num_classes: int, penalty: float) -> tuple[Tensor, Tensor]:
    """Logistic regression by L-BFGS: weight (K, C) and bias (K,) for features (N, C) and labels (N,).

    With several labels, (N, K) bool, it is one of yes or no for each class.

    Features are standardised while it is fitted; what is returned takes them as they are.
    """
    mean, deviation = features.mean(0), features.std(0) + 1e-3
    standard = (features - mean) / deviation
    weight = torch.zeros(num_classes, features.shape[1], requires_grad=True)
    bias = torch.zeros(num_classes, requires_grad=True)
    solver = torch.optim.LBFGS([weight, bias], max_iter=ITERATIONS, line_search_fn="strong_wolfe")

    def loss() -> Tensor:
        solver.zero_grad()
        value = _loss(F.linear(standard, weight, bias), labels) + penalty * weight.square().sum()
        value.backward()  # type: ignore[no-untyped-call]
        return value

    with torch.enable_grad():
        solver.step(loss)  # type: ignore[no-untyped-call]
    raw = weight.detach() / deviation
    return raw, bias.detach() - raw @ mean


def _loss(logits: Tensor, labels: Tensor) -> Tensor:
    """Mean over pictures; of several labels the sum over the classes, so that each is fitted as if it were alone."""
    if labels.dim() == 1:
        return F.cross_entropy(logits, labels)
    return F.binary_cross_entropy_with_logits(logits, labels.float(), reduction="none").sum(1).mean()


@torch.no_grad()
def _set_classifier(run: Run, weight: Tensor, bias: Tensor) -> None:
    for model in (run.model, run.average.model):
        model.classifier.weight.copy_(weight)
        model.classifier.bias.copy_(bias)
