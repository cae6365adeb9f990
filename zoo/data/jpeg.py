"""Owns what a JPEG's bytes say before they are decoded: its size, and which bytes show a box. It decodes nothing.

Markers are those of ITU-T T.81, table B.1; the fields that follow them are in its figure B.2.
"""

from __future__ import annotations

import math
import struct
import warnings
from dataclasses import dataclass
from itertools import cycle

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from zoo.data.decode import ORIENTATION_TAG

Box = tuple[float, float, float, float]

_START_OF_FRAME = (0xC0, 0xC1, 0xC2)  # baseline, extended and progressive Huffman; the rest is arithmetic or lossless
_START_OF_SCAN, _RESTART_INTERVAL, _APP1, _END_OF_IMAGE = 0xDA, 0xDD, 0xE1, b"\xff\xd9"
_RESTART_KINDS = bytes(range(0xD0, 0xD8))
_RESTARTS = tuple(bytes((0xFF, kind)) for kind in _RESTART_KINDS)
# A file may end in a few bytes that are not the picture's: padding, a newline.
_TAIL_BYTES = 256


@dataclass(frozen=True, kw_only=True)
class JpegHeader:
    """What a crop needs to know before decoding.

    `width` and `height` are as stored, in pixels; `orientation` is EXIF's 1…8. `size_at` is the place of height and
    width in the file, `scan_at` that of its first pixels. `mcu_width` and `mcu_height` are the pixels of the blocks
    that are coded together. `in_order` says that these blocks come row by row, so that some can be decoded without the
    others; in progressive pictures they do not. `restart_interval` is the number of blocks between two restart markers,
    0 without markers.
    """

    width: int
    height: int
    orientation: int
    size_at: int
    scan_at: int
    mcu_width: int
    mcu_height: int
    in_order: bool
    restart_interval: int

    @property
    def upright_size(self) -> tuple[int, int]:
        """Width and height of the picture turned upright."""
        return (self.height, self.width) if self.orientation >= 5 else (self.width, self.height)


@dataclass(frozen=True, kw_only=True)
class JpegPart:
    """A JPEG that shows a rectangle of another one; `left`, `top`, `width` and `height` are in pixels of that one.

    `ends_early` says that there are more bytes after its last row.
    """

    data: bytes | bytearray
    left: int
    top: int
    width: int
    height: int
    ends_early: bool = False

    def scaled(self, box: Box, factor: int) -> Box:
        """A box of the whole picture, in the pixels of this part at 1/`factor` of its size."""
        left, top, right, bottom = box
        return (
            (left - self.left) / factor,
            (top - self.top) / factor,
            (right - self.left) / factor,
            (bottom - self.top) / factor,
        )


def is_jpeg(data: bytes) -> bool:
    """Whether a file begins as a JPEG does (ITU-R T.81 B.1.1.3), with another marker behind the first."""
    return data[:3] == b"\xff\xd8\xff"


def read_jpeg_header(data: bytes) -> JpegHeader | None:
    """Walk a JPEG's markers up to its first scan; None for all but plain 8-bit JPEGs with one or three channels."""
    if not is_jpeg(data):
        return None
    frame: int | None = None
    orientation, restart_interval, position, end = 0, 0, 2, len(data)
    while position + 4 <= end and data[position] == 0xFF:
        marker = data[position + 1]
        if marker == 0xFF:  # fill bytes may precede a marker
            position += 1
            continue
        length = _number(data, position + 2)
        if marker == _START_OF_SCAN:
            return None if frame is None else _header(data, frame, position, orientation or 1, restart_interval)
        if marker in _START_OF_FRAME:
            frame = position
        elif marker == _APP1:
            known = _orientation(data[position + 4 : position + 2 + length])
            if known is None:
                return None
            orientation = orientation or known  # XMP mostly comes behind EXIF, and says nothing of it
        elif marker == _RESTART_INTERVAL:
            restart_interval = _number(data, position + 4)
        position += 2 + length
    return None


def _number(data: bytes, at: int) -> int:
    return int.from_bytes(data[at : at + 2], "big")


def _header(data: bytes, frame: int, scan: int, orientation: int, restart_interval: int) -> JpegHeader | None:
    """Read a frame header: FF Cx, length, precision, height, width, then three bytes a component."""
    if len(data) < frame + 10 or len(data) < frame + 10 + 3 * data[frame + 9] or len(data) < scan + 5:
        return None
    precision, components = data[frame + 4], data[frame + 9]
    height, width = _number(data, frame + 5), _number(data, frame + 7)
    if precision != 8 or components not in (1, 3) or not height or not width:
        return None
    samplings = [data[frame + 11 + 3 * index] for index in range(components)]
    across, down = max(sampling >> 4 for sampling in samplings), max(sampling & 0x0F for sampling in samplings)
    if not (1 <= across <= 4 and 1 <= down <= 4):
        return None
    if components == 1:  # the blocks of a single component are 8 × 8, whatever its sampling says
        across = down = 1
    return JpegHeader(
        width=width,
        height=height,
        orientation=orientation,
        size_at=frame + 5,
        scan_at=scan + 2 + _number(data, scan + 2),
        mcu_width=8 * across,
        mcu_height=8 * down,
        in_order=data[frame + 1] != 0xC2 and data[scan + 4] == components,
        restart_interval=restart_interval,
    )


