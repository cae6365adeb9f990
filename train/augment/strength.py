"""Owns how much an operation of RandAugment does at a level, in numbers and tables; it touches no picture.

Two files apply them: `host.py` to one picture after the other on the processor, `device.py` to batches on the device.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

# Operations and their ranges are those of torchvision's RandAugment (transforms/autoaugment.py), where strength grows
# with the magnitude for every operation; google/automl's version makes posterize, solarize and the enhancers
# *weakest* near its usual 10, so that "rising magnitude" would not mean rising regularisation. Level 10 is
# torchvision's maximum; levels above it (the paper trains S up to 15) continue linearly and stop where an operation has
# nothing left to change. Geometry is a share of the side, so a level means the same at every stage's size; it takes
# the nearest pixel, as both references do by default, except in small pictures. Everywhere `share` is the level over
# MAX_LEVEL, and `sign` one of SIGNS.
MAX_LEVEL = 10.0
SIGNS = (-1.0, 1.0)
FILL = (128, 128, 128)  # where geometry leaves the picture; any other plane has the same
MAX_TRANSLATE_SHARE = 150.0 / 331.0
# Geometry interpolates pictures below this size, in which the steps of the nearest pixel would be a texture of their
# own. Whether that texture costs accuracy is within the noise: S on the digits, six runs, 96.1 … 98.6 % either way.
SMOOTH_BELOW_PX = 64
# Grey is ITU-R 601-2: thousandths for a picture's mean, and Pillow's mode L in 1/65536 for a pixel (Convert.c).
GREY_THOUSANDTHS = (299, 587, 114)
GREY_65536THS = (19595, 38470, 7471)
# Of a single plane, the plane itself.
GREY_ALONE = (1000,)
# Added in autocontrast to the exact value, so that cutting off fractions never takes away a whole level.
HAIR = 1e-3

Matrix = tuple[float, float, float, float, float, float]
_VALUES = np.arange(256)


def shear_shifts(length: int, share: float, sign: float) -> NDArray[np.int64]:
    """How many pixels to the right each of `length` rows takes its pixels from: none in the middle."""
    middles = np.arange(length) + 0.5 - length / 2
    shifts: NDArray[np.int64] = np.floor(0.3 * share * sign * middles + 0.5).astype(np.int64)
    return shifts


def translation_px(length: int, share: float, sign: float) -> float:
    """How many pixels to the right a row of `length` pixels takes its pixels from."""
    return min(MAX_TRANSLATE_SHARE * share, 0.75) * sign * length


def translate_shifts(length: int, share: float, sign: float) -> NDArray[np.int64]:
    """As `shear_shifts`, for the `length` rows of a square: the same for all."""
    return np.full(length, round(translation_px(length, share, sign)))


def shear_matrix(height: int, share: float, sign: float) -> Matrix:
    """Output (x, y) comes from (a·x + b·y + c, d·x + e·y + f), pixels counted from their corners."""
    shear = 0.3 * share * sign
    return 1, shear, -shear * height / 2, 0, 1, 0


def translation_matrix(width: int, share: float, sign: float) -> Matrix:
    """As `shear_matrix`."""
    return 1, 0, translation_px(width, share, sign), 0, 1, 0


def rotation_matrix(width: int, height: int, share: float, sign: float) -> Matrix:
    """As `shear_matrix`; 30° at level 10, about the middle. The rounding is that of Pillow's Image.rotate."""
    angle = -math.radians(30.0 * share * sign % 360.0)
    cosine, sine = round(math.cos(angle), 15), round(math.sin(angle), 15)
    x, y = width / 2, height / 2
    return cosine, sine, cosine * -x + sine * -y + 0.0 + x, -sine, cosine, -sine * -x + cosine * -y + 0.0 + y


def enhance_factor(share: float, sign: float) -> float:
    """How much of the picture an enhancer keeps: 1 changes nothing; 0.9 away from it at level 10, never below 0."""
    return max(1.0 + 0.9 * share * sign, 0.05)


def sharpness_weights(share: float, sign: float) -> tuple[np.float32, np.float32]:
    """Weights of the sum of 3 × 3 pixels and of their middle: a blend of the picture with Pillow's SMOOTH filter.

    That is 3 × 3 ones with a 5 in the middle, by 13.
    """
    factor = enhance_factor(share, sign)
    return np.float32((1 - factor) / 13), np.float32(4 * (1 - factor) / 13 + factor)


@lru_cache(maxsize=256)
def away_from(grey: int, factor: float) -> bytes:
    """The table that moves values away from a grey (Pillow's Image.blend of the two, which cuts off fractions)."""
    moved = np.clip(grey + np.float32(factor) * (_VALUES - grey).astype(np.float32), 0, 255)
    return bytes(moved.astype(np.uint8))


def _brightness_table(share: float, sign: float) -> bytes:
    return away_from(0, enhance_factor(share, sign))


@lru_cache
def _posterize_table(share: float, sign: float) -> bytes:
    bits = max(8 - round(4.0 * share), 1)
    return bytes((_VALUES & ~(2 ** (8 - bits) - 1)).astype(np.uint8))


@lru_cache
def _solarize_table(share: float, sign: float) -> bytes:
    threshold = max(math.ceil(255.0 * (1.0 - share)), 0)
    return bytes(np.where(threshold > _VALUES, _VALUES, 255 - _VALUES).astype(np.uint8))


# The operations that replace every value by another one, independent of the picture: (share, sign) → 256 bytes.
TABLES: dict[str, Callable[[float, float], bytes]] = {
    "brightness": _brightness_table,
    "posterize": _posterize_table,
    "solarize": _solarize_table,
}
