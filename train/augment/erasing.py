"""Owns random erasing of a batch; when it happens is `train/learn/step.py`'s."""

from __future__ import annotations

import math

import torch
from numpy.random import Generator
from torch import Tensor

from train.progressive.recipe import Recipe


def erase(pictures: Tensor, prob: float, recipe: Recipe, rng: Generator) -> Tensor:
    """Erase a rectangle in some pictures (Zhong et al. 2017, arXiv 1708.04896), in place.

    torchvision's RandomErasing for each picture of the batch: with probability `prob`, a rectangle inside the picture
    whose share of the area is uniform in `random_erasing_scale` and whose aspect is log-uniform in
    `random_erasing_ratio`; ten attempts, then none.

    Args:
        pictures: (N, C, S, S) float, normalised, so that "zero" is the mean colour; "noise" is N(0, 1) per value.
    """
    if prob <= 0:
        return pictures
    height, width = pictures.shape[-2:]
    for index in (rng.random(len(pictures)) < prob).nonzero()[0].tolist():
        box = draw_rectangle(height, width, recipe.random_erasing_scale, recipe.random_erasing_ratio, rng)
        if box is None:
            continue
        top, left, high, wide = box
        patch = pictures[index, :, top : top + high, left : left + wide]
        if recipe.random_erasing_fill == "zero":
            patch.zero_()
        else:
            noise = torch.from_numpy(rng.standard_normal(tuple(patch.shape), dtype="float32"))
            patch.copy_(noise, non_blocking=True)
    return pictures


def draw_rectangle(
    height: int, width: int, scale: tuple[float, float], ratio: tuple[float, float], rng: Generator
) -> tuple[int, int, int, int] | None:
    """(top, left, height, width) strictly smaller than the picture, or None after ten attempts.

    torchvision transforms/transforms.py, `RandomErasing.get_params`: aspect is height over width.
    """
    for _ in range(10):
        area = height * width * rng.uniform(*scale)
        aspect = math.exp(rng.uniform(math.log(ratio[0]), math.log(ratio[1])))
        high, wide = round(math.sqrt(area * aspect)), round(math.sqrt(area / aspect))
        if high < height and wide < width:
            return int(rng.integers(height - high + 1)), int(rng.integers(width - wide + 1)), high, wide
    return None
