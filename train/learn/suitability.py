"""Owns what a head start shows of the pictures: if mirror images and smaller ones are of use; it fits no classifier.

A mirrored arrow points the other way, and a scratch of two pixels is gone at half the size. Nobody says so beforehand,
and training with such pictures undoes what the head start has. A classifier that is fitted already knows: its answers
fall.
"""

from __future__ import annotations

from dataclasses import replace
from math import sqrt

from torch import Tensor
from torch.nn import functional as F

from train.learn.job import Job, with_recipe
from train.learn.run import HeadStart
from train.progressive.recipe import Recipe

# Right answers that are lost are no chance beyond three standard errors (one in a thousand), and no trifle from two in
# a hundred on.
STANDARD_ERRORS, LEAST_SHARE = 3.0, 0.02


def is_clear_loss(lost: int, gained: int, pictures: int) -> bool:
    """Whether `lost` right answers against `gained` ones are no chance and no trifle.

    The standard error is that of paired answers, √(lost + gained). Of 125 pictures nine must be lost if none is gained;
    of 10,000 it takes two in a hundred, however sure that is.
    """
    return lost - gained >= max(STANDARD_ERRORS * sqrt(max(lost + gained, 1)), LEAST_SHARE * pictures)


def is_clear_fall(before: float, after: float, pictures: float) -> bool:
    """The same of two shares of right answers, 0…1, of which is not known whether they are to the same pictures."""
    middle = (before + after) / 2
    error = sqrt(2 * middle * (1 - middle) / max(pictures, 1))
    return before - after >= max(STANDARD_ERRORS * error, LEAST_SHARE)


def right_answers(features: Tensor, labels: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
    """Which of (N, C) features a classifier has right, (N,) bool; with several labels, which of those that are true."""
    logits = F.linear(features, weight, bias)
    return logits.argmax(1) == labels if labels.dim() == 1 else (logits > 0)[labels]


def mirrors_mislead(plain: Tensor, mirrored: Tensor) -> bool:
    """Whether a classifier loses mirror images, by which answers to pictures and to their mirror images are right."""
    lost, gained = int((plain & ~mirrored).sum()), int((mirrored & ~plain).sum())
    return is_clear_loss(lost, gained, len(plain))


def suited_to(job: Job, found: HeadStart) -> Job:
    """The job as its head start has found the pictures to be: without mirror images, at one size; or as it is."""
    if not found.mirrors:
        job = replace(job, train_set=replace(job.train_set, flip_keeps_class=False))
    return job if found.grows else with_recipe(job, at_one_size(job.recipe))


def at_one_size(recipe: Recipe) -> Recipe:
    """The recipe with every stage at its largest size."""
    stages = tuple(replace(stage, image_size=recipe.largest_size) for stage in recipe.stages)
    return replace(recipe, stages=stages)


def told(found: HeadStart) -> list[str]:
    """What a person should know of it, a line each."""
    lines = []
    if not found.mirrors:
        lines.append(
            "Mirror images are of another class here, or of none: training goes without. --set mirror=always uses them."
        )
    if not found.grows:
        lines.append(
            "Smaller pictures lose what tells the classes apart: all stages have the largest size. --set grow=always "
            "begins with small ones all the same."
        )
    return lines
