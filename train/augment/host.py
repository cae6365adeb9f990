"""Owns what happens to one training picture on the host: crop, flip, RandAugment; whole batches are other files'.

Every random choice comes from the generator that is passed in. So a picture's augmentation depends on seed, epoch and
index alone, not on the number of workers, and it is the same here and in `train/augment/device.py`; a resumed run sees
the pictures that an uninterrupted one would have seen.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import partial

import numpy as np
import torch
from numpy.random import Generator
from numpy.typing import NDArray
from PIL import Image

from train.augment.strength import (
    FILL,
    GREY_ALONE,
    GREY_THOUSANDTHS,
    HAIR,
    MAX_LEVEL,
    SMOOTH_BELOW_PX,
    TABLES,
    Matrix,
    away_from,
    enhance_factor,
    rotation_matrix,
    sharpness_weights,
    shear_matrix,
    shear_shifts,
    translation_matrix,
    translation_px,
)
from zoo.data.planes import to_image, to_pixels
from zoo.model.spec import RGB

Pixels = NDArray[np.uint8]
Augmentation = Callable[[Pixels, float, float], Pixels]
# What was drawn for one picture, (1 + 2L,) int8: 1 to flip it, then an operation (its place in OPERATIONS) and a sign
# for each of L layers.
Draws = NDArray[np.int8]
_VALUES = np.arange(256)
_STRIP_ROWS = 128


def _shift_rows(pixels: Pixels, shifts: NDArray[np.int64]) -> Pixels:
    """Move row y to the left by shifts[y] pixels; neighbouring rows with the same shift are moved at once."""
    height, width = pixels.shape[:2]
    moved = np.full_like(pixels, FILL[0])
    borders = np.flatnonzero(np.diff(shifts)) + 1
    for top, bottom in zip([0, *borders.tolist()], [*borders.tolist(), height], strict=True):
        shift = int(shifts[top])
        if abs(shift) < width:
            to, end = max(-shift, 0), width - max(shift, 0)
            moved[top:bottom, to:end] = pixels[top:bottom, to + shift : end + shift]
    return moved


def _transform(pixels: Pixels, matrix: Matrix, how: Image.Resampling) -> Pixels:
    """Pillow's affine transform: the matrix says where output (x, y) comes from."""
    image, fill = to_image(pixels), FILL[:1] * pixels.shape[-1]
    return to_pixels(image.transform(image.size, Image.Transform.AFFINE, matrix, how, fillcolor=fill)).copy()


def _is_small(pixels: Pixels) -> bool:
    return bool(min(pixels.shape[:2]) < SMOOTH_BELOW_PX)


def _shear_x(pixels: Pixels, share: float, sign: float) -> Pixels:
    if _is_small(pixels):
        return _transform(pixels, shear_matrix(pixels.shape[0], share, sign), Image.Resampling.BILINEAR)
    return _shift_rows(pixels, shear_shifts(len(pixels), share, sign))


def _translate_x(pixels: Pixels, share: float, sign: float) -> Pixels:
    if _is_small(pixels):
        return _transform(pixels, translation_matrix(pixels.shape[1], share, sign), Image.Resampling.BILINEAR)
    return _shift_rows(pixels, np.full(len(pixels), round(translation_px(pixels.shape[1], share, sign))))


def _turned(operation: Augmentation, pixels: Pixels, share: float, sign: float) -> Pixels:
    """Do an operation along rows along the columns."""
    moved = operation(pixels.transpose(1, 0, 2), share, sign)
    return moved.transpose(1, 0, 2)


def _rotate(pixels: Pixels, share: float, sign: float) -> Pixels:
    how = Image.Resampling.BILINEAR if _is_small(pixels) else Image.Resampling.NEAREST
    return _transform(pixels, rotation_matrix(pixels.shape[1], pixels.shape[0], share, sign), how)


def _look_up(pixels: Pixels, table: bytes) -> Pixels:
    """Replace every value by the table's. `bytes.translate` is the fastest way to do that in Python."""
    return np.frombuffer(bytearray(pixels).translate(table), np.uint8).reshape(pixels.shape)  # writable, unlike bytes


def _replace_values(name: str, pixels: Pixels, share: float, sign: float) -> Pixels:
    return _look_up(pixels, TABLES[name](share, sign))


