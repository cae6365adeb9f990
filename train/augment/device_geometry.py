"""Owns the geometry of RandAugment on batches: where every pixel comes from, and taking it; how far is `strength.py`'s.

Both ways compute what Pillow does to one picture (libImaging/Geometry.c), by the same operations in the same order.
"""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from train.augment.strength import (
    FILL,
    Matrix,
    rotation_matrix,
    shear_matrix,
    shear_shifts,
    translate_shifts,
    translation_matrix,
)

# Coordinates are in 1/65536 of a pixel, as Pillow's are for the nearest pixel of a rotation, so that ties are resolved
# as there. 32 bits hold pictures of up to 32,767 pixels a side.
_PLACES = 16
_SHIFTS: dict[str, Callable[[int, float, float], NDArray[np.int64]]] = {
    "shear_x": shear_shifts,
    "shear_y": shear_shifts,
    "translate_x": translate_shifts,
    "translate_y": translate_shifts,
}
_ALONG_COLUMNS = {"shear_y", "translate_y"}
GEOMETRY = (*_SHIFTS, "rotate")


def find_sources(name: str, share: float, sign: float, size: int) -> NDArray[np.int32]:
    """Where the nearest pixels of a (size, size) picture come from, as terms: x of y, x of x, y of y, y of x.

    Returns:
        (4, size): output (x, y) comes from (row 0 at y + row 1 at x, row 2 at y + row 3 at x), in 1/65536 px.
    """
    steps, none = np.arange(size), np.zeros(size, np.int64)
    if name in _SHIFTS:
        shifts = _SHIFTS[name](size, share, sign)
        across, along = (none, shifts) if name in _ALONG_COLUMNS else (shifts, none)
        return (np.stack([across, steps, steps, along]) << _PLACES).astype(np.int32)
    a, b, c, d, e, f = rotation_matrix(size, size, share, sign)
    x, y = _fixed(c + a * 0.5 + b * 0.5), _fixed(f + d * 0.5 + e * 0.5)
    sums = [x + _fixed(b) * steps, _fixed(a) * steps, y + _fixed(e) * steps, _fixed(d) * steps]
    return np.stack(sums).astype(np.int32)


def _fixed(value: float) -> int:
    return math.floor(value * 2.0**_PLACES + 0.5)


def take_nearest(pictures: Tensor, sources: Tensor) -> Tensor:
    """Take every pixel from its source, or FILL where that lies outside.

    Args:
        pictures: (N, S, S, C) uint8. sources: (N, 4, S) int32, of `find_sources`.
    """
    x_of_y, x_of_x, y_of_y, y_of_x = sources.unbind(1)
    x = (x_of_y[:, :, None] + x_of_x[:, None, :]) >> _PLACES
    y = (y_of_y[:, :, None] + y_of_x[:, None, :]) >> _PLACES
    return _fill(_take(pictures, x, y), x, y)


def find_matrix(name: str, share: float, sign: float, size: int) -> NDArray[np.float64]:
    """(6,): output (x, y) comes from (a·x + b·y + c, d·x + e·y + f), in pixels counted from their corners."""
    return np.array(_MATRICES[name](share, sign, size))


def _turned(matrix: Matrix) -> Matrix:
    """The same with x and y exchanged."""
    a, b, c, d, e, f = matrix
    return e, d, f, b, a, c


_MATRICES: dict[str, Callable[[float, float, int], Matrix]] = {
    "shear_x": lambda share, sign, size: shear_matrix(size, share, sign),
    "shear_y": lambda share, sign, size: _turned(shear_matrix(size, share, sign)),
    "translate_x": lambda share, sign, size: translation_matrix(size, share, sign),
    "translate_y": lambda share, sign, size: _turned(translation_matrix(size, share, sign)),
    "rotate": lambda share, sign, size: rotation_matrix(size, size, share, sign),
}


def take_interpolated(pictures: Tensor, matrices: Tensor) -> Tensor:
    """Interpolate every pixel from the four around its source, or FILL where that lies outside; fractions are cut off.

    Only small pictures are interpolated. So 64-bit arithmetic, which gives Pillow's own results, costs little.

    Args:
        pictures: (N, S, S, C) uint8. matrices: (N, 6) float64, of `find_matrix`.
    """
    size = pictures.shape[1]
    a, b, c, d, e, f = matrices[:, :, None, None].unbind(1)
    across = torch.arange(size, dtype=matrices.dtype, device=pictures.device) + 0.5
    down = across[:, None]
    x, y = a * across + b * down + c, d * across + e * down + f
    left, top = (x - 0.5).floor(), (y - 0.5).floor()
    right_share, lower_share = (x - 0.5 - left)[..., None], (y - 0.5 - top)[..., None]
    upper, lower = (_between(pictures, left, row, right_share) for row in (top, top + 1))
    between = upper + (lower - upper) * lower_share
    return _fill(between.to(torch.uint8), x, y)


def _between(pictures: Tensor, left: Tensor, row: Tensor, right_share: Tensor) -> Tensor:
    """Interpolate along x in the given rows; the pixels at the border continue beyond it."""
    one, other = (_take(pictures, column.int(), row.int()).double() for column in (left, left + 1))
    return one + (other - one) * right_share


def _take(pictures: Tensor, x: Tensor, y: Tensor) -> Tensor:
    """The pixels at x and y, (N, S, S) int32 each; beyond the border, the nearest pixels at it."""
    count, size = pictures.shape[:2]
    first = torch.arange(0, count * size * size, size * size, dtype=torch.int32, device=pictures.device)
    places = first[:, None, None] + y.clamp(0, size - 1) * size + x.clamp(0, size - 1)
    return pictures.view(-1, pictures.shape[-1]).index_select(0, places.flatten()).view_as(pictures)


def _fill(taken: Tensor, x: Tensor, y: Tensor) -> Tensor:
    """FILL, in place, where x or y lies outside of the picture."""
    size = taken.shape[1]
    outside = (x < 0) | (x >= size) | (y < 0) | (y >= size)
    return taken.masked_fill_(outside[..., None], FILL[0])
