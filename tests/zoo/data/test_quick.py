"""The quick way from a JPEG to an input: close to the exact one, and left to it wherever it is not certain."""

from __future__ import annotations

import io
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image
from skimage import data

from zoo.data.preprocess import load_batch
from zoo.data.quick import QuickPreparer
from zoo.model.spec import Preprocessing

EVERY = 50_000_000


def jpeg(image: Image.Image, **options: Any) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, "JPEG", **({"quality": 90} | options))
    return buffer.getvalue()


def photograph(width: int, height: int) -> Image.Image:
    return Image.fromarray(data.astronaut()).resize((width, height), Image.Resampling.BICUBIC)


def levels(body: bytes, preprocessing: Preprocessing) -> NDArray[np.int64]:
    """How far the quick pixels are from the exact ones."""
    quick = QuickPreparer().prepare(body, preprocessing, max_pixels=EVERY)
    assert quick is not None
    exact = load_batch([body], preprocessing)[0]
    assert quick.shape == exact.shape and quick.dtype == np.uint8
    return np.abs(quick.astype(int) - exact)


@pytest.mark.parametrize("interpolation", ["bilinear", "bicubic"])
@pytest.mark.parametrize("size", [(500, 375), (150, 222), (448, 448)])
def test_a_squashed_picture_that_is_decoded_in_full_differs_by_rounding(
    interpolation: str, size: tuple[int, int]
) -> None:
    preprocessing = Preprocessing(image_size=224, interpolation=interpolation)
    off = levels(jpeg(photograph(*size)), preprocessing)
    assert off.max() <= 2
    assert off.mean() < 0.02


def test_a_large_picture_is_decoded_at_a_fraction_and_stays_close() -> None:
    off = levels(jpeg(photograph(2000, 1500)), Preprocessing(image_size=224, interpolation="bicubic"))
    assert off.mean() < 0.5


def test_a_crop_is_of_whole_pixels() -> None:
    preprocessing = Preprocessing(image_size=224, resize="crop", resize_size=256, interpolation="bicubic")
    assert levels(jpeg(photograph(500, 375)), preprocessing).mean() < 2.5


@pytest.mark.parametrize("orientation", range(1, 9))
def test_it_stands_upright(orientation: int) -> None:
    exif = Image.Exif()
    exif[0x0112] = orientation
    off = levels(jpeg(photograph(300, 200), exif=exif), Preprocessing(image_size=64))
    assert off.max() <= 2 and off.mean() < 0.2


def test_grey_pictures_and_grey_networks() -> None:
    grey = Preprocessing(image_size=64, mean=(128.0,), std=(128.0,), color_order="grey")
    assert levels(jpeg(photograph(300, 200)), grey).mean() < 0.1
    assert levels(jpeg(photograph(300, 200).convert("L")), grey).mean() < 0.1
    assert levels(jpeg(photograph(300, 200).convert("L")), Preprocessing(image_size=64)).mean() < 0.1


@pytest.mark.parametrize(
    "body",
    [
        jpeg(photograph(300, 200))[:2000],
        jpeg(photograph(300, 200).convert("CMYK")),
        b"\xff\xd8\xff no JPEG",
        b"",
    ],
    ids=["truncated", "CMYK", "no JPEG", "empty"],
)
def test_what_is_not_certain_goes_the_exact_way(body: bytes) -> None:
    assert QuickPreparer().prepare(body, Preprocessing(image_size=64), max_pixels=EVERY) is None


def test_a_picture_counts_by_the_pixels_that_are_decoded() -> None:
    usual, progressive = (jpeg(photograph(2000, 1500), progressive=kind) for kind in (False, True))
    small = Preprocessing(image_size=64)
    assert QuickPreparer().prepare(usual, small, max_pixels=200_000) is not None  # 250 × 188 of them
    assert QuickPreparer().prepare(progressive, small, max_pixels=200_000) is None


def test_memory_is_used_again_without_mixing_pictures() -> None:
    preparer, preprocessing = QuickPreparer(), Preprocessing(image_size=64)
    bodies = [jpeg(photograph(300, 200)), jpeg(photograph(200, 300)), jpeg(Image.new("RGB", (900, 700), "red"))]
    first = [preparer.prepare(body, preprocessing, max_pixels=EVERY) for body in bodies]
    for body, made in zip(bodies, first, strict=True):
        np.testing.assert_array_equal(made, QuickPreparer().prepare(body, preprocessing, max_pixels=EVERY))
