"""Owns what happens to one training picture and to one batch: crop, flip, RandAugment; mixup and CutMix. Nothing else.

Every random choice comes from the generator passed in, so a picture's augmentation depends on seed, epoch and index
alone: not on the number of workers, and a resumed run sees what the uninterrupted one would have.
"""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np
import torch
from numpy.random import Generator
from PIL import Image, ImageEnhance, ImageOps
from torch import Tensor

# Operations and their ranges are those of torchvision's RandAugment (transforms/autoaugment.py), where strength
# grows with the magnitude for every operation; google/automl's version makes posterize, solarize and the enhancers
# *weakest* near its usual 10, so that "rising magnitude" would not mean rising regularisation. Level 10 is
# torchvision's maximum; levels above it (the paper trains S up to 15) go on linearly and stop where an operation has
# nothing left to change. Geometry is a share of the side, so a level means the same at every stage's size.
MAX_LEVEL = 10.0
FILL = (128, 128, 128)
MAX_TRANSLATE_SHARE = 150.0 / 331.0

Augmentation = Callable[[Image.Image, float, float], Image.Image]


def _affine(image: Image.Image, a: float, b: float, c: float, d: float, e: float, f: float) -> Image.Image:
    return image.transform(
        image.size, Image.Transform.AFFINE, (a, b, c, d, e, f), Image.Resampling.BILINEAR, fillcolor=FILL
    )


def _shear_x(image: Image.Image, share: float, sign: float) -> Image.Image:
    shear = 0.3 * share * sign
    return _affine(image, 1, shear, -shear * image.height / 2, 0, 1, 0)


def _shear_y(image: Image.Image, share: float, sign: float) -> Image.Image:
    shear = 0.3 * share * sign
    return _affine(image, 1, 0, 0, shear, 1, -shear * image.width / 2)


def _translate_x(image: Image.Image, share: float, sign: float) -> Image.Image:
    return _affine(image, 1, 0, min(MAX_TRANSLATE_SHARE * share, 0.75) * sign * image.width, 0, 1, 0)


def _translate_y(image: Image.Image, share: float, sign: float) -> Image.Image:
    return _affine(image, 1, 0, 0, 0, 1, min(MAX_TRANSLATE_SHARE * share, 0.75) * sign * image.height)


def _rotate(image: Image.Image, share: float, sign: float) -> Image.Image:
    return image.rotate(30.0 * share * sign, Image.Resampling.BILINEAR, fillcolor=FILL)


def _enhance(kind: Callable[[Image.Image], ImageEnhance._Enhance]) -> Augmentation:
    # A factor of 1 changes nothing; 0.9 away from it at level 10, never through 0 to a negative.
    return lambda image, share, sign: kind(image).enhance(max(1.0 + 0.9 * share * sign, 0.05))


def _posterize(image: Image.Image, share: float, sign: float) -> Image.Image:
    return ImageOps.posterize(image, max(8 - round(4.0 * share), 1))


def _solarize(image: Image.Image, share: float, sign: float) -> Image.Image:
    return ImageOps.solarize(image, max(round(255.0 * (1.0 - share)), 0))


OPERATIONS: dict[str, Augmentation] = {
    "identity": lambda image, share, sign: image,
    "shear_x": _shear_x,
    "shear_y": _shear_y,
    "translate_x": _translate_x,
    "translate_y": _translate_y,
    "rotate": _rotate,
    "brightness": _enhance(ImageEnhance.Brightness),
    "color": _enhance(ImageEnhance.Color),
    "contrast": _enhance(ImageEnhance.Contrast),
    "sharpness": _enhance(ImageEnhance.Sharpness),
    "posterize": _posterize,
    "solarize": _solarize,
    "autocontrast": lambda image, share, sign: ImageOps.autocontrast(image),
    "equalize": lambda image, share, sign: ImageOps.equalize(image),
}
_OPERATIONS = tuple(OPERATIONS.values())


def randaugment(image: Image.Image, magnitude: float, num_layers: int, rng: Generator) -> Image.Image:
    """Apply `num_layers` random operations at `magnitude` (Cubuk et al. 2019, arXiv 1909.13719); 0 changes nothing."""
    if magnitude <= 0:
        return image
    for _ in range(num_layers):
        operation = _OPERATIONS[rng.integers(len(_OPERATIONS))]
        image = operation(image, magnitude / MAX_LEVEL, 1.0 if rng.random() < 0.5 else -1.0)
    return image


def random_crop_box(
    width: int,
    height: int,
    scale: tuple[float, float],
    ratio: tuple[float, float],
    rng: Generator,
    *,
    padding: tuple[int, int] = (0, 0),
) -> tuple[float, float, float, float]:
    """Draw a crop (left, top, right, bottom): area share uniform in `scale`, aspect log-uniform in `ratio`.

    It may reach `padding` pixels (x, y) beyond the picture. Ten attempts, then the whole picture (TensorFlow's
    sample_distorted_bounding_box does the same).
    """
    pad_x, pad_y = padding
    for _ in range(10):
        area = width * height * rng.uniform(*scale)
        aspect = math.exp(rng.uniform(math.log(ratio[0]), math.log(ratio[1])))
        crop_w, crop_h = math.sqrt(area * aspect), math.sqrt(area / aspect)
        if crop_w <= width and crop_h <= height:
            left = rng.uniform(-pad_x, width + pad_x - crop_w)
            top = rng.uniform(-pad_y, height + pad_y - crop_h)
            return left, top, left + crop_w, top + crop_h
    return 0, 0, width, height


def mix_batch(
    pictures: Tensor, labels: Tensor, *, mixup_alpha: float, cutmix_alpha: float, rng: Generator
) -> tuple[Tensor, Tensor]:
    """Mix every picture with its mirror in the batch, in place.

    λ ~ Beta(α, α), then max(λ, 1 − λ); partner is the batch reversed; where both alphas are positive, mixup takes
    the first half of the batch and CutMix the second (google/automl preprocessing.py).

    Args:
        pictures: (N, 3, S, S) float, normalised.
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
    share = torch.from_numpy(np.maximum(drawn, 1 - drawn)).to(pictures.device)
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
    # The label follows the area that was really pasted.
    labels.copy_(torch.lerp(labels, labels.flip(0), cut_h * cut_w / (height * width)))
