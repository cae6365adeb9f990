"""Owns whole JPEGs by one call of libjpeg-turbo: the pixels that Pillow makes of them, sooner; all others are Pillow's.

`open_picture` hands a JPEG to Pillow's decoder in parts, so that decoding can be given up, and each part waits for the
interpreter's lock. Here the lock is let go once. A small picture is not worth giving up.
"""

from __future__ import annotations

import math
from functools import cache

import numpy as np
import simplejpeg
from numpy.typing import NDArray
from PIL import Image

from zoo.data.decode import TURNS, open_picture
from zoo.data.jpeg import read_jpeg_header
from zoo.data.planes import to_image, to_pixels
from zoo.model.spec import RGB

COLOR_SPACES = {1: "GRAY", RGB: "RGB"}
# Memory that is kept for the next picture: of one larger than 1,300 × 1,000 it is given back.
KEPT_BYTES = 4_000_000


class TurboJpeg:
    """Decodes plain JPEGs, one after another, in memory that it keeps. Not for several threads."""

    def __init__(self) -> None:
        self._memory: NDArray[np.uint8] = np.empty(KEPT_BYTES, np.uint8)

    def decode(self, body: bytes, shape: tuple[int, int, int]) -> NDArray[np.uint8] | None:
        """(H, W, C) as stored, valid until the next call; None where anything about the file is odd.

        Args:
            body: a file's bytes.
            shape: of the whole picture, or of 1/2, 1/4 or 1/8 of it.
        """
        size_bytes = math.prod(shape)
        memory = self._memory if size_bytes <= KEPT_BYTES else np.empty(size_bytes, np.uint8)
        try:
            decoded: NDArray[np.uint8] = simplejpeg.decode_jpeg(
                body, COLOR_SPACES[shape[2]], min_height=shape[0], min_width=shape[1], buffer=memory[:size_bytes]
            )
        except ValueError:  # Pillow decides whether it is broken
            return None
        return decoded if decoded.shape == shape else None

    def open(self, body: bytes, *, channels: int, max_pixels: int) -> Image.Image | None:
        """The image that `open_picture` makes of a plain JPEG; None of anything else, which is `open_picture`'s.

        Args:
            body: a file's bytes.
            channels: how many planes; of a JPEG 1 or 3.
            max_pixels: of larger ones none is made.
        """
        header = read_jpeg_header(body) if channels in COLOR_SPACES else None
        if header is None or header.width * header.height > max_pixels or not makes_the_same_pixels():
            return None
        pixels = self.decode(body, (header.height, header.width, channels))
        if pixels is None:
            return None
        image, turn = to_image(pixels), TURNS.get(header.orientation)
        return image if turn is None else image.transpose(turn)


@cache
def makes_the_same_pixels() -> bool:
    """Whether Pillow was built with a libjpeg that decodes as simplejpeg's does; its own wheels are. Tried on noise."""
    noise = np.random.default_rng(0).integers(0, 256, (48, 64, 3), np.uint8)
    body = simplejpeg.encode_jpeg(noise, quality=80, colorsubsampling="420")
    return np.array_equal(simplejpeg.decode_jpeg(body), to_pixels(open_picture(body)))
