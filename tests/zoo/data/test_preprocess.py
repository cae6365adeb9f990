"""Odd pictures, one by one, and the resize against independent arithmetic."""

from __future__ import annotations

import io
from pathlib import Path

import numpy as np
import pytest
from PIL import Image, ImageOps

from zoo.data.preprocess import open_picture, prepare, softmax
from zoo.errors import BrokenPictureError
from zoo.model.spec import Preprocessing


def encode(image: Image.Image, kind: str, **options: object) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, kind, **options)
    return buffer.getvalue()


def gradient(width: int = 30, height: int = 20) -> Image.Image:
    y, x = np.mgrid[0:height, 0:width]
    return Image.fromarray(np.stack([x * 8, y * 12, (x + y) * 5], -1).clip(0, 255).astype(np.uint8))


@pytest.mark.parametrize("mode", ["L", "LA", "P", "RGBA", "CMYK", "1", "I;16"])
def test_every_mode_becomes_rgb(mode: str) -> None:
    if mode == "I;16":
        image = Image.fromarray(np.linspace(0, 65535, 600).reshape(20, 30).astype(np.uint16))
    else:
        image = gradient().convert(mode)
    kind = "TIFF" if mode == "CMYK" else "PNG"
    data = encode(gradient().convert("CMYK"), "JPEG") if kind == "TIFF" else encode(image, kind)
    opened = open_picture(data)
    assert (opened.mode, opened.size) == ("RGB", (30, 20))
    assert np.asarray(opened).std() > 20  # the picture is still in it


def test_exif_rotation_is_undone() -> None:
    exif = Image.Exif()
    exif[0x0112] = 6  # rotate by 90°
    opened = open_picture(encode(gradient(30, 20), "JPEG", exif=exif))
    assert opened.size == (20, 30)


@pytest.mark.parametrize("orientation", range(1, 9))
def test_every_exif_orientation_is_pillow_s(orientation: int) -> None:
    exif = Image.Exif()
    exif[0x0112] = orientation
    data = encode(gradient(30, 20), "PNG", exif=exif)
    theirs = ImageOps.exif_transpose(Image.open(io.BytesIO(data)))
    assert np.array_equal(np.asarray(open_picture(data)), np.asarray(theirs))


def test_exif_that_cannot_be_written_again_is_none_the_less_followed() -> None:
    """A width that is a text: Pillow reads it, and fails where it writes all EXIF anew for the turned picture."""
    width, orientation = b"\1\0\0\2\0\0\0\4wide", b"\1\x12\0\3\0\0\0\1\0\6\0\0"
    exif = b"Exif\0\0MM\0*\0\0\0\x08\0\2" + width + orientation + b"\0\0\0\0"
    data = encode(gradient(30, 20), "JPEG", exif=exif)
    assert open_picture(data).size == (20, 30)


@pytest.mark.parametrize("kind", ["PNG", "WEBP"])
def test_exif_cut_off_is_broken(kind: str) -> None:
    with pytest.raises(BrokenPictureError, match="cannot be decoded"):
        open_picture(encode(gradient(), kind, exif=b"Exif\0\0MM\0*"))


def test_animation_gives_its_first_frame() -> None:
    frames = [Image.new("RGB", (8, 8), color) for color in ("red", "blue")]
    opened = open_picture(encode(frames[0], "GIF", save_all=True, append_images=frames[1:]))
    assert np.asarray(opened)[0, 0].tolist() == [255, 0, 0]


def test_a_truncated_picture_is_broken() -> None:
    data = encode(gradient(200, 200), "JPEG")
    with pytest.raises(BrokenPictureError, match="cannot be decoded"):
        open_picture(data[: len(data) // 2])


def test_text_is_not_a_picture(tmp_path: Path) -> None:
    path = tmp_path / "notes.jpg"
    path.write_text("not a picture")
    with pytest.raises(BrokenPictureError, match=r"notes\.jpg is not a picture"):
        open_picture(path)


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(BrokenPictureError, match=r"no file .*gone.jpg"):
        open_picture(tmp_path / "gone.jpg")


@pytest.mark.parametrize(("side", "message"), [(20_000, "decompression bomb"), (8_000, "8000 × 8000 pixels")])
def test_a_decompression_bomb_is_refused_before_decoding(side: int, message: str) -> None:
    bomb = encode(Image.new("1", (side, side)), "PNG")
    assert len(bomb) < 100_000
    with pytest.raises(BrokenPictureError, match=message):
        open_picture(bomb)


def test_tiff_and_psd_are_not_read() -> None:
    with pytest.raises(BrokenPictureError, match="not a picture this project reads"):
        open_picture(encode(gradient(), "TIFF"))


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
