"""Owns how a picture's bytes become upright planes of 8 bits, whatever format and depth they have; no resize.

Reading is the same everywhere (training, validation, prediction, server), so that no picture looks different later.
"""

from __future__ import annotations

import io
import struct
import warnings
from collections.abc import Callable
from functools import cache
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image, PngImagePlugin, UnidentifiedImageError

from zoo.data.planes import MODES, wrong_planes
from zoo.errors import BrokenPictureError
from zoo.model.spec import RGB
from zoo.visible import visible

# Formats that are read, with the endings of their files. Never PSD or EPS: the first holds layers, the second programs.
FORMATS: dict[str, tuple[str, ...]] = {
    "JPEG": (".jpg", ".jpeg", ".jfif", ".jpe", ".jif", ".jfi", ".mpo"),
    "PNG": (".png", ".apng"),
    "WEBP": (".webp",),
    "AVIF": (".avif", ".avifs"),
    "GIF": (".gif",),
    "BMP": (".bmp",),
    "DIB": (".dib",),
    "PPM": (".ppm", ".pgm", ".pbm", ".pnm"),
    "TIFF": (".tif", ".tiff"),
    "JPEG2000": (".jp2", ".j2k", ".jpc", ".jpf", ".jpx", ".j2c"),
}
HEIF_SUFFIXES = (".heic", ".heics", ".heif", ".heifs", ".hif")
# A server takes pictures from strangers: the formats people send, without TIFF and JPEG 2000, whose decoders carry most
# of Pillow's CVEs.
SENT_FORMATS = ("JPEG", "PNG", "WEBP", "AVIF", "GIF", "BMP", "PPM", "HEIF")
# Pictures all the same: in a data set they are named and counted as broken instead of passed over in silence.
UNREAD_SUFFIXES = (".jxl", ".psd", ".pfm", ".dng", ".cr2", ".cr3", ".nef", ".arw", ".raf", ".orf", ".rw2")
# A 50 Mpx picture takes 150 MB as RGB; larger files are decompression bombs or belong through a tiler first.
MAX_PIXELS = 50_000_000
# How often a decoder that may be given up asks whether it is: after each such part of its file.
_PARTS, _SMALLEST_PART = 64, 1024
# What of a picture with transparency is handled at once: a few milliseconds.
STRIP_PIXELS = 1_000_000
# Editors put whole projects and colour profiles into a PNG. All of a file's texts may take 64 MiB together, which is
# Pillow's limit for them; its limit of 1 MiB for each one made pictures out of workflow editors unreadable.
PngImagePlugin.MAX_TEXT_CHUNK = PngImagePlugin.MAX_TEXT_MEMORY

# EXIF 2.32: the tag that says how a picture as stored is turned.
ORIENTATION_TAG = 0x0112
BITS_PER_SAMPLE_TAG = 258  # TIFF 6.0
TURNS = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}


# What people call Pillow's modes, where that is another name.
_CALLED = {"1": "black and white", "L": "grey", "P": "a palette"}


class GivenUpError(Exception):
    """Nobody waits for this picture any more, and its decoding was left half done; no answer is made of it."""


class TooManyPixelsError(BrokenPictureError):
    """A picture above the number of pixels that may be read; `pixels` is its own."""

    def __init__(self, problem: str, hint: str = "", pixels: int = 0) -> None:
        super().__init__(problem, hint)
        self.pixels = pixels


class _Asked(io.BytesIO):
    """A file in memory that asks at every reading whether it is still wanted."""

    def __init__(self, data: bytes, is_given_up: Callable[[], bool]) -> None:
        super().__init__(data)
        self._is_given_up = is_given_up

    def read(self, size: int | None = -1) -> bytes:
        """Read, unless nobody waits."""
        if self._is_given_up():
            raise GivenUpError
        return super().read(size)


@cache
def reads_heif() -> bool:
    """Whether the package that reads HEIC is installed: the `heic` extra."""
    return find_spec("pillow_heif") is not None


def read_suffixes() -> tuple[str, ...]:
    """The endings of all files that are read here, in small letters."""
    known = tuple(suffix for suffixes in FORMATS.values() for suffix in suffixes)
    return (*known, *HEIF_SUFFIXES) if reads_heif() else known


