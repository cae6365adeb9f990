"""Whole JPEGs by libjpeg-turbo alone: the pixels of `open_picture` to the bit, and nothing where a file is odd."""

from __future__ import annotations

import io
from typing import Any

import numpy as np
import pytest
from PIL import Image
from skimage import data

from zoo.data.decode import open_picture
from zoo.data.turbo import TurboJpeg, makes_the_same_pixels

EVERY = 50_000_000


def jpeg(mode: str = "RGB", size: tuple[int, int] = (299, 201), **options: Any) -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(data.astronaut()).resize(size).convert(mode).save(buffer, "JPEG", **({"quality": 90} | options))
    return buffer.getvalue()


def turned(orientation: int) -> Image.Exif:
    exif = Image.Exif()
    exif[0x0112] = orientation
    return exif


PLAIN = {
    "4:2:0": jpeg(),
    "4:2:2": jpeg(subsampling=1),
    "4:4:4": jpeg(subsampling=0),
    "progressive": jpeg(progressive=True),
    "optimized": jpeg(optimize=True, quality=30),
    "restart markers": jpeg(restart_marker_blocks=4),
    "RGB without a colour transform": jpeg(keep_rgb=True),
    "grey": jpeg("L"),
    "one pixel": jpeg(size=(1, 1)),
    "one column": jpeg(size=(1, 50)),
    "with a profile": jpeg(icc_profile=b"x" * 70_000, comment=b"hello"),
    "bytes behind its end": jpeg() + bytes(64),
    **{f"orientation {number}": jpeg(exif=turned(number)) for number in range(1, 9)},
}


def test_the_two_decoders_are_alike_here() -> None:
    assert makes_the_same_pixels()


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("kind", PLAIN)
def test_plain_jpegs_have_the_pixels_of_pillow(kind: str, channels: int) -> None:
    image = TurboJpeg().open(PLAIN[kind], channels=channels, max_pixels=EVERY)
    assert image is not None
    expected = open_picture(PLAIN[kind], channels=channels)
    assert (image.mode, image.size) == (expected.mode, expected.size)
    np.testing.assert_array_equal(np.asarray(image), np.asarray(expected))


@pytest.mark.parametrize(
    "body",
    [jpeg()[:-1000], jpeg()[:300], jpeg("CMYK"), b"\xff\xd8\xff", b"", b"GIF89a"],
    ids=["truncated", "hardly begun", "CMYK", "no JPEG", "empty", "GIF"],
)
def test_whatever_is_odd_is_left_to_pillow(body: bytes) -> None:
    assert TurboJpeg().open(body, channels=3, max_pixels=EVERY) is None


def test_too_many_pixels_and_four_planes_are_left_to_pillow() -> None:
    assert TurboJpeg().open(jpeg(), channels=3, max_pixels=299 * 201 - 1) is None
    assert TurboJpeg().open(jpeg(), channels=4, max_pixels=EVERY) is None


def test_an_image_outlives_the_memory_that_it_was_decoded_in() -> None:
    jpegs = TurboJpeg()
    for mode in ("RGB", "L"):
        first = jpegs.open(jpeg(mode), channels=3 if mode == "RGB" else 1, max_pixels=EVERY)
        assert first is not None
        before = np.asarray(first).copy()
        jpegs.open(jpeg(mode, quality=5), channels=3 if mode == "RGB" else 1, max_pixels=EVERY)
        np.testing.assert_array_equal(np.asarray(first), before)
