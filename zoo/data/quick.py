"""Owns the quick way from a JPEG to an input: other pixels than `prepare` makes, slightly, in a fraction of the time.

Nobody gets it without asking for it: `zoo serve --pictures quick`. libjpeg-turbo decodes at 1/2, 1/4 or 1/8 of the size
where that leaves twice the input's, and PyTorch resizes with its antialiased 8-bit filters.
"""

from __future__ import annotations

import math

import numpy as np
import simplejpeg
from numpy.typing import NDArray

from zoo.data.decode import TURNS
from zoo.data.jpeg import JpegHeader, read_jpeg_header
from zoo.data.planes import to_image, to_pixels
from zoo.data.preprocess import crop_box
from zoo.model.spec import RGB, Preprocessing

COLOR_SPACES = {1: "GRAY", RGB: "RGB"}
# What is left for the resize, as a multiple of the input's side: with twice as much its filter still does the work.
ROOM = 2
# Memory that is kept for the next picture: of one larger than 1,300 × 1,000 it is given back.
KEPT_BYTES = 4_000_000


class QuickPreparer:
    """Makes inputs of JPEGs, one after another, in memory that it keeps. Not for several threads."""

    def __init__(self) -> None:
        self._memory: NDArray[np.uint8] = np.empty(KEPT_BYTES, np.uint8)

    def prepare(self, body: bytes, preprocessing: Preprocessing, *, max_pixels: int) -> NDArray[np.uint8] | None:
        """(S, S, C) uint8; None for what has to go the usual way: no plain JPEG, damaged, too large once decoded.

        Args:
            body: a file's bytes.
            preprocessing: the contract's; four planes are none of a JPEG's.
            max_pixels: how many may be decoded.
        """
        header = read_jpeg_header(body) if preprocessing.channels in COLOR_SPACES else None
        if header is None:
            return None
        # Crops are centred, so that turning the picture upright turns the crop with it.
        left, top, right, bottom = crop_box(header.width, header.height, preprocessing)
        factor = _factor(min(right - left, bottom - top), preprocessing.image_size)
        height, width = -(-header.height // factor), -(-header.width // factor)
        # A progressive picture is kept whole before it is made smaller.
        if (header.width * header.height if not header.in_order else width * height) > max_pixels:
            return None
        pixels = self._decode(body, (height, width, preprocessing.channels))
        if pixels is None:
            return None
        box = [round(edge / factor) for edge in (left, top, right, bottom)]
        return _upright(_resize(pixels[box[1] : box[3], box[0] : box[2]], preprocessing), header)

    def _decode(self, body: bytes, shape: tuple[int, int, int]) -> NDArray[np.uint8] | None:
        size_bytes = math.prod(shape)
        memory = self._memory if size_bytes <= KEPT_BYTES else np.empty(size_bytes, np.uint8)
        try:
            decoded: NDArray[np.uint8] = simplejpeg.decode_jpeg(
                body, COLOR_SPACES[shape[2]], min_height=shape[0], min_width=shape[1], buffer=memory[:size_bytes]
            )
        except ValueError:  # Pillow decides whether it is broken
            return None
        return decoded if decoded.shape == shape else None


def _factor(side: float, size: int) -> int:
    """The largest of 1, 2, 4, 8 that leaves `ROOM` × `size` pixels of a side: 3000 px for 224 → 4 (750 ≥ 448)."""
    return next((factor for factor in (8, 4, 2) if side / factor >= ROOM * size), 1)


def _resize(pixels: NDArray[np.uint8], preprocessing: Preprocessing) -> NDArray[np.uint8]:
    """Resize (H, W, C) to the input's size by PyTorch's kernel for uint8, which works on this layout as it is."""
    from torch import from_numpy
    from torch.nn.functional import interpolate

    size = preprocessing.image_size
    planes = from_numpy(pixels).permute(2, 0, 1)[None]
    resized = interpolate(planes, size=(size, size), mode=preprocessing.interpolation, antialias=True)
    made: NDArray[np.uint8] = resized[0].permute(1, 2, 0).numpy()
    return made


def _upright(pixels: NDArray[np.uint8], header: JpegHeader) -> NDArray[np.uint8]:
    turn = TURNS.get(header.orientation)
    return pixels if turn is None else to_pixels(to_image(np.ascontiguousarray(pixels)).transpose(turn))
