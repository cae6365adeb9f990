"""Odd pictures, one by one, and the resize against independent arithmetic."""

from __future__ import annotations

import numpy as np
import pytest
from PIL import Image

from zoo.data.preprocess import prepare, softmax
from zoo.model.spec import Preprocessing


def gradient(width: int = 30, height: int = 20) -> Image.Image:
    y, x = np.mgrid[0:height, 0:width]
    return Image.fromarray(np.stack([x * 8, y * 12, (x + y) * 5], -1).clip(0, 255).astype(np.uint8))


def test_squash_takes_the_whole_picture() -> None:
    out = prepare(gradient(30, 20), Preprocessing(image_size=10))
    assert out.shape == (10, 10, 3)
    assert out.dtype == np.uint8
    assert np.asarray(gradient(30, 20))[..., 0].mean() == pytest.approx(out[..., 0].mean(), abs=1.5)


def test_crop_is_resize_then_centre_crop() -> None:
    """The one-step crop equals the textbook two steps, up to rounding."""
    row = Preprocessing(image_size=32, resize="crop", resize_size=40, interpolation="bicubic")
    image = gradient(120, 80)
    short = image.resize((60, 40), Image.Resampling.BICUBIC)
    two_steps = np.asarray(short.crop((14, 4, 46, 36))).astype(int)
    assert np.abs(prepare(image, row).astype(int) - two_steps).max() <= 2


def test_softmax_sums_to_one_without_overflow() -> None:
    scores = softmax(np.array([[1e4, 0.0, -1e4], [0.0, 0.0, 0.0]], np.float32))
    assert scores.sum(axis=1) == pytest.approx([1, 1])
    assert scores[0, 0] == pytest.approx(1.0)