def _contrast(pixels: Pixels, share: float, sign: float) -> Pixels:
    rows = pixels.reshape(len(pixels), -1).sum(0, dtype=np.uint32)  # along memory: three times as fast as by channel
    channels = pixels.shape[-1]
    sums = rows.reshape(-1, channels).sum(0).tolist()
    weights = GREY_ALONE if channels == 1 else GREY_THOUSANDTHS
    thousandths = sum(total * weight for total, weight in zip(sums, weights, strict=True))
    unit = 1000 * pixels.size // channels
    return _look_up(pixels, away_from((2 * thousandths + unit) // (2 * unit), enhance_factor(share, sign)))


def _color(pixels: Pixels, share: float, sign: float) -> Pixels:
    if pixels.shape[-1] == 1:
        return pixels  # it is its own grey
    image = Image.fromarray(pixels)
    return np.array(Image.blend(image.convert("L").convert("RGB"), image, enhance_factor(share, sign)))


def _sharpness(pixels: Pixels, share: float, sign: float) -> Pixels:
    """Blend with Pillow's SMOOTH filter, without the outermost pixels."""
    around, middle = sharpness_weights(share, sign)
    rows, sharpened, step = pixels.reshape(len(pixels), -1), pixels.copy(), pixels.shape[-1]
    inside = sharpened.reshape(rows.shape)[1:-1, step:-step]
    # In strips: the intermediate numbers of a large picture would need fresh memory, which takes as long again.
    for top in range(0, len(inside), _STRIP_ROWS):
        wide = rows[top : top + _STRIP_ROWS + 2].astype(np.uint16)
        columns = wide[:-2] + wide[1:-1] + wide[2:]
        nine = columns[:, : -2 * step] + columns[:, step:-step] + columns[:, 2 * step :]
        blended = nine * around
        blended += wide[1:-1, step:-step] * middle
        inside[top : top + _STRIP_ROWS] = np.clip(blended, 0, 255, out=blended)
    return sharpened


def _autocontrast(pixels: Pixels, share: float, sign: float) -> Pixels:
    """Stretch every channel to 0…255."""
    rows = pixels.reshape(len(pixels), -1)
    low, high = (extreme.reshape(-1, pixels.shape[-1]) for extreme in (rows.min(0), rows.max(0)))
    lowest, highest = low.min(0).astype(np.float32), high.max(0).astype(np.float32)
    flat = highest <= lowest
    scale = np.where(flat, 1.0, 255.0 / np.where(flat, 1.0, highest - lowest)).astype(np.float32)
    stretched = rows * np.tile(scale, pixels.shape[1])
    stretched += np.tile(np.where(flat, 0.0, HAIR - lowest * scale).astype(np.float32), pixels.shape[1])
    return stretched.astype(np.uint8).reshape(pixels.shape)


def _equalize(pixels: Pixels, share: float, sign: float) -> Pixels:
    """Flatten every channel's histogram as Pillow's ImageOps.equalize does, with all tables made at once."""
    image = to_image(pixels)
    tables = [_equalizing_table(counts) for counts in np.array(image.histogram()).reshape(-1, 256)]
    return to_pixels(image.point(np.concatenate(tables).tolist())).copy()


def _equalizing_table(counts: NDArray[np.int64]) -> NDArray[np.int64]:
    present = counts[counts > 0]
    step = int(present.sum() - present[-1]) // 255
    if len(present) < 2 or not step:
        return _VALUES
    before = np.cumsum(counts) - counts
    table: NDArray[np.int64] = np.minimum((step // 2 + before) // step, 255)
    return table


# Every operation gives exactly Pillow's values; how it computes them was chosen by measurement
# (docs/adr/0001-decoding.md): Pillow's own pixels are four bytes wide, and converting to them and back costs more than
# most operations.
OPERATIONS: dict[str, Augmentation] = {
    "identity": lambda pixels, share, sign: pixels,
    "shear_x": _shear_x,
    "shear_y": partial(_turned, _shear_x),
    "translate_x": _translate_x,
    "translate_y": partial(_turned, _translate_x),
    "rotate": _rotate,
    "brightness": partial(_replace_values, "brightness"),
    "color": _color,
    "contrast": _contrast,
    "sharpness": _sharpness,
    "posterize": partial(_replace_values, "posterize"),
    "solarize": partial(_replace_values, "solarize"),
    "autocontrast": _autocontrast,
    "equalize": _equalize,
}
_OPERATIONS = tuple(OPERATIONS.values())
# The places of those that move pixels; the others change tones.
_MOVES = {tuple(OPERATIONS).index(name) for name in ("shear_x", "shear_y", "translate_x", "translate_y", "rotate")}


def draw_augmentation(rng: Generator, *, flips: bool, magnitude: float, num_layers: int) -> Draws:
    """Draw one picture's flip (half of them, where `flips`) and its `num_layers` operations; none at magnitude 0."""
    draw = rng.random  # the fastest way to a number; `integers` takes five times as long
    drawn = [int(flips and draw() < 0.5)]
    for _ in range(num_layers if magnitude > 0 else 0):
        drawn += [int(draw() * len(_OPERATIONS)), 1 if draw() < 0.5 else -1]
    return np.array(drawn, np.int8)


def augment(pixels: Pixels, draws: Draws, magnitude: float) -> Pixels:
    """Flip and RandAugment one picture (Cubuk et al. 2019, arXiv 1909.13719), as drawn.

    Geometry moves all planes. Tones are those of grey, or of the three colours: a fourth plane keeps its values, for
    nothing says what they mean, and grey has no colour to change.

    Args:
        pixels: (H, W, C) uint8; not written to, but returned itself if nothing was drawn.
    """
    if draws[0]:
        pixels = torch.from_numpy(pixels).flip(1).numpy()  # eight times as fast as NumPy's flip
    for operation, sign in draws[1:].reshape(-1, 2).tolist():
        pixels = _do(operation, np.ascontiguousarray(pixels), magnitude / MAX_LEVEL, float(sign))
    return pixels


def _do(operation: int, pixels: Pixels, share: float, sign: float) -> Pixels:
    """One operation, by its place; one of tones leaves a fourth plane as it is."""
    change = _OPERATIONS[operation]
    if pixels.shape[-1] <= RGB or operation in _MOVES:
        return change(pixels, share, sign)
    changed = pixels.copy()
    changed[..., :RGB] = change(np.ascontiguousarray(pixels[..., :RGB]), share, sign)
    return changed


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

    It may reach `padding` pixels (x, y) beyond the picture. After ten attempts it is the whole picture, as in
    TensorFlow's sample_distorted_bounding_box.
    """
    pad_x, pad_y = padding
    draw = rng.random
    for _ in range(10):
        area = width * height * (scale[0] + (scale[1] - scale[0]) * draw())
        aspect = ratio[0] * (ratio[1] / ratio[0]) ** draw()
        crop_w, crop_h = math.sqrt(area * aspect), math.sqrt(area / aspect)
        if crop_w <= width and crop_h <= height:
            left = (width + 2 * pad_x - crop_w) * draw() - pad_x
            top = (height + 2 * pad_y - crop_h) * draw() - pad_y
            return left, top, left + crop_w, top + crop_h
    return 0, 0, width, height
