"""Owns the quick way from a JPEG to an input: other pixels than `prepare` makes, slightly, in a fraction of the time.

Nobody gets it without asking for it: `zoo serve --pictures quick`. libjpeg-turbo decodes at 1/2, 1/4 or 1/8 of the size
where that leaves twice the input's, and PyTorch resizes with its antialiased 8-bit filters.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from zoo.data.decode import TURNS
from zoo.data.jpeg import JpegHeader, read_jpeg_header
from zoo.data.planes import to_image, to_pixels
from zoo.data.preprocess import crop_box
from zoo.data.turbo import COLOR_SPACES, TurboJpeg
from zoo.model.spec import Preprocessing

_KERNELS = {"bilinear": "_upsample_bilinear2d_aa", "bicubic": "_upsample_bicubic2d_aa"}
# What is left for the resize, as a multiple of the input's side: with twice as much its filter still does the work.
ROOM = 2


class QuickPreparer:
    """Makes inputs of JPEGs, one after another, in memory that it keeps. Not for several threads."""

    def __init__(self) -> None:
        self._jpegs = TurboJpeg()

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
        pixels = self._jpegs.decode(body, (height, width, preprocessing.channels))
        if pixels is None:
            return None
        box = [round(edge / factor) for edge in (left, top, right, bottom)]
        return _upright(_resize(pixels[box[1] : box[3], box[0] : box[2]], preprocessing), header)


def _factor(side: float, size: int) -> int:
    """The largest of 1, 2, 4, 8 that leaves `ROOM` × `size` pixels of a side: 3000 px for 224 → 4 (750 ≥ 448)."""
    return next((factor for factor in (8, 4, 2) if side / factor >= ROOM * size), 1)


def _resize(pixels: NDArray[np.uint8], preprocessing: Preprocessing) -> NDArray[np.uint8]:
    """Resize (H, W, C) to the input's size by PyTorch's kernel for uint8, which works on this layout as it is.

    `torch.nn.functional.interpolate` calls the same kernel, but for its answer in another layout: to turn that around
    takes as long as the resize.
    """
    import torch

    size = preprocessing.image_size
    made = np.empty((size, size, pixels.shape[2]), np.uint8)
    # Turned by NumPy: PyTorch lets the interpreter's lock go for each view, and has to wait for it each time.
    planes, out = (torch.from_numpy(array.transpose(2, 0, 1)[None]) for array in (pixels, made))
    kernel = getattr(torch.ops.aten, _KERNELS[preprocessing.interpolation])
    kernel.out(planes, [size, size], False, None, None, out=out)
    return made


def _upright(pixels: NDArray[np.uint8], header: JpegHeader) -> NDArray[np.uint8]:
    turn = TURNS.get(header.orientation)
    return pixels if turn is None else to_pixels(to_image(np.ascontiguousarray(pixels)).transpose(turn))