def _orientation(segment: bytes) -> int | None:
    """The orientation that an APP1 segment gives, 0 where it gives none; None where only Pillow can tell."""
    if segment.startswith(b"Exif\0\0"):
        exif = Image.Exif()
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")  # of odd EXIF, as in `open_picture`
                exif.load(segment)
                value = exif.get(ORIENTATION_TAG, 1)
        except (SyntaxError, ValueError, OSError, struct.error):  # what Pillow raises for damaged TIFF headers
            return None
        return value if value in range(1, 9) else 1
    return None if b"tiff:Orientation" in segment else 0


def cut_out(data: bytes, header: JpegHeader, box: Box) -> JpegPart:
    """The smallest part of a JPEG that shows a box of it: stretches between restart markers, else rows from the top on.

    Args:
        box: left, top, right, bottom in pixels as stored; it may reach beyond the picture, or lie beside it.

    Returns:
        The whole picture where it cannot be taken apart, or is damaged: then the decoder says what is wrong.
    """
    if header.in_order and header.restart_interval and header.scan_at < len(data):
        return _between_restarts(data, header, box) or _whole(data, header)
    if header.in_order and _END_OF_IMAGE in data[-_TAIL_BYTES:]:
        # At least one row of blocks: a padded crop may lie above the whole picture.
        rows = max(1, math.ceil(box[3] / header.mcu_height)) * header.mcu_height
        if rows < header.height:
            shorter = bytearray(data)
            shorter[header.size_at : header.size_at + 2] = rows.to_bytes(2, "big")
            return JpegPart(data=shorter, left=0, top=0, width=header.width, height=rows, ends_early=True)
    return _whole(data, header)


def restart_blocks(across: int) -> int:
    """How many blocks to write between two restart markers, for pictures that are `across` blocks wide.

    About 4 blocks of 16 pixels, so that the stretches divide a row evenly. With 8, more is decoded that no crop shows;
    2 cost more bytes and time than they save (docs/adr/0001-decoding.md). A row that nothing divides is one stretch.
    """
    parts = [blocks for blocks in range(2, 9) if across % blocks == 0]
    return min(parts, key=lambda blocks: abs(blocks - 4), default=across)


def _whole(data: bytes, header: JpegHeader) -> JpegPart:
    return JpegPart(data=data, left=0, top=0, width=header.width, height=header.height)


def _between_restarts(data: bytes, header: JpegHeader, box: Box) -> JpegPart | None:
    """The stretches between restart markers that the box touches, joined to a picture of their own.

    What follows a restart marker does not depend on what came before it (T.81, F.2.1.3.1). So the stretches may be
    joined in any way, as long as the markers between them count from 0 to 7, over and over.
    """
    across = -(-header.width // header.mcu_width)
    if across % header.restart_interval and header.restart_interval % across:
        return None  # stretches that continue in the next row make no rectangle
    cell_width = min(header.restart_interval, across) * header.mcu_width
    cell_height = max(1, header.restart_interval // across) * header.mcu_height
    columns, rows = -(-header.width // cell_width), -(-header.height // cell_height)
    ends = _restarts(data, header.scan_at, columns * rows - 1)
    if ends is None:
        return None
    begins = [header.scan_at, *(end + 2 for end in ends)]
    first_column, last_column = _span(box[0], box[2], cell_width, columns)
    first_row, last_row = _span(box[1], box[3], cell_height, rows)
    left, top = first_column * cell_width, first_row * cell_height
    width = min((last_column + 1) * cell_width, header.width) - left
    height = min((last_row + 1) * cell_height, header.height) - top
    at = header.size_at
    pieces = [data[:at], height.to_bytes(2, "big"), width.to_bytes(2, "big"), data[at + 4 : header.scan_at]]
    numbers = cycle(_RESTARTS)
    for row in range(first_row * columns, (last_row + 1) * columns, columns):
        for stretch in range(row + first_column, row + last_column + 1):
            pieces += (data[begins[stretch] : ends[stretch]], next(numbers))
    pieces[-1] = _END_OF_IMAGE
    return JpegPart(data=b"".join(pieces), left=left, top=top, width=width, height=height)


def _span(low: float, high: float, length: int, count: int) -> tuple[int, int]:
    """First and last of `count` cells of `length` pixels that have the pixels from `low` to `high`."""
    first = min(max(math.floor(low / length), 0), count - 1)
    return first, min(max(math.ceil(high / length) - 1, first), count - 1)


def _restarts(data: bytes, scan_at: int, count: int) -> list[int] | None:
    """Places of the `count` restart markers of a scan, and of its end; None unless all are there, in order."""
    scan: NDArray[np.uint8] = np.frombuffer(data, np.uint8, offset=scan_at)
    marks = np.flatnonzero(scan[:-1] == 0xFF)
    kinds = scan[marks + 1]
    # FF 00 is no marker but a byte of the picture. Fill bytes, which nobody writes, count as out of order.
    real = np.flatnonzero(kinds)[: count + 1]
    in_order = (_RESTART_KINDS * (count // 8 + 1))[:count]
    if kinds[real].tobytes() != in_order + _END_OF_IMAGE[1:]:
        return None
    places: list[int] = (marks[real] + scan_at).tolist()
    return places
