"""Which planes a picture is read in: grey stays grey, a fourth plane stays, and what is not there is not made up."""

from __future__ import annotations

import io
from pathlib import Path

import numpy as np
import pytest
import simplejpeg
import tifffile
from PIL import Image

from train.input.decode import CropDecoder
from zoo.data.decode import open_picture
from zoo.data.open import open_splits
from zoo.data.planes import as_shown, in_planes, to_image, to_pixels
from zoo.data.preprocess import prepare
from zoo.errors import BrokenPictureError, DataError
from zoo.model.spec import Preprocessing

RNG = np.random.default_rng(0)
GREY = RNG.integers(0, 256, (40, 50, 1), dtype=np.uint8)
RGB = RNG.integers(0, 256, (40, 50, 3), dtype=np.uint8)
RGBA = RNG.integers(0, 256, (40, 50, 4), dtype=np.uint8)


def encode(image: Image.Image, kind: str = "PNG", **options: object) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, kind, **options)
    return buffer.getvalue()


def tiff(pixels: np.ndarray, **options: object) -> bytes:
    buffer = io.BytesIO()
    tifffile.imwrite(buffer, pixels, **options)
    return buffer.getvalue()


def opened(data: bytes, channels: int) -> np.ndarray:
    return to_pixels(open_picture(data, channels=channels))


@pytest.mark.parametrize("pixels", [GREY, RGB, RGBA], ids=["grey", "RGB", "RGBA"])
def test_pixels_survive_being_an_image(pixels: np.ndarray) -> None:
    assert np.array_equal(to_pixels(to_image(pixels)), pixels)
    assert as_shown(to_image(pixels)).mode in ("L", "RGB")


@pytest.mark.parametrize("deep", [False, True], ids=["8-bit", "16-bit"])
@pytest.mark.parametrize("kind", ["PNG", "TIFF"])
def test_grey_stays_grey(deep: bool, kind: str) -> None:
    plane = GREY[..., 0].astype(np.uint16) * 257 if deep else GREY[..., 0]
    data = encode(Image.fromarray(plane), kind)
    assert np.array_equal(opened(data, 1), GREY)
    assert np.array_equal(opened(data, 3), np.repeat(GREY, 3, axis=-1))


def test_grey_of_a_jpeg_is_its_luma_wherever_it_is_read() -> None:
    """Validation, and the fast way of training, at every scale at which a JPEG can be decoded."""
    photo = Image.fromarray(RGB).resize((640, 480), Image.Resampling.BICUBIC)
    data = encode(photo, "JPEG", quality=90)
    assert np.array_equal(opened(data, 1), simplejpeg.decode_jpeg(data, "GRAY"))
    for size in (400, 200, 100, 50):
        crop = CropDecoder().decode(data, lambda width, height: (0, 0, width, height), size, name="", channels=1)
        whole = open_picture(data, channels=1).resize((size, size), Image.Resampling.BILINEAR)
        found = crop.resized(size)
        assert found.shape == (size, size, 1)
        assert np.abs(found[..., 0].astype(int) - np.asarray(whole)).mean() < 3


def test_colours_become_grey_as_pillow_has_it() -> None:
    expected = np.asarray(Image.fromarray(RGB).convert("L"))[..., None]
    assert np.array_equal(opened(encode(Image.fromarray(RGB)), 1), expected)
    assert np.array_equal(in_planes(RGB, 1, name=""), expected)


@pytest.mark.parametrize(
    ("mode", "kind"),
    [
        *((mode, "PNG") for mode in ("1", "L", "LA", "P", "RGBA")),
        *((mode, "TIFF") for mode in ("CMYK", "YCbCr")),
        ("L", "GIF"),
        ("RGB", "WEBP"),
    ],
)
def test_every_mode_has_a_grey(mode: str, kind: str) -> None:
    image = Image.fromarray(RGBA if mode == "LA" else RGB)
    data = encode(image.convert(mode), kind)
    expected = np.asarray(open_picture(data).convert("L"))
    away = np.abs(opened(data, 1)[..., 0].astype(int) - expected).max()
    assert away <= (1 if mode == "YCbCr" else 0)  # its own luma, which by way of RGB is rounded twice


def test_what_is_transparent_is_black_in_one_plane_and_stays_in_four() -> None:
    data = encode(Image.fromarray(RGBA))
    on_black = open_picture(data).convert("L")
    assert np.array_equal(opened(data, 1)[..., 0], np.asarray(on_black))
    assert np.array_equal(opened(data, 4), RGBA)


@pytest.mark.parametrize("mode", ["LA", "PA", "P"])
def test_every_kind_of_transparency_is_a_fourth_plane(mode: str) -> None:
    if mode == "P":
        image = Image.fromarray(GREY[..., 0] % 4).convert("P")
        data = encode(image, transparency=2)
    else:
        image = Image.fromarray(RGBA).convert("LA")
        data = encode(image if mode == "LA" else image.convert("PA").convert("LA"))
    with Image.open(io.BytesIO(data)) as file:
        assert np.array_equal(opened(data, 4), np.asarray(file.convert("RGBA")))


