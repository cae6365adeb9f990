"""Odd pictures, one by one: every format, depth and kind of transparency is read, the same everywhere."""

from __future__ import annotations

import io
import struct
import zlib
from pathlib import Path

import numpy as np
import pytest
from PIL import Image, ImageOps, PngImagePlugin

import zoo.data.decode
from train.input.decode import CropDecoder
from zoo.data.decode import FORMATS, open_picture, read_suffixes, reads_heif
from zoo.data.preprocess import prepare
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


def test_what_strangers_send_is_read_in_fewer_formats() -> None:
    for kind in ("TIFF", "JPEG2000"):
        assert open_picture(encode(gradient(), kind)).size == (30, 20)
        with pytest.raises(BrokenPictureError, match="not a picture this project reads"):
            open_picture(encode(gradient(), kind), sent=True)
    for kind in ("JPEG", "PNG", "WEBP", "GIF", "BMP", "PPM", "AVIF"):
        assert open_picture(encode(gradient(), kind), sent=True).size == (30, 20)


def test_every_ending_of_a_format_is_known() -> None:
    Image.init()
    for suffix, kind in Image.registered_extensions().items():
        if kind in FORMATS and suffix != ".pfm":  # floats
            assert suffix in read_suffixes(), suffix


def test_heic_says_how_to_read_it(tmp_path: Path) -> None:
    path = tmp_path / "IMG_0001.HEIC"
    path.write_bytes(b"\0\0\0\x18ftypheic\0\0\0\0mif1heic")
    with pytest.raises(BrokenPictureError) as failure:
        open_picture(path)
    if not reads_heif():
        assert "zoo[heic]" in failure.value.hint


# A picture that is transparent where its colour is red, which must not be seen: over black it is black.
CLEAR = np.zeros((20, 30), bool)
CLEAR[:, 15:] = True


def transparent(mode: str) -> tuple[Image.Image, dict[str, object]]:
    """A picture of a mode, its right half transparent, and how to save it so."""
    grey = np.where(CLEAR, 255, 100).astype(np.uint8)
    rgb = np.where(CLEAR[..., None], (255, 0, 0), (0, 100, 200)).astype(np.uint8)
    alpha = np.where(CLEAR, 0, 255).astype(np.uint8)
    if mode == "RGBA":
        return Image.fromarray(np.dstack([rgb, alpha])), {}
    if mode == "LA":
        return Image.fromarray(np.dstack([grey, alpha]), "LA"), {}
    if mode == "RGB":
        return Image.fromarray(rgb), {"transparency": (255, 0, 0)}
    if mode == "L":
        return Image.fromarray(grey), {"transparency": 255}
    if mode == "I;16":
        return Image.fromarray(grey.astype(np.uint16) * 257), {"transparency": 65535}
    palette = Image.fromarray(CLEAR.astype(np.uint8), "P")
    palette.putpalette([0, 100, 200, 255, 0, 0] + [0] * 762)
    return palette, {"transparency": 1 if mode == "P" else bytes([255, 0])}


@pytest.mark.parametrize(
    ("mode", "kind"),
    [
        *((mode, "PNG") for mode in ("RGBA", "LA", "RGB", "L", "I;16", "P", "P with alphas")),
        ("P", "GIF"),
        ("RGBA", "WEBP"),
        ("RGBA", "TIFF"),
        ("RGBA", "AVIF"),
    ],
)
def test_what_is_transparent_is_black_everywhere(mode: str, kind: str) -> None:
    image, options = transparent(mode)
    lossless = {"WEBP": {"lossless": True, "exact": True}, "AVIF": {"quality": 100, "subsampling": "4:4:4"}}
    data = encode(image, kind, **options, **lossless.get(kind, {}))
    shown = (100, 100, 100) if mode in ("LA", "L", "I;16") else (0, 100, 200)
    expected = np.where(CLEAR[..., None], 0, shown)
    pixels = np.asarray(open_picture(data))
    assert np.abs(pixels.astype(int) - expected).max() <= (3 if kind == "AVIF" else 0)
    # The reader of training, and the way of evaluation and of the server.
    read = CropDecoder().decode(data, lambda width, height: (0, 0, width, height), 20, name="x").resized(20)
    squashed = prepare(open_picture(data, sent=kind != "TIFF"), Preprocessing(image_size=20))
    for seen in (read, squashed):
        assert np.abs(seen[:, :8].astype(int) - shown).max() <= 3
        assert seen[:, 12:].max() <= 3


