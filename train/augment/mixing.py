"""Owns how the pictures of a batch are mixed with one another: mixup and CutMix; single pictures are `host.py`'s."""

from __future__ import annotations

import math

import numpy as np
import torch
from numpy.random import Generator
from torch import Tensor

from train.augment.transfer import send


def mix_batch(
    pictures: Tensor, labels: Tensor, *, mixup_alpha: float, cutmix_alpha: float, rng: Generator
) -> tuple[Tensor, Tensor]:
    """Mix every picture with its mirror in the batch, in place.

    λ ~ Beta(α, α), then max(λ, 1 − λ); the partners are the batch reversed. If both alphas are positive, mixup takes
    the first half of the batch and CutMix the second (google/automl preprocessing.py).

    Args:
        pictures: (N, C, S, S) float, normalised.
        labels: (N, K) float, one-hot or smoothed.
    """
    count = pictures.shape[0]
    middle = count // 2 if mixup_alpha > 0 and cutmix_alpha > 0 else count * (mixup_alpha > 0)
    if mixup_alpha > 0 and middle > 1:
        _mixup(pictures[:middle], labels[:middle], mixup_alpha, rng)
    if cutmix_alpha > 0 and count - middle > 1:
        _cutmix(pictures[middle:], labels[middle:], cutmix_alpha, rng)
    return pictures, labels


def _mixup(pictures: Tensor, labels: Tensor, alpha: float, rng: Generator) -> None:
    drawn = rng.beta(alpha, alpha, size=pictures.shape[0]).astype(np.float32)
    share = send(np.maximum(drawn, 1 - drawn), pictures.device)
    pictures.copy_(torch.lerp(pictures.flip(0), pictures, share[:, None, None, None].to(pictures.dtype)))
    labels.copy_(torch.lerp(labels.flip(0), labels, share[:, None]))


def _cutmix(pictures: Tensor, labels: Tensor, alpha: float, rng: Generator) -> None:
    height, width = pictures.shape[-2:]
    share = float(rng.beta(alpha, alpha))
    side = math.sqrt(1.0 - max(share, 1.0 - share))
    cut_h, cut_w = int(height * side), int(width * side)
    top, left = int(rng.integers(height - cut_h + 1)), int(rng.integers(width - cut_w + 1))
    box = (..., slice(top, top + cut_h), slice(left, left + cut_w))
    pictures[box] = pictures.flip(0)[box]
    # The label follows the area that was pasted, in whole pixels.
    labels.copy_(torch.lerp(labels, labels.flip(0), cut_h * cut_w / (height * width)))
