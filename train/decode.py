"""Owns how one training picture becomes a small square: of a JPEG, no more is decoded than its crop needs.

What is augmented is `train/augment.py`'s; which pictures are broken is decided by `zoo/preprocess.py`, as everywhere.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, field

import numpy as np
import simplejpeg
import torch
from numpy.typing import NDArray
from PIL import Image, ImageOps

from zoo.preprocess import MAX_PIXELS, open_picture

Box = tuple[float, float, float, float]
Pixels = NDArray[np.uint8]

_START_OF_FRAME = (0xC0, 0xC1, 0xC2)  # baseline, extended and progressive Huffman; the rest is arithmetic or lossless
_START_OF_SCAN, _RESTART_INTERVAL, _APP1, _END_OF_IMAGE = 0xDA, 0xDD, 0xE1, b"\xff\xd9"
# A file's end may carry a few bytes more than the picture: padding, a newline.
_TAIL_BYTES = 256
_ORIENTATION = 0x0112
# Whole pixels are exact enough from here on (half a pixel of 64 is 0.8 %); below, the fractions of a box matter.
WHOLE_PIXELS_FROM = 64


@dataclass(frozen=True, kw_only=True)
class JpegHeader:
    """What the crop needs to know before decoding.

    `width` and `height` are as stored, in pixels; `orientation` is EXIF's 1…8; `height_at` is where the height stands
    in the file; `mcu_height` is the height of a row of blocks. `top_first` says whether the rows stand one after the
    other, so that the top can be had alone: not in progressive pictures, nor told apart where restart markers are.
    """

    width: int
    height: int
    orientation: int
    height_at: int
    mcu_height: int
    top_first: bool

    @property
    def upright_size(self) -> tuple[int, int]:
        """Width and height as the picture is looked at."""
        return (self.height, self.width) if self.orientation >= 5 else (self.width, self.height)


def read_jpeg_header(data: bytes) -> JpegHeader | None:
    """Walk a JPEG's markers up to its first scan; None for whatever is not a plain 8-bit grey or three-channel JPEG.

    Markers: ITU-T T.81, table B.1 and figure B.3. Orientation: EXIF 2.32, tag 0x0112.
    """
    if data[:3] != b"\xff\xd8\xff":
        return None
    frame: int | None = None
    orientation, restarts, position, end = 1, False, 2, len(data)
    while position + 4 <= end and data[position] == 0xFF:
        marker = data[position + 1]
        if marker == 0xFF:  # fill bytes may precede a marker
            position += 1
            continue
        length = int.from_bytes(data[position + 2 : position + 4], "big")
        if marker == _START_OF_SCAN:
            return None if frame is None else _header(data, frame, orientation, restarts)
        if marker in _START_OF_FRAME:
            frame = position
        elif marker == _APP1:
            known = _orientation(data[position + 4 : position + 2 + length])
            if known is None:
                return None
            orientation = known
        restarts |= marker == _RESTART_INTERVAL
        position += 2 + length
    return None


def _header(data: bytes, frame: int, orientation: int, restarts: bool) -> JpegHeader | None:
    """Read a frame header: FF Cx, length, precision, height, width, then three bytes a component."""
    if len(data) < frame + 10 or len(data) < frame + 10 + 3 * data[frame + 9]:
        return None
    precision, components = data[frame + 4], data[frame + 9]
    height, width = (int.from_bytes(data[at : at + 2], "big") for at in (frame + 5, frame + 7))
    if precision != 8 or components not in (1, 3) or not height or not width:
        return None
    samplings = [data[frame + 11 + 3 * index] & 0x0F for index in range(components)]
    if not 1 <= max(samplings) <= 4:
        return None
    return JpegHeader(
        width=width,
        height=height,
        orientation=orientation,
        height_at=frame + 5,
        mcu_height=8 * max(samplings),
        top_first=data[frame + 1] != 0xC2 and not restarts,
    )


def _orientation(segment: bytes) -> int | None:
    """Orientation an APP1 segment gives; None where Pillow had better be asked."""
    if segment.startswith(b"Exif\0\0"):
        exif = Image.Exif()
        try:
            exif.load(segment)
        except (SyntaxError, ValueError, OSError):  # Pillow's words for damaged TIFF headers
            return None
        value = exif.get(_ORIENTATION, 1)
        return value if value in range(1, 9) else 1
    return None if b"tiff:Orientation" in segment else 1


@dataclass(frozen=True)
class CropDecoder:
    """Decodes crops one after the other into memory it keeps, so that no picture pays for fresh pages.

    Not for several threads at once; every process has its own.
    """

    _scratch: list[Pixels] = field(default_factory=lambda: [np.empty(0, np.uint8)])

    def crop(self, source: bytes | Pixels, draw: Callable[[int, int], Box], size: int, *, name: str) -> Pixels:
        """Decode, crop and resize one picture.

        Args:
            source: a file's bytes, or an (H, W, 3) uint8 array.
            draw: chooses the box (left, top, right, bottom) for a width and height in pixels, the picture upright. It
                may reach beyond the picture, where it is black.
            size: pixels a side of what comes out. A JPEG is decoded at the smallest of 1, 1/2, 1/4, 1/8 of its size
                at which the box still has `size` pixels both ways, and down to the box's last row.
            name: names the picture in errors.

        Returns:
            (size, size, 3) uint8, RGB. Resized by an antialiased bilinear filter, once.

        Raises:
            BrokenPictureError: it cannot be decoded; as `open_picture`.
        """
        if not isinstance(source, bytes):
            return resize_box(source, draw(source.shape[1], source.shape[0]), size)
        header = read_jpeg_header(source)
        if header is None or header.width * header.height > MAX_PIXELS:
            pixels = np.array(open_picture(source, name=name))
            return resize_box(pixels, draw(pixels.shape[1], pixels.shape[0]), size)
        upright = draw(*header.upright_size)
        box = to_stored(upright, header)
        factor = dct_factor(box, size)
        decoded = self._decode(source, header, box, factor)
        if decoded is None:
            # Something is odd: Pillow decides whether the picture is broken, in the same words for every crop.
            return resize_box(np.array(open_picture(source, name=name)), upright, size)
        scaled = (box[0] / factor, box[1] / factor, box[2] / factor, box[3] / factor)
        return to_upright(resize_box(decoded, scaled, size), header.orientation)

    def _decode(self, data: bytes, header: JpegHeader, box: Box, factor: int) -> Pixels | None:
        """The picture at 1/`factor`, at least down to the box's last row; None where libjpeg-turbo warns."""
        rows = header.height
        if header.top_first and _END_OF_IMAGE in data[-_TAIL_BYTES:]:
            # At least one row of blocks: a padded crop may lie above the picture altogether.
            rows = min(rows, max(1, math.ceil(box[3] / header.mcu_height)) * header.mcu_height)
        height, width = -(-rows // factor), -(-header.width // factor)
        pixels = self._memory(height * width * 3)
        if rows < header.height:
            data = data[: header.height_at] + rows.to_bytes(2, "big") + data[header.height_at + 2 :]
        try:
            # Chroma is repeated, not interpolated: 0.3 levels of 255 away on average, a fifteenth faster, and no row
            # depends on the one below the box.
            decoded: Pixels = simplejpeg.decode_jpeg(
                data, fastupsample=True, min_height=height, min_width=width, buffer=pixels
            )
        except ValueError as error:
            # A picture declared shorter than it is ends in bytes nobody asked for. libjpeg-turbo reports its first
            # warning only, so this one says that all rows above were sound.
            if rows == header.height or not _is_early_end(str(error)):
                return None
            return pixels.reshape(height, width, 3)
        return decoded if decoded.shape == (height, width, 3) else None

    def _memory(self, size_bytes: int) -> Pixels:
        if self._scratch[0].size < size_bytes:
            self._scratch[0] = np.empty(size_bytes, np.uint8)
        return self._scratch[0][:size_bytes]


def _is_early_end(warning: str) -> bool:
    return "extraneous bytes before marker 0xd9" in warning


def dct_factor(box: Box, size: int) -> int:
    """The largest of 1, 2, 4, 8 that leaves the box `size` pixels both ways.

    Only powers of two: libjpeg-turbo has SIMD transforms for those alone, and 5/8 takes longer than the whole.
    """
    room = min(box[2] - box[0], box[3] - box[1]) / size
    return next((factor for factor in (8, 4, 2) if factor <= room), 1)


def to_stored(box: Box, header: JpegHeader) -> Box:
    """A box of the upright picture, in the pixels of the picture as stored."""
    left, top, right, bottom = box
    width, height = header.width, header.height
    if header.orientation >= 5:  # 5…8 are transposed: first take back what is mirrored, then swap the axes
        left, top, right, bottom = top, left, bottom, right
    if header.orientation in (2, 3, 7, 8):
        left, right = width - right, width - left
    if header.orientation in (3, 4, 6, 7):
        top, bottom = height - bottom, height - top
    return left, top, right, bottom


def to_upright(pixels: Pixels, orientation: int) -> Pixels:
    """Turn a picture as stored the way EXIF says (2.32, table 6: where row 0 and column 0 are)."""
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
    """Resize a box of a picture to (size, size, 3); black where the box leaves the picture.

    PyTorch's uint8 kernel is Pillow's antialiased bilinear filter in SIMD, for whole pixels; small boxes, where a
    fraction of a pixel shows, go through Pillow itself.
    """
    if min(box[2] - box[0], box[3] - box[1]) < WHOLE_PIXELS_FROM:
        return _resize_fractions(pixels, box, size)
    left, top = round(box[0]), round(box[1])
    right, bottom = max(round(box[2]), left + 1), max(round(box[3]), top + 1)
    height, width = pixels.shape[:2]
    inside = pixels[max(top, 0) : max(min(bottom, height), 0), max(left, 0) : max(min(right, width), 0)]
    if inside.shape[:2] != (bottom - top, right - left):
        framed = np.zeros((bottom - top, right - left, 3), np.uint8)
        y, x = max(-top, 0), max(-left, 0)
        framed[y : y + inside.shape[0], x : x + inside.shape[1]] = inside
        inside = framed
    # The operator behind torch.nn.functional.interpolate(antialias=True), which has no `out`: given channels-last
    # memory it writes pixels as they are kept here, without it planes, which take as long again to interleave.
    resized: Pixels = np.empty((size, size, 3), np.uint8)
    planes, out = (torch.from_numpy(array).permute(0, 3, 1, 2) for array in (inside[None], resized[None]))
    torch.ops.aten._upsample_bilinear2d_aa.out(planes, [size, size], False, None, None, out=out)
    return resized


def _resize_fractions(pixels: Pixels, box: Box, size: int) -> Pixels:
    image = Image.fromarray(pixels)
    left, top, right, bottom = box
    pad = math.ceil(max(0, -left, -top, right - image.width, bottom - image.height))
    if pad:
        image = ImageOps.expand(image, pad)
    moved = (left + pad, top + pad, right + pad, bottom + pad)
    return np.array(image.resize((size, size), Image.Resampling.BILINEAR, box=moved))
