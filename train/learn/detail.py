"""Owns a probe before a run with a budget: if smaller pictures lose what tells the classes apart; it chooses no size.

Small pictures are cheap, and of most sets they show as much. Of some they show nothing: a thin scratch, a mark of a
dozen pixels. Classifiers fitted to the features of a few pictures of both sizes tell.
"""

from __future__ import annotations

from collections.abc import Iterator
from math import floor

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from train.learn.head_start import choose_penalty, features_at, fit_classifier, weights_in_training
from train.learn.job import Job
from train.learn.run import start_run
from train.learn.suitability import is_clear_loss, right_answers
from train.progressive.balance import balanced_order, members_of
from train.progressive.budget import Pace
from train.progressive.recipe import Recipe, tested_size
from zoo.model.network import Network

# So many pictures tell enough, fewer than these nothing; they may take this share of the time.
MOST_PROBED, LEAST_PROBED, PROBE_SHARE = 400, 100, 0.1


def loses_detail(job: Job, smaller: Recipe, pace: Pace, seconds: float) -> bool:
    """Whether features of the smaller recipe's pictures are clearly worse than those of the job's own size.

    Each half of the pictures is answered by a classifier of the other half. Where a tenth of the `seconds` is too
    little for a hundred pictures, nothing is found.
    """
    sizes = job.preprocessing.image_size, tested_size(smaller, smaller.stages[-1])
    affordable = floor(PROBE_SHARE * seconds / sum(map(pace.validation, sizes)))
    count = min(MOST_PROBED, affordable, len(job.train_set))
    if count < LEAST_PROBED:
        return False
    chosen = _drawn(job, count)
    model = start_run(job).average.model.eval()
    right = [torch.cat(list(_right_in_halves(model, job, size, chosen))) for size in sizes]
    lost, gained = int((right[0] & ~right[1]).sum()), int((right[1] & ~right[0]).sum())
    return is_clear_loss(lost, gained, len(right[0]))


def _drawn(job: Job, count: int) -> NDArray[np.int64]:
    """Training pictures in a random order; of unequal classes as training sees them, each once: rare ones come first.

    Were they drawn as they are, too few of a rare class would be asked for its loss to be clear.
    """
    seed = job.settings.seed
    if job.recipe.sampler == "shuffle":
        return np.random.default_rng((seed, 17)).permutation(len(job.train_set))[:count]
    order = balanced_order(members_of(job.train_set), seed=seed, start=0, end=len(job.train_set))
    first = np.sort(np.unique(order, return_index=True)[1])
    found: NDArray[np.int64] = np.random.default_rng((seed, 17)).permutation(order[first][:count])
    return found


def _right_in_halves(model: Network, job: Job, size: int, chosen: NDArray[np.int64]) -> Iterator[Tensor]:
    features, labels = features_at(model, job, job.preprocessing.at(size), chosen)
    half, classes, weights = len(labels) // 2, len(job.classes), weights_in_training(job)
    parts = slice(None, half), slice(half, None)
    for fitted, asked in (parts, parts[::-1]):
        penalty = choose_penalty(features[fitted], labels[fitted], classes, weights)
        head = fit_classifier(features[fitted], labels[fitted], classes, penalty, weights)
        yield right_answers(features[asked], labels[asked], *head)
