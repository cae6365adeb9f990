"""Owns how one training picture becomes a small square: of a JPEG, no more is decoded than its crop needs.

Augmentation is `train/augment/host.py`'s; which bytes show a crop, `zoo/data/jpeg.py` knows; which pictures are broken,
`zoo/data/preprocess.py` decides, as everywhere.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import simplejpeg
import torch
from PIL import Image, ImageOps

from train.augment.host import Pixels
from zoo.data.decode import MAX_PIXELS, open_picture
from zoo.data.jpeg import Box, JpegHeader, JpegPart, cut_out, read_jpeg_header
from zoo.data.planes import in_planes, to_image, to_pixels
from zoo.model.spec import RGB

# From this size on whole pixels are exact enough (half a pixel of 64 is 0.8 %); below, fractions of a box matter.
WHOLE_PIXELS_FROM = 64
# Room for two dozen crops of a stage of 128 px and a dozen of 300, so that many pictures go through a step together. A
# third of it is 2 % slower, three times as much is no faster.
MEMORY_BYTES = 6_000_000
# What a JPEG is decoded to, by the number of planes; it has no fourth.
COLOR_SPACES = {1: "GRAY", RGB: "RGB"}


@dataclass(frozen=True)
class Crop:
    """A decoded part of a picture, as stored, and the crop's box in it; without a box the pixels are the crop."""

    pixels: Pixels
    box: Box | None = None
    orientation: int = 1

    def resized(self, size: int) -> Pixels:
        """(size, size, C) uint8, upright; resized by an antialiased bilinear filter, once."""
        return (
            self.pixels if self.box is None else to_upright(resize_box(self.pixels, self.box, size), self.orientation)
        )


