"""Owns picture → tensor: safe decoding, and the resize a `Preprocessing` row prescribes; no augmentation.

One function, `prepare`, is used by validation, evaluation, prediction, parity and the server alike, so an engine
sees the same bytes as the checkpoint did. Normalisation is not here: it is inside the graph.
"""

from __future__ import annotations

import io
import struct
import warnings
from collections.abc import Iterable
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image, UnidentifiedImageError

from zoo.errors import BrokenPictureError
from zoo.model.spec import Preprocessing

# Formats people photograph and publish in; never PSD, EPS or TIFF, whose decoders carry most of Pillow's CVEs.
FORMATS = ("JPEG", "PNG", "WEBP", "BMP", "GIF", "PPM")
SUFFIXES = (".jpg", ".jpeg", ".png", ".webp", ".bmp", ".gif", ".ppm", ".pgm")
# Pictures all the same: in a data set they are named and counted as broken instead of passed over in silence.
UNREAD_SUFFIXES = (".tif", ".tiff", ".heic", ".heif", ".avif", ".jp2", ".jxl")
# A 50 Mpx picture takes 150 MB as RGB; larger files are decompression bombs or belong through a tiler first.
MAX_PIXELS = 50_000_000

# EXIF 2.32: the tag that says how a picture as stored is turned.
ORIENTATION_TAG = 0x0112
_TURNS = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}
_INTERPOLATION = {"bilinear": Image.Resampling.BILINEAR, "bicubic": Image.Resampling.BICUBIC}


def open_picture(source: Path | bytes, *, min_size: int | None = None, name: str | None = None) -> Image.Image:
    """Decode one picture to RGB, upright; the first frame of an animation, transparency over black.

    Args:
        source: a file, or its bytes.
        min_size: a JPEG may be decoded at 1/2, 1/4 or 1/8 of its size as long as both sides keep at least this many
            pixels. None decodes in full.
        name: what errors call the picture; by default its path.

    Raises:
        BrokenPictureError: not a picture, an unsupported format, truncated, or above `MAX_PIXELS`.
    """
    name = name or (str(source) if isinstance(source, Path) else "the picture")
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # Pillow warns of odd EXIF and large sizes; the limit below decides
            image = Image.open(source if isinstance(source, Path) else io.BytesIO(source), formats=FORMATS)
            if image.width * image.height > MAX_PIXELS:
                raise BrokenPictureError(
                    f"{name} has {image.width} × {image.height} pixels; at most {MAX_PIXELS:,} are read.",
                    "Scale it down first.",
                )
            if min_size:
                image.draft("RGB", (min_size, min_size))
            return _to_rgb(_upright(image))
    except UnidentifiedImageError as error:
        raise BrokenPictureError(
            f"{name} is not a picture this project reads.", f"It reads {', '.join(FORMATS)}."
        ) from error
    except Image.DecompressionBombError as error:
        raise BrokenPictureError(f"{name} is a decompression bomb: {error}", "Scale it down first.") from error
    except (OSError, SyntaxError, ValueError, struct.error) as error:  # the last: EXIF
        if isinstance(error, FileNotFoundError):
            raise BrokenPictureError(f"There is no file {name}.") from error
        raise BrokenPictureError(f"{name} cannot be decoded: {error}.", "The file is damaged or incomplete.") from error


def _upright(image: Image.Image) -> Image.Image:
    """As Pillow's `exif_transpose`, which writes all EXIF anew as well, and fails where some of it is damaged."""
    image.load()
    turn = _TURNS.get(image.getexif().get(ORIENTATION_TAG, 1))
    return image if turn is None else image.transpose(turn)


def _to_rgb(image: Image.Image) -> Image.Image:
    """Any Pillow mode to RGB; 16-bit grey is scaled, not clipped."""
    if image.mode.startswith("I;16") or image.mode == "I":
        deep = np.asarray(image).astype(np.float32)
        return Image.fromarray((deep / max(float(deep.max()), 255.0) * 255.0).astype(np.uint8)).convert("RGB")
    return image.convert("RGB")


def prepare(image: Image.Image, preprocessing: Preprocessing) -> NDArray[np.uint8]:
    """Resize an RGB picture by the contract.

    Returns:
        (S, S, 3) uint8, RGB, S = `preprocessing.image_size`. Pillow's resize is antialiased, as the contract says.
    """
    size = preprocessing.image_size
    method = _INTERPOLATION[preprocessing.interpolation]
    if preprocessing.resize == "squash":
        return np.asarray(image.resize((size, size), method))
    # Crop before the resize: the same pixels as resizing the short side first, at a fraction of the work.
    short = min(image.size) * size / (preprocessing.resize_size or size)
    left, top = (image.width - short) / 2, (image.height - short) / 2
    box = (left, top, left + short, top + short)
    return np.asarray(image.resize((size, size), method, box=box))


def load_batch(sources: Iterable[Path | bytes], preprocessing: Preprocessing) -> NDArray[np.uint8]:
    """Decode and prepare several pictures: (N, S, S, 3) uint8.

    Raises:
        BrokenPictureError: one of them cannot be decoded.
    """
    return np.stack([prepare(open_picture(source), preprocessing) for source in sources])


def softmax(logits: NDArray[np.float32]) -> NDArray[np.float32]:
    """Scores in 0…1 from logits, along the last axis, without overflow."""
    shifted = np.exp(logits - logits.max(axis=-1, keepdims=True))
    scores: NDArray[np.float32] = shifted / shifted.sum(axis=-1, keepdims=True)
    return scores