def test_half_transparent_is_half_as_bright() -> None:
    pixels = np.full((8, 8, 4), (200, 100, 50, 128), np.uint8)
    assert np.asarray(open_picture(encode(Image.fromarray(pixels), "PNG")))[0, 0].tolist() == [100, 50, 25]


def png16(values: np.ndarray, color_type: int) -> bytes:
    """A PNG of 16 bits, which Pillow writes for grey alone; color types: 0 grey, 2 RGB, 4 grey and alpha, 6 RGBA."""

    def chunk(tag: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + tag + data + struct.pack(">I", zlib.crc32(tag + data))

    height, width = values.shape[:2]
    rows = b"".join(b"\0" + row.astype(">u2").tobytes() for row in values.reshape(height, -1))
    header = struct.pack(">IIBBBBB", width, height, 16, color_type, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(rows)) + chunk(b"IEND", b"")


DARK = np.tile(np.linspace(0, 100, 32).astype(np.uint16), (16, 1))  # a scene of which nothing is brighter than 100


def pgm(brightest: int) -> bytes:
    values = np.round(DARK / 255 * brightest).astype(">u2" if brightest > 255 else "u1")
    return f"P5\n32 16\n{brightest}\n".encode() + values.tobytes()


def deep_scenes() -> dict[str, bytes]:
    deep = (DARK * 257).astype(np.uint16)
    opaque = np.full_like(deep, 65535)
    return {
        "PNG grey": png16(deep, 0),
        "PNG RGB": png16(np.dstack([deep] * 3), 2),
        "PNG grey and alpha": png16(np.dstack([deep, opaque]), 4),
        "PNG RGBA": png16(np.dstack([deep, deep, deep, opaque]), 6),
        "PGM 255": pgm(255),
        "PGM 1023": pgm(1023),
        "PGM 65535": pgm(65535),
        "TIFF": encode(Image.fromarray(deep), "TIFF"),
        "JPEG 2000": encode(Image.fromarray(deep), "JPEG2000"),
        "8 bits": encode(Image.fromarray(DARK.astype(np.uint8)), "PNG"),
    }


@pytest.mark.parametrize("kind", deep_scenes())
def test_a_scene_is_as_bright_with_16_bits_as_with_8(kind: str) -> None:
    pixels = np.asarray(open_picture(deep_scenes()[kind])).astype(int)
    assert np.abs(pixels - DARK[..., None]).max() <= 1


def test_one_bright_pixel_darkens_no_other() -> None:
    hot = (DARK * 257).astype(np.uint16)
    hot[0, 0] = 65535
    pixels = np.asarray(open_picture(png16(hot, 0))).astype(int)
    assert pixels[0, 0].tolist() == [255, 255, 255]
    assert np.abs(pixels[1:] - DARK[1:, :, None]).max() <= 1


@pytest.mark.parametrize("mode", ["F", "I"])
def test_values_whose_scale_no_file_says_are_refused(mode: str) -> None:
    with pytest.raises(BrokenPictureError, match="32 bits, and nothing says which of them is white"):
        open_picture(encode(gradient().convert("L").convert(mode), "TIFF"))


def test_much_text_and_large_profiles_are_no_damage_but_a_bomb_of_texts_is() -> None:
    image = Image.new("RGB", (8, 8), (10, 200, 30))
    workflow = PngImagePlugin.PngInfo()
    workflow.add_text("workflow", "x" * 3_000_000, zip=True)
    for data in (encode(image, "PNG", pnginfo=workflow), encode(image, "PNG", icc_profile=bytes(2_000_000))):
        assert np.asarray(open_picture(data))[0, 0].tolist() == [10, 200, 30]
    bomb = PngImagePlugin.PngInfo()
    for number in range(70):
        bomb.add_text(f"k{number}", "y" * 1_000_000, zip=True)
    with pytest.raises(BrokenPictureError, match="Too much memory used in text"):
        open_picture(encode(image, "PNG", pnginfo=bomb))


@pytest.mark.parametrize("mode", ["RGBA", "LA", "P"])
def test_transparency_is_the_same_in_strips_as_in_one(mode: str, monkeypatch: pytest.MonkeyPatch) -> None:
    values = np.random.default_rng(0).integers(0, 256, (37, 23, 4), np.uint8)
    picture, options = Image.fromarray(values).convert(mode), {"transparency": 7} if mode == "P" else {}
    body = encode(picture, "PNG", **options)
    in_one = np.asarray(open_picture(body))
    assert (in_one == 0).any()
    monkeypatch.setattr(zoo.data.decode, "STRIP_PIXELS", 50)  # two rows
    np.testing.assert_array_equal(np.asarray(open_picture(body)), in_one)