class CropDecoder:
    """Decodes crops into memory that it keeps, because fresh memory costs time.

    Crops are valid until `reuse`; `is_full` says when that is due. Not for several threads; every process has its own.
    """

    def __init__(self) -> None:
        self._memory: Pixels = np.empty(0, np.uint8)
        self._used = self._largest = 0

    @property
    def is_full(self) -> bool:
        """Whether another crop as large as the largest recent one would need more memory."""
        return self._used + self._largest > self._memory.size

    def reuse(self) -> None:
        """Let the next crops overwrite those decoded so far."""
        self._used = 0
        self._largest //= 2  # one huge picture must not keep that much memory reserved forever

    def decode(
        self, source: bytes | Pixels, draw: Callable[[int, int], Box], size: int, *, name: str, channels: int = RGB
    ) -> Crop:
        """Decode what a crop of one picture needs.

        Args:
            source: a file's bytes, or an (H, W, C) uint8 array.
            draw: chooses the box (left, top, right, bottom) for the width and height, in pixels, of the upright
                picture. The box may reach beyond the picture, where it is black.
            size: pixels a side of the finished crop. A JPEG is decoded at the smallest of 1, 1/2, 1/4, 1/8 of its size
                at which the box still has `size` pixels both ways, and no more of it than `cut_out` needs.
            name: names the picture in errors.
            channels: how many planes; as `open_picture`.

        Raises:
            BrokenPictureError: it cannot be decoded, or has not these planes; as `open_picture`.
        """
        if not isinstance(source, bytes):
            return Crop(in_planes(source, channels, name=name), draw(source.shape[1], source.shape[0]))
        header = read_jpeg_header(source) if channels in COLOR_SPACES else None
        if header is None or header.width * header.height > MAX_PIXELS:
            pixels = _open(source, channels, name)
            return Crop(resize_box(pixels, draw(pixels.shape[1], pixels.shape[0]), size))
        upright = draw(*header.upright_size)
        box = to_stored(upright, header)
        factor = dct_factor(box, size)
        # The resize filter reads beyond the box, by half of its width.
        margin = max(box[2] - box[0], box[3] - box[1]) / size + factor
        wanted = (box[0] - margin, box[1] - margin, box[2] + margin, box[3] + margin)
        part = cut_out(source, header, wanted)
        decoded = self._decode(part, factor, channels)
        if decoded is None:
            # Something is wrong: Pillow decides whether the picture is broken, in the same words for every crop.
            return Crop(resize_box(_open(source, channels, name), upright, size))
        return Crop(decoded, part.scaled(box, factor), header.orientation)

    def _decode(self, part: JpegPart, factor: int, channels: int) -> Pixels | None:
        """The part at 1/`factor` of its size; None where libjpeg-turbo warns."""
        shape = -(-part.height // factor), -(-part.width // factor), channels
        pixels = self._take(math.prod(shape))
        try:
            # Chroma is repeated, not interpolated: that is 0.3 of 255 levels off on average, a fifteenth faster, and no
            # row depends on the one below the box.
            decoded: Pixels = simplejpeg.decode_jpeg(
                part.data,
                COLOR_SPACES[channels],
                fastupsample=True,
                min_height=shape[0],
                min_width=shape[1],
                buffer=pixels,
            )
        except ValueError as error:
            # A picture that is declared shorter than it is has bytes left over. libjpeg-turbo reports only its first
            # warning, so if it is this one all rows above are good.
            if not (part.ends_early and _is_early_end(str(error))):
                return None
            return pixels.reshape(shape)
        return decoded if decoded.shape == shape else None

    def _take(self, size_bytes: int) -> Pixels:
        if self._used + size_bytes > self._memory.size:
            # The old memory lives as long as crops in it are in use.
            self._memory, self._used = np.empty(max(size_bytes, MEMORY_BYTES), np.uint8), 0
        self._largest = max(self._largest, size_bytes)
        self._used += size_bytes
        return self._memory[self._used - size_bytes : self._used]


def _open(source: bytes, channels: int, name: str) -> Pixels:
    """A whole picture, (H, W, C), in memory of its own."""
    return to_pixels(open_picture(source, name=name, channels=channels)).copy()


def _is_early_end(warning: str) -> bool:
    return "extraneous bytes before marker 0xd9" in warning


def dct_factor(box: Box, size: int) -> int:
    """The largest of 1, 2, 4, 8 that leaves the box `size` pixels both ways.

    Only powers of two: libjpeg-turbo has SIMD transforms for those alone, and 5/8 takes longer than full size.
    """
    room = min(box[2] - box[0], box[3] - box[1]) / size
    return next((factor for factor in (8, 4, 2) if factor <= room), 1)


def to_stored(box: Box, header: JpegHeader) -> Box:
    """A box of the upright picture, in the pixels of the picture as stored."""
    left, top, right, bottom = box
    width, height = header.width, header.height
    if header.orientation >= 5:  # 5…8 are transposed: swap the axes, then undo the mirroring
        left, top, right, bottom = top, left, bottom, right
    if header.orientation in (2, 3, 7, 8):
        left, right = width - right, width - left
    if header.orientation in (3, 4, 6, 7):
        top, bottom = height - bottom, height - top
    return left, top, right, bottom


def to_upright(pixels: Pixels, orientation: int) -> Pixels:
    """Turn a stored picture as EXIF says (2.32, table 6: where row 0 and column 0 are)."""
    if orientation == 1:
        return pixels
    if orientation in (2, 3, 7, 8):
        pixels = pixels[:, ::-1]
    if orientation in (3, 4, 6, 7):
        pixels = pixels[::-1]
    if orientation >= 5:
        pixels = pixels.transpose(1, 0, 2)
    return np.ascontiguousarray(pixels)


def resize_box(pixels: Pixels, box: Box, size: int) -> Pixels:
    """Resize a box of a picture to (size, size, C); black where the box leaves the picture.

    PyTorch's uint8 kernel is Pillow's antialiased bilinear filter with SIMD, for whole pixels. Small boxes, in which a
    fraction of a pixel is visible, go through Pillow itself.
    """
    if min(box[2] - box[0], box[3] - box[1]) < WHOLE_PIXELS_FROM:
        return _resize_fractions(pixels, box, size)
    left, top = round(box[0]), round(box[1])
    right, bottom = max(round(box[2]), left + 1), max(round(box[3]), top + 1)
    height, width = pixels.shape[:2]
    inside = pixels[max(top, 0) : max(min(bottom, height), 0), max(left, 0) : max(min(right, width), 0)]
    if inside.shape[:2] != (bottom - top, right - left):
        framed = np.zeros((bottom - top, right - left, pixels.shape[-1]), np.uint8)
        y, x = max(-top, 0), max(-left, 0)
        framed[y : y + inside.shape[0], x : x + inside.shape[1]] = inside
        inside = framed
    # The operator behind torch.nn.functional.interpolate(antialias=True), which has no `out`. Into channels-last memory
    # it writes pixels as they are needed here; planes would take as long again to interleave.
    resized: Pixels = np.empty((size, size, pixels.shape[-1]), np.uint8)
    planes, out = (torch.from_numpy(array).permute(0, 3, 1, 2) for array in (inside[None], resized[None]))
    torch.ops.aten._upsample_bilinear2d_aa.out(planes, [size, size], False, None, None, out=out)
    return resized


def _resize_fractions(pixels: Pixels, box: Box, size: int) -> Pixels:
    image = to_image(pixels)
    left, top, right, bottom = box
    beyond = (-left, -top, right - image.width, bottom - image.height)
    # Each side by itself: padding a long picture on all sides like on its short ones would take gigabytes.
    pads = [max(0, math.ceil(length)) for length in beyond]
    if any(pads):
        image = ImageOps.expand(image, tuple(pads))
    moved = (left + pads[0], top + pads[1], right + pads[0], bottom + pads[1])
    return to_pixels(image.resize((size, size), Image.Resampling.BILINEAR, box=moved)).copy()
