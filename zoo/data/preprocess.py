"""Owns picture → input: the resize that a `Preprocessing` row prescribes; decoding and augmentation are others'.

One function, `prepare`, is used by validation, evaluation, prediction, parity and the server alike, so an engine
sees the same bytes as the checkpoint did. Normalisation is not here: it is inside the graph.
"""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from zoo.data.decode import open_picture
from zoo.data.planes import MODES, to_pixels
from zoo.errors import DataError
from zoo.model.spec import Preprocessing

_INTERPOLATION = {"bilinear": Image.Resampling.BILINEAR, "bicubic": Image.Resampling.BICUBIC}


def prepare(image: Image.Image, preprocessing: Preprocessing) -> NDArray[np.uint8]:
    """Resize a picture by the contract.

    Returns:
        (S, S, C) uint8, S = `preprocessing.image_size`. Pillow's resize is antialiased, as the contract says.

    Raises:
        DataError: the picture was opened with other planes than the contract's.
    """
    size = preprocessing.image_size
    if image.mode != MODES[preprocessing.channels]:
        raise DataError(
            f"The picture is {image.mode}; the network takes {preprocessing.color_order}.",
            f"Open it with channels={preprocessing.channels}.",
        )
    method = _INTERPOLATION[preprocessing.interpolation]
    if preprocessing.resize == "squash":
        return to_pixels(image.resize((size, size), method))
    # Crop before the resize: the same pixels as resizing the short side first, at a fraction of the work.
    return to_pixels(image.resize((size, size), method, box=crop_box(image.width, image.height, preprocessing)))


def crop_box(width: int, height: int, preprocessing: Preprocessing) -> tuple[float, float, float, float]:
    """What of a picture becomes the input: (left, top, right, bottom) in its pixels; of a squashed one all."""
    if preprocessing.resize == "squash":
        return 0.0, 0.0, float(width), float(height)
    short = min(width, height) * preprocessing.image_size / (preprocessing.resize_size or preprocessing.image_size)
    left, top = (width - short) / 2, (height - short) / 2
    return left, top, left + short, top + short


def load_batch(sources: Iterable[Path | bytes], preprocessing: Preprocessing) -> NDArray[np.uint8]:
    """Decode and prepare several pictures: (N, S, S, C) uint8.

    Raises:
        BrokenPictureError: one of them cannot be decoded.
    """
    return np.stack(
        [prepare(open_picture(source, channels=preprocessing.channels), preprocessing) for source in sources]
    )


def softmax(logits: NDArray[np.float32]) -> NDArray[np.float32]:
    """Scores in 0…1 from logits, along the last axis, without overflow."""
    shifted = np.exp(logits - logits.max(axis=-1, keepdims=True))
    scores: NDArray[np.float32] = shifted / shifted.sum(axis=-1, keepdims=True)
    return scores
