"""Owns the head start: a classifier fitted to the features of the weights as they are; nothing else learns.

It takes seconds, and is the figure that every later epoch has to beat. A network that begins from it has no phase in
which the gradients of an arbitrary classifier reach the backbone (Kumar et al. 2022, arXiv 2202.10054: linear probing,
then fine-tuning).
"""

from __future__ import annotations

import time
from contextlib import closing
from dataclasses import dataclass
from functools import partial

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional as F

from train.learn.best import judged_by
from train.learn.job import Job
from train.learn.run import HeadStart, Run, finite_or_none, merit_of
from train.learn.scores import balanced_figure
from train.learn.suitability import is_clear_fall, mirrors_mislead, right_answers
from train.learn.validation import Judged, each_batch, glanced_at, validate_together
from train.options import Metric
from train.progressive.budget import GLANCE_PICTURES, MOST_PICTURES, mirrored_pictures
from train.progressive.recipe import tested_size
from zoo.errors import DataError
from zoo.model.network import Network
from zoo.model.spec import Preprocessing

# Of the mean squared weight of standardised features; the best on a held-out fifth of the training features is taken.
PENALTIES = (1e-1, 1e-2, 1e-3, 1e-4)
# Tried one after another, as long as the strongest so far is the best. Where rare classes count as much as frequent
# ones, few pictures of them decide, and among a thousand features there is always one that tells so few apart: of 50
# scratched castings 1 had a fifth less loss than 0.1. And of features that tell nothing, only so strong a penalty makes
# a classifier that is not surer than chance allows.
STRONGER = (1e0, 1e1, 1e2)
ITERATIONS = 60


@dataclass(frozen=True)
class Features:
    """Features (N, C) float32 of pictures on the CPU, and their labels: (N,), or (N, K) bool of several each.

    `mirrored` (M, C) are those of the first M pictures' mirror images; M is 0 where none are to be had.
    """

    plain: Tensor
    labels: Tensor
    mirrored: Tensor


def begin_with_fitted_head(run: Run, job: Job) -> tuple[HeadStart, Judged]:
    """Fit the classifier of a run that has not begun; the average gets it too. Returns the better one's validation.

    Raises:
        DataError: not one picture can be decoded. DivergedError: as `validate_together`.
    """
    began = time.monotonic()
    classifier, num_classes = run.average.model.classifier, len(job.classes)
    before = _validate(run, job) if job.keeps_classifier else None
    seen = features_of(run, job)
    weights = weights_in_training(job)
    penalty = choose_penalty(seen.plain, seen.labels, num_classes, weights)
    mirrors = job.recipe.mirror == "always" or not _mirrors_mislead(seen, num_classes, penalty, weights)
    features, labels = seen.plain, seen.labels
    if mirrors and len(seen.mirrored) == len(features):  # of few pictures: each counts twice
        features, labels = torch.cat([features, seen.mirrored]), torch.cat([labels, labels])
    own = classifier.weight.detach().clone(), classifier.bias.detach().clone()
    _set_classifier(run, *fit_classifier(features, labels, num_classes, penalty, weights))
    result = _validate(run, job)
    kept = before is None or result.loss < before.loss
    if before is not None and not kept:
        _set_classifier(run, *own)
        result = before
    run.fitted = {f"classifier.{name}": value.clone() for name, value in classifier.state_dict().items()}
    return HeadStart(
        top1=result.top1,
        loss=finite_or_none(result.loss),
        features=len(labels),
        penalty=penalty,
        grows=job.recipe.grow == "always" or _bears_smaller_pictures(run, job, result),
        seconds=time.monotonic() - began,
        kept=kept,
        map=result.map,
        mirrors=mirrors,
        balanced=balanced_figure(result, job.recipe.metric),
    ), result


def weights_in_training(job: Job) -> Tensor | None:
    """How much training makes of a picture of each class, (K,): as often as it comes, or as its loss counts.

    None where all count the same. A classifier fitted otherwise would begin with other frequencies than it is trained
    with. Of several labels, and of their weights, each is fitted by itself.
    """
    given = job.recipe.class_weights
    if job.multi_label:
        return None
    if isinstance(given, tuple):
        return torch.tensor(given)
    if job.recipe.sampler == "shuffle":
        return None
    counts = job.train_set.class_counts()
    return torch.from_numpy(counts.sum() / (len(counts) * np.maximum(counts, 1))).float()


def _validate(run: Run, job: Job) -> Judged:
    return validate_together(run.average.model, job.val_set, job.preprocessing, job.settings)