@pytest.mark.parametrize("compression", [None, "zlib"])
@pytest.mark.parametrize("deep", [False, True], ids=["8-bit", "16-bit"])
@pytest.mark.parametrize("extra", ["unspecified", "unassalpha"])
def test_the_fourth_sample_of_a_tiff_is_kept_whatever_it_is(extra: str, deep: bool, compression: str | None) -> None:
    """Infrared is “unspecified”: Pillow itself reads three planes of such a file."""
    pixels = RGBA.astype(np.uint16) * 257 if deep else RGBA
    data = tiff(pixels, photometric="rgb", extrasamples=[extra], compression=compression)
    assert np.array_equal(opened(data, 4), RGBA)
    if extra == "unspecified":
        assert np.array_equal(opened(data, 3), RGBA[..., :3])


@pytest.mark.parametrize(
    ("data", "what"),
    [
        (encode(Image.fromarray(RGB)), "RGB"),
        (encode(Image.fromarray(RGB), "JPEG"), "RGB"),
        (encode(Image.fromarray(GREY[..., 0])), "grey"),
        (encode(Image.fromarray(GREY[..., 0].astype(np.uint16))), "grey"),
        (encode(Image.fromarray(RGB).convert("P")), "a palette"),
        (encode(Image.fromarray(RGB).convert("CMYK"), "JPEG"), "CMYK"),
        (tiff(np.concatenate([RGBA, GREY], axis=-1), photometric="rgb"), "RGB"),
    ],
)
def test_a_picture_without_a_fourth_plane_is_refused_by_name(data: bytes, what: str) -> None:
    for read in (
        lambda: open_picture(data, channels=4, name="a.png"),
        lambda: CropDecoder().decode(data, lambda w, h: (0, 0, w, h), 16, name="a.png", channels=4),
    ):
        with pytest.raises(BrokenPictureError, match=f"a.png has no fourth plane, it is {what}; 4 .RGBA.") as caught:
            read()
        assert "--channels" in caught.value.hint


@pytest.mark.parametrize(("pixels", "channels"), [(GREY, 4), (RGB, 4), (RGBA, 1), (RGBA, 3)])
def test_a_fourth_plane_of_arrays_is_neither_made_nor_dropped(pixels: np.ndarray, channels: int) -> None:
    with pytest.raises(BrokenPictureError, match=f"picture 3 has {pixels.shape[-1]} plane"):
        in_planes(pixels, channels, name="picture 3")


@pytest.mark.parametrize("size", [16, 100])
@pytest.mark.parametrize("pixels", [GREY, RGBA], ids=["grey", "RGBA"])
def test_planes_are_resized_alone(pixels: np.ndarray, size: int) -> None:
    """Where the alpha is 0 the colours stay: nothing is multiplied by it."""
    preprocessing = Preprocessing(image_size=size).with_channels(pixels.shape[-1])
    one_by_one = [
        np.asarray(Image.fromarray(np.ascontiguousarray(pixels[..., plane])).resize((size, size), 2))
        for plane in range(pixels.shape[-1])
    ]
    assert np.array_equal(prepare(to_image(pixels), preprocessing), np.stack(one_by_one, axis=-1))
    crop = CropDecoder().decode(pixels, lambda w, h: (0.0, 0.0, w, h), size, name="", channels=pixels.shape[-1])
    assert np.abs(crop.resized(size).astype(int) - np.stack(one_by_one, axis=-1)).max() <= 1


def test_a_picture_of_other_planes_is_not_prepared() -> None:
    with pytest.raises(DataError, match="takes grey") as caught:
        prepare(to_image(RGB), Preprocessing(image_size=8).with_channels(1))
    assert "channels=1" in caught.value.hint


@pytest.mark.parametrize("channels", [1, 3, 4])
def test_arrays_keep_their_planes(channels: int, tmp_path: Path) -> None:
    pictures = RNG.integers(0, 256, (20, 8, 10, channels), dtype=np.uint8)
    np.savez(tmp_path / "all.npz", x=pictures, y=np.arange(20) % 2)
    train, _ = open_splits(str(tmp_path / "all.npz"))
    assert train.array_channels == channels
    assert to_pixels(train.open(0, channels=channels)).shape == (8, 10, channels)


def test_five_planes_say_what_is_expected(tmp_path: Path) -> None:
    np.savez(tmp_path / "five.npz", x=np.zeros((20, 8, 10, 5), np.uint8), y=np.arange(20) % 2)
    with pytest.raises(DataError, match=r"\(20, 8, 10, 5\)") as caught:
        open_splits(str(tmp_path / "five.npz"))
    assert "C 1, 3 or 4" in caught.value.hint
