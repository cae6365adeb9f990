"""Owns the planes of a picture in memory: 1 grey, 3 RGB, 4 RGB and another; how files become that is `decode.py`'s.

In Pillow four planes are mode RGBX, whatever the last one holds: it multiplies the colours of RGBA by their alpha
before every resize and divides them after it, which destroys them where the alpha is low, or is no alpha but infrared.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from zoo.errors import BrokenPictureError
from zoo.model.spec import COLOR_ORDERS, RGB

# Pillow's mode by the number of planes.
MODES = {1: "L", 3: "RGB", 4: "RGBX"}


def to_pixels(image: Image.Image) -> NDArray[np.uint8]:
    """An image of one of `MODES` as (H, W, C) uint8."""
    pixels: NDArray[np.uint8] = np.asarray(image)
    return pixels[..., None] if pixels.ndim == 2 else pixels


def to_image(pixels: NDArray[np.uint8]) -> Image.Image:
    """(H, W, C) uint8 as an image of one of `MODES`."""
    height, width, channels = pixels.shape
    if channels == RGB:
        return Image.fromarray(pixels)
    return Image.frombytes(MODES[channels], (width, height), np.ascontiguousarray(pixels).tobytes())


def in_planes(pixels: NDArray[np.uint8], channels: int, *, name: str) -> NDArray[np.uint8]:
    """A picture (H, W, C) in the planes asked for: grey becomes all three colours, and colours become grey.

    Grey is ITU-R 601's, as of files. A fourth plane is neither made nor dropped: nothing says what it means.

    Raises:
        BrokenPictureError: it has a fourth plane that was not asked for, or lacks it.
    """
    there = pixels.shape[-1]
    if there == channels:
        return pixels
    if there not in (1, RGB) or channels not in (1, RGB):
        raise wrong_planes(name, f"has {there} plane{'s' * (there > 1)}", channels)
    return np.repeat(pixels, RGB, axis=-1) if there == 1 else to_pixels(to_image(pixels).convert("L"))


def wrong_planes(name: str, has: str, channels: int) -> BrokenPictureError:
    """The error of a picture that `has` other planes than those asked for."""
    wanted = f"{channels} ({COLOR_ORDERS[channels]}) {'is' if channels == 1 else 'are'} expected"
    return BrokenPictureError(
        f"{name} {has}; {wanted}.", "`zoo train --channels` decides how many planes a network takes: 1, 3 or 4."
    )


def as_shown(image: Image.Image) -> Image.Image:
    """An image of one of `MODES` as people can be shown it: without its fourth plane."""
    return image.convert("RGB") if image.mode == MODES[4] else image