@cache
def picture_suffixes() -> frozenset[str]:
    """The endings of all files that are pictures, also those that are not read."""
    return frozenset((*read_suffixes(), *HEIF_SUFFIXES, *UNREAD_SUFFIXES))


def open_picture(
    source: Path | bytes,
    *,
    min_size: int | None = None,
    name: str | None = None,
    sent: bool = False,
    channels: int = RGB,
    max_pixels: int = MAX_PIXELS,
    is_given_up: Callable[[], bool] | None = None,
) -> Image.Image:
    """Decode one picture, upright; the first frame of an animation, the first page of a TIFF.

    What is transparent is laid over black, as black as what lies beyond a picture's edge when a crop reaches there; in
    four planes it stays as it is, and its alpha is the fourth. 16 bits become 8 by the format's scale, not by the
    picture's own brightest pixel.

    Returns:
        An image of `zoo.data.planes.MODES`. Colours become grey by ITU-R 601, of a JPEG its own luma; grey becomes all
        three colours.

    Args:
        source: a file, or its bytes.
        min_size: a JPEG may be decoded at 1/2, 1/4 or 1/8 of its size as long as both sides keep at least this many
            pixels. None decodes in full.
        name: what errors call the picture; by default its path.
        sent: it comes from a stranger: only `SENT_FORMATS` are read.
        channels: how many planes: 1, 3 or 4.
        max_pixels: the header is read first, and a picture with more is not decoded.
        is_given_up: asked between the parts of a file that is read from memory; once it says so, decoding ends.

    Raises:
        BrokenPictureError: not a picture, an unsupported format, truncated, or without the fourth plane that is asked
        for. TooManyPixelsError: above `max_pixels`. GivenUpError: `is_given_up` said so.
    """
    name = name or (visible(str(source)) if isinstance(source, Path) else "the picture")
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # Pillow warns of odd EXIF and large sizes; the limit below decides
            image = _open(source, sent, is_given_up)
            if image.width * image.height > max_pixels:
                raise TooManyPixelsError(
                    f"{name} has {image.width} × {image.height} pixels; at most {max_pixels:,} are read.",
                    "Scale it down first.",
                    image.width * image.height,
                )
            if min_size or channels == 1:  # of a JPEG, grey is what it stores: nothing is converted
                image.draft(MODES[min(channels, RGB)], (min_size, min_size) if min_size else None)
            return _to_planes(image, channels, name)
    except UnidentifiedImageError as error:
        raise BrokenPictureError(
            f"{name} is not a picture this project reads.", f"It reads {', '.join(_formats(sent))}.{_heif_hint(name)}"
        ) from error
    except Image.DecompressionBombError as error:
        raise BrokenPictureError(f"{name} is a decompression bomb: {error}", "Scale it down first.") from error
    except (OSError, SyntaxError, ValueError, IndexError, struct.error) as error:  # the last two: EXIF
        if isinstance(error, FileNotFoundError):
            raise BrokenPictureError(f"There is no file {name}.") from error
        if isinstance(error, OSError) and error.errno:  # the system's own word; a decoder's errors have no number
            raise BrokenPictureError(f"{name} cannot be read: {error.strerror}.") from error
        raise BrokenPictureError(f"{name} cannot be decoded: {error}.", "The file is damaged or incomplete.") from error