def _mirrors_mislead(seen: Features, num_classes: int, penalty: float, weights: Tensor | None) -> bool:
    """Whether a classifier that has seen neither of them has fewer mirror images right than pictures."""
    asked = min(len(seen.mirrored), len(seen.plain) // 2)
    if not asked:
        return False
    head = fit_classifier(seen.plain[asked:], seen.labels[asked:], num_classes, penalty, weights)
    labels = seen.labels[:asked]
    plain, mirrored = (right_answers(of[:asked], labels, *head) for of in (seen.plain, seen.mirrored))
    return mirrors_mislead(plain, mirrored)


def _bears_smaller_pictures(run: Run, job: Job, full: Judged) -> bool:
    """Whether the network has validation pictures of the first stage's size about as often right as full ones."""
    recipe, stage = job.recipe, job.recipe.stages[0]
    if stage.image_size == recipe.largest_size:
        return True
    chosen = glanced_at(job.val_set, GLANCE_PICTURES, job.settings.seed)
    preprocessing = job.preprocessing.at(tested_size(recipe, stage))
    small = validate_together(run.average.model, job.val_set, preprocessing, job.settings, chosen)
    before, after = (_merit(result, recipe.metric) for result in (full, small))
    return not is_clear_fall(before, after, judged_by(small, recipe.metric))


def _merit(result: Judged, metric: Metric) -> float:
    fair = balanced_figure(result, metric)
    return merit_of(result.top1, result.map) if fair is None else fair


def features_of(run: Run, job: Job) -> Features:
    """Features of the training pictures as validation sees them, and of mirror images, unless there are to be none.

    Of more than `MOST_PICTURES` a random part; of more than `FEW_PICTURES` some mirror images alone.
    """
    rng = np.random.default_rng((job.settings.seed, 11))
    chosen = rng.permutation(len(job.train_set))[:MOST_PICTURES]
    mirrored = mirrored_pictures(len(chosen), flip_keeps_class=job.train_set.flip_keeps_class)
    seen = partial(features_at, run.average.model, job, job.preprocessing)
    plain, labels = seen(chosen)
    if not len(labels):
        raise DataError("Not one training picture could be decoded.", "The files are damaged, or not pictures.")
    # The same pictures are broken both times, so that the rows of both belong together.
    return Features(plain, labels, seen(chosen[:mirrored], mirror=True)[0])


@torch.no_grad()
def features_at(
    model: Network, job: Job, preprocessing: Preprocessing, chosen: NDArray[np.int64], *, mirror: bool = False
) -> tuple[Tensor, Tensor]:
    """Features (N, C) float32 of the chosen training pictures, or of their mirror images, and their labels."""
    width = model.classifier.in_features
    features, labels = [torch.empty(0, width)], []
    if len(chosen):

        def forward(inputs: Tensor) -> Tensor:
            return model.features(inputs.flip(3) if mirror else inputs)

        asked = each_batch(forward, job.train_set, preprocessing, job.settings, width=width, chosen=chosen)
        with closing(asked) as made:
            for found, batch in made:
                features.append(found)
                labels.append(batch.labels)
    return torch.cat(features), torch.cat(labels) if labels else torch.empty(0)


def choose_penalty(features: Tensor, labels: Tensor, num_classes: int, weights: Tensor | None = None) -> float:
    """The penalty whose classifier, fitted to four fifths of the features, has the lowest loss on the last fifth."""
    cut = len(labels) * 4 // 5
    if cut < num_classes or len(labels) - cut < 2:
        return max(PENALTIES)

    def loss(penalty: float) -> float:
        weight, bias = fit_classifier(features[:cut], labels[:cut], num_classes, penalty, weights)
        return _loss(F.linear(features[cut:], weight, bias), labels[cut:], weights).item()

    losses = {penalty: loss(penalty) for penalty in PENALTIES}
    best = min(losses, key=lambda penalty: losses[penalty])
    for stronger in STRONGER if best == max(PENALTIES) else ():
        losses[stronger] = loss(stronger)
        if losses[stronger] >= losses[best]:
            break
        best = stronger
    return best


def fit_classifier(
    features: Tensor, labels: Tensor, num_classes: int, penalty: float, weights: Tensor | None = None
) -> tuple[Tensor, Tensor]:
    """Logistic regression by L-BFGS: weight (K, C) and bias (K,) for features (N, C) and labels (N,).

    With several labels, (N, K) bool, it is one of yes or no for each class.

    Features are standardised while it is fitted; what is returned takes them as they are. A picture's loss counts as
    `weights` (K,) say of its class.
    """
    mean, deviation = features.mean(0), features.std(0) + 1e-3
    standard = (features - mean) / deviation
    weight = torch.zeros(num_classes, features.shape[1], requires_grad=True)
    bias = torch.zeros(num_classes, requires_grad=True)
    solver = torch.optim.LBFGS([weight, bias], max_iter=ITERATIONS, line_search_fn="strong_wolfe")

    def loss() -> Tensor:
        solver.zero_grad()
        value = _loss(F.linear(standard, weight, bias), labels, weights) + penalty * weight.square().sum()
        value.backward()  # type: ignore[no-untyped-call]
        return value

    with torch.enable_grad():
        solver.step(loss)  # type: ignore[no-untyped-call]
    raw = weight.detach() / deviation
    return raw, bias.detach() - raw @ mean


def _loss(logits: Tensor, labels: Tensor, weights: Tensor | None) -> Tensor:
    """Mean over pictures, by the weights of their classes (K,).

    Of several labels the sum over the classes, so that each is fitted as if it were alone.
    """
    if labels.dim() == 1:
        return F.cross_entropy(logits, labels, weight=weights)
    return F.binary_cross_entropy_with_logits(logits, labels.float(), reduction="none").sum(1).mean()


@torch.no_grad()
def _set_classifier(run: Run, weight: Tensor, bias: Tensor) -> None:
    for model in (run.model, run.average.model):
        model.classifier.weight.copy_(weight)
        model.classifier.bias.copy_(bias)
