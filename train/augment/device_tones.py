"""Owns what RandAugment does to the values of a batch's pixels; how strongly is `train/augment/strength.py`'s.

It computes with integers, or with 32-bit floats in the order of `train/augment/host.py`, for the same bits.
That is why nothing here is fused (`lerp`, `addcmul`): fused operations round once where NumPy and Pillow round twice.
"""

from __future__ import annotations

import torch
from torch import Tensor

from train.augment.strength import GREY_65536THS, GREY_ALONE, GREY_THOUSANDTHS, HAIR

_LEVELS = 256


def replace_values(pictures: Tensor, tables: Tensor) -> Tensor:
    """Replace every value by its table's.

    Args:
        pictures: (N, S, S, C) uint8. tables: (N, 256) uint8, or (N, C, 256) with one a channel.
    """
    return tables.flatten().index_select(0, _places(pictures, tables).flatten()).view_as(pictures)


def _places(pictures: Tensor, tables: Tensor) -> Tensor:
    """The place of each value's entry in the flattened tables."""
    first = torch.arange(0, tables.numel(), _LEVELS, dtype=torch.int32, device=pictures.device)
    return pictures + first.view(len(pictures), 1, 1, -1)


def contrast(pictures: Tensor, factors: Tensor) -> Tensor:
    """Move values away from the mean grey of their picture. factors: (N, 1) float32."""
    size = pictures.shape[1]
    sums = pictures.sum((1, 2), dtype=torch.int64)
    thousandths = _weighted(sums, GREY_ALONE if pictures.shape[-1] == 1 else GREY_THOUSANDTHS)
    unit = 1000 * size * size
    grey = (2 * thousandths + unit) // (2 * unit)
    return _away_from(grey[:, None, None, None], pictures, factors)


def color(pictures: Tensor, factors: Tensor) -> Tensor:
    """Move values away from the grey of their pixel; grey stays as it is. factors: (N, 1) float32."""
    if pictures.shape[-1] == 1:
        return pictures
    grey = (_weighted(pictures.int(), GREY_65536THS) + 0x8000) >> 16
    return _away_from(grey[..., None], pictures, factors)


def _weighted(values: Tensor, weights: tuple[int, ...]) -> Tensor:
    """Weighted sum of integers over the last axis: GPUs have no matrix product of integers."""
    first, *rest = (plane * weight for plane, weight in zip(values.unbind(-1), weights, strict=True))
    return sum(rest, first)


def _away_from(grey: Tensor, pictures: Tensor, factors: Tensor) -> Tensor:
    grey = grey.float()
    moved = grey + factors[:, :, None, None] * (pictures - grey)
    return moved.clamp_(0, 255).to(torch.uint8)


def sharpness(pictures: Tensor, weights: Tensor) -> Tensor:
    """Blend with a smoothed picture, without the outermost pixels. weights: (N, 2) float32, `sharpness_weights`."""
    around, middle = weights[:, :, None, None, None].unbind(1)
    wide = pictures.float()
    columns = wide[:, :-2] + wide[:, 1:-1] + wide[:, 2:]
    nine = columns[:, :, :-2] + columns[:, :, 1:-1] + columns[:, :, 2:]
    blended = nine * around + wide[:, 1:-1, 1:-1] * middle
    sharpened = pictures.clone()
    sharpened[:, 1:-1, 1:-1] = blended.clamp_(0, 255).to(torch.uint8)
    return sharpened


def autocontrast(pictures: Tensor, _: Tensor) -> Tensor:
    """Stretch every channel to 0…255."""
    lowest, highest = (extreme.float() for extreme in torch.aminmax(pictures.flatten(1, 2), dim=1))
    flat = highest <= lowest
    spread = torch.where(flat, 1.0, highest - lowest)
    scale = torch.where(flat, 1.0, 255.0 / spread)
    offset = torch.where(flat, 0.0, HAIR - lowest * scale)
    return (pictures * scale[:, None, None] + offset[:, None, None]).to(torch.uint8)


def equalize(pictures: Tensor, _: Tensor) -> Tensor:
    """Flatten every channel's histogram, as Pillow's ImageOps.equalize does."""
    counts = torch.zeros((len(pictures), pictures.shape[-1], _LEVELS), dtype=torch.int64, device=pictures.device)
    places = _places(pictures, counts).flatten().long()
    counts.view(-1).scatter_add_(0, places, torch.ones_like(places))
    return replace_values(pictures, _equalizing_tables(counts))


def _equalizing_tables(counts: Tensor) -> Tensor:
    """(N, C, 256) uint8 of as many counts of values."""
    levels = torch.arange(_LEVELS, device=counts.device)
    present = counts > 0
    highest = (present * levels).amax(-1, keepdim=True)
    step = (counts.sum(-1, keepdim=True) - counts.gather(-1, highest)) // 255
    before = counts.cumsum(-1) - counts
    divisor = step.clamp(min=1)
    tables = ((step // 2 + before) // divisor).clamp(max=255)
    changes = (present.sum(-1, keepdim=True) > 1) & (step > 0)
    return torch.where(changes, tables, levels).to(torch.uint8)