def _open(source: Path | bytes, sent: bool, is_given_up: Callable[[], bool] | None) -> Image.Image:
    if reads_heif() and "HEIF" not in Image.OPEN:
        import pillow_heif

        pillow_heif.register_heif_opener()
    if isinstance(source, Path):
        return Image.open(source, formats=_formats(sent))
    if is_given_up is None:
        return Image.open(io.BytesIO(source), formats=_formats(sent))
    image: Any = Image.open(_Asked(source, is_given_up), formats=_formats(sent))
    image.decodermaxblock = max(_SMALLEST_PART, len(source) // _PARTS)  # Pillow reads that much between two decodings
    opened: Image.Image = image
    return opened


def _formats(sent: bool) -> tuple[str, ...]:
    formats = SENT_FORMATS if sent else (*FORMATS, "HEIF")
    return formats if reads_heif() else tuple(name for name in formats if name != "HEIF")


def _heif_hint(name: str) -> str:
    return " HEIC is read with `pip install 'zoo[heic]'`." if name.lower().endswith(HEIF_SUFFIXES) else ""


def _to_planes(image: Image.Image, channels: int, name: str) -> Image.Image:
    """An opened picture of any mode in the planes asked for, upright.

    Raises:
        ValueError: values of 32 bits, whose scale no file says. And what Pillow raises of damaged files.
        BrokenPictureError: it has no fourth plane.
    """
    brightest, bits = _scale(image)
    if channels == 4:
        _keep_fourth_plane(image)
    image.load()
    clear = image.info.get("transparency")
    if isinstance(clear, tuple) and bits == 16:  # the colour was written with 16 bits, of which 8 have been read
        image.info["transparency"] = tuple(value >> 8 for value in clear)
    # As Pillow's `exif_transpose`, which writes all EXIF anew as well, and fails where some of it is damaged.
    turn = TURNS.get(image.getexif().get(ORIENTATION_TAG, 1))
    image = image if turn is None else image.transpose(turn)
    if image.mode.startswith("I"):
        image = _deep_to_grey(image, brightest, clear)
    if channels == 4:
        return _four_planes(image, name)
    if image.has_transparency_data:
        image = _over_black(
            image
        )  # of grey all three are alike, and grey again without rounding: the weights sum up to one
    return image if image.mode == MODES[channels] else image.convert(MODES[channels])


def _over_black(image: Image.Image) -> Image.Image:
    """What is transparent becomes black: strip by strip, because Pillow keeps all threads waiting at each of them."""
    ground, rows = Image.new("RGB", image.size), max(1, STRIP_PIXELS // image.width)
    for top in range(0, image.height, rows):
        layered = image.crop((0, top, image.width, min(top + rows, image.height))).convert("RGBA")
        ground.paste(layered, (0, top), mask=layered.getchannel("A"))
    return ground


def _keep_fourth_plane(image: Image.Image) -> None:
    """Let a TIFF of RGB and one more sample, of which it does not say that it is alpha, be decoded with that sample."""
    tile: Any = getattr(image, "tile", ())
    raw_modes = {args if isinstance(args, str) else args[0] for _, _, _, args in tile if args}
    if image.mode == "RGB" and raw_modes and all(str(raw).partition(";")[0] == MODES[4] for raw in raw_modes):
        image._mode = MODES[4]  # Pillow has no other way to choose it


def _four_planes(image: Image.Image, name: str) -> Image.Image:
    """Colours and the fourth plane as the file has them: nothing is laid over black, nothing multiplied."""
    if image.mode == MODES[4]:
        return image
    if not image.has_transparency_data:
        raise wrong_planes(name, f"has no fourth plane, it is {_CALLED.get(image.mode, image.mode)}", 4)
    return Image.merge(MODES[4], image.convert("RGBA").split())


def _scale(image: Image.Image) -> tuple[int, int]:
    """The value of white where pixels have more than 8 bits, and how many bits the file has; known before decoding.

    Raises:
        ValueError: nothing says which value is white.
    """
    tile: Any = getattr(image, "tile", ())
    raw_mode = str(tile[0][3]) if tile else ""
    if image.mode == "F" or (image.mode == "I" and image.format not in ("PPM", "PNG", "JPEG2000")):
        raise ValueError("its values have 32 bits, and nothing says which of them is white; save it with 8 or 16 bits")
    # What has fewer bits is stretched to 16 by Pillow, but for TIFF.
    bits = getattr(image, "tag_v2", {}).get(BITS_PER_SAMPLE_TAG, (16,))
    return 2 ** int(bits[0]) - 1, 16 if "16" in raw_mode else 8


def _deep_to_grey(image: Image.Image, brightest: int, clear: Any) -> Image.Image:
    """16-bit grey to 8: every value is looked up, so that nothing wider than 16 bits is made of a large picture."""
    table = np.minimum(np.round(np.arange(65536) * (255 / brightest)), 255).astype(np.uint8)
    deep: NDArray[Any] = np.asarray(image)
    grey = table[deep if deep.dtype.itemsize == 2 else deep.clip(0, 65535)]
    if isinstance(clear, int):
        grey[deep == clear] = 0
    return Image.fromarray(grey)
