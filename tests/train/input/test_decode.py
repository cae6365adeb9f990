"""Crops against Pillow's full decode, picture by odd picture."""

from __future__ import annotations

import io
from pathlib import Path

import numpy as np
import pytest
import simplejpeg
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image, ImageFilter, ImageOps
from sklearn.datasets import load_sample_image

from train.input.decode import MEMORY_BYTES, WHOLE_PIXELS_FROM, CropDecoder, dct_factor, resize_box
from zoo.data.jpeg import Box, cut_out, read_jpeg_header, restart_blocks
from zoo.errors import BrokenPictureError

WHOLE = "whole"


@pytest.fixture(scope="module")
def photo() -> Image.Image:
    return Image.fromarray(load_sample_image("china.jpg")[:400, :600]).resize((500, 375))


def encode(image: Image.Image, kind: str = "JPEG", **options: object) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, kind, **({"quality": 90} if kind == "JPEG" else {}) | options)
    return buffer.getvalue()


FLOWER = Image.fromarray(load_sample_image("flower.jpg")[::4, ::4].copy())
DAMAGEABLE = [encode(FLOWER), encode(FLOWER, restart_marker_blocks=2)]


def crop(data: bytes | np.ndarray, box: Box | str = WHOLE, size: int = 64) -> np.ndarray:
    def draw(width: int, height: int) -> Box:
        return (0, 0, width, height) if isinstance(box, str) else box

    return CropDecoder().decode(data, draw, size, name="the.jpg").resized(size)


def by_pillow(image: Image.Image, box: Box | str, size: int = 64) -> np.ndarray:
    return np.asarray(
        image.convert("RGB").resize((size, size), Image.Resampling.BILINEAR, box=None if isinstance(box, str) else box)
    )


def differ(one: np.ndarray, other: np.ndarray) -> float:
    """Mean difference in levels of 255."""
    return float(np.abs(one.astype(int) - other.astype(int)).mean())


@pytest.mark.parametrize("box", [WHOLE, (0, 0, 500, 70), (10, 200, 480, 375), (33, 47, 113, 131), (300, 20, 460, 180)])
@pytest.mark.parametrize("size", [20, 64, 150])
def test_crops_look_as_pillow_s(photo: Image.Image, box: Box | str, size: int) -> None:
    """Scaled decoding smooths by other weights than the resize alone: 3 levels of 255 on average, no displacement."""
    data = encode(photo)
    theirs = by_pillow(Image.open(io.BytesIO(data)), box, size)
    ours = crop(data, box, size)
    assert (ours.shape, ours.dtype) == ((size, size, 3), np.uint8)
    assert differ(ours, theirs) < 3
    assert np.abs(ours.mean((0, 1)) - theirs.mean((0, 1))).max() < 1


def test_a_crop_at_full_scale_is_pillow_s_but_for_chroma(photo: Image.Image) -> None:
    """To a level without subsampled chroma; repeated where Pillow interpolates it, to a level on average."""
    box = (50, 60, 250, 260)
    for subsampling in ("4:4:4", "4:2:0"):
        data = encode(photo, subsampling=subsampling)
        ours, theirs = crop(data, box, 150), by_pillow(Image.open(io.BytesIO(data)).crop(box), WHOLE, 150)
        assert differ(ours, theirs) < 1
        if subsampling == "4:4:4":
            assert np.abs(ours.astype(int) - theirs.astype(int)).max() <= 1


@given(st.integers(0, 300), st.integers(0, 200), st.integers(64, 190), st.integers(64, 170))
def test_rows_below_the_crop_change_nothing(left: int, top: int, width: int, height: int) -> None:
    """The early end decodes the same rows as the whole picture does."""
    data = encode(Image.fromarray(load_sample_image("flower.jpg")).resize((500, 375)))
    box = (left, top, left + width, top + height)
    assert np.array_equal(crop(data, box, 64), resize_at(data, box, 64))


def resize_at(data: bytes, box: Box, size: int) -> np.ndarray:
    factor = dct_factor(box, size)
    height, width = simplejpeg.decode_jpeg_header(data)[:2]
    whole = simplejpeg.decode_jpeg(
        data, fastupsample=True, min_height=-(-height // factor), min_width=-(-width // factor)
    )
    return resize_box(whole, tuple(edge / factor for edge in box), size)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("side", "size", "factor"), [(128, 128, 1), (255, 128, 1), (256, 128, 2), (1023, 128, 4), (5000, 128, 8), (9, 9, 1)]
)
def test_the_scale_still_covers_the_crop(side: int, size: int, factor: int) -> None:
    assert dct_factor((0, 0, side, side + 50), size) == factor
    assert side / factor >= size


@pytest.mark.parametrize("side", [20, 100])
def test_a_crop_beside_the_picture_is_black(photo: Image.Image, side: int) -> None:
    for left, top in ((0, -300), (0, -120), (-300, 0), (700, 0), (0, 700), (-300, -300)):
        box = (left, top, left + side, top + side)
        for data in (encode(photo), np.asarray(photo)):
            assert not crop(data, box, 16).any(), box


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("box", [(20, 10, 180, 200), (100, 150, 300, 320)])
def test_every_exif_orientation_is_pillow_s(photo: Image.Image, orientation: int, box: Box) -> None:
    """Of a blurred picture, so that half a pixel's rounding is little and a wrong turn much."""
    exif = Image.Exif()
    exif[0x0112] = orientation
    data = encode(photo.filter(ImageFilter.GaussianBlur(6)), exif=exif)
    upright = ImageOps.exif_transpose(Image.open(io.BytesIO(data)))
    header = read_jpeg_header(data)
    assert header is not None
    assert header.upright_size == upright.size
    assert differ(crop(data, box), by_pillow(upright, box)) < 2
    assert differ(crop(data), by_pillow(upright, WHOLE)) < 2


def test_orientation_in_xmp_is_left_to_pillow(photo: Image.Image) -> None:
    xmp = b"<x:xmpmeta xmlns:x='adobe:ns:meta/'><rdf:Description tiff:Orientation='6'/></x:xmpmeta>"
    data = encode(photo, xmp=xmp)
    assert read_jpeg_header(data) is None
    assert differ(crop(data), by_pillow(ImageOps.exif_transpose(Image.open(io.BytesIO(data))), WHOLE)) < 2


@pytest.mark.parametrize(
    ("mode", "kind"),
    [("CMYK", "JPEG"), ("L", "JPEG"), ("I;16", "PNG"), ("P", "PNG"), ("LA", "PNG"), ("RGBA", "WEBP"), ("1", "PNG")],
)
def test_every_mode_gives_rgb(photo: Image.Image, mode: str, kind: str) -> None:
    if mode == "I;16":
        image = Image.fromarray(np.asarray(photo.convert("L")).astype(np.uint16) * 257)
        wanted = photo.convert("L")
    else:
        image = wanted = photo.convert(mode)
    data = encode(image, kind)
    shown = wanted if mode == "I;16" else Image.open(io.BytesIO(data))
    assert differ(crop(data, (50, 60, 300, 310)), by_pillow(shown, (50, 60, 300, 310))) < 3


def test_progressive_jpegs_are_read(photo: Image.Image) -> None:
    data = encode(photo, progressive=True)
    header = read_jpeg_header(data)
    assert header is not None
    assert not header.in_order
    box = (20, 20, 200, 200)
    assert differ(crop(data, box), by_pillow(Image.open(io.BytesIO(data)), box)) < 2


@given(
    st.sampled_from([{"restart_marker_blocks": 4}, {"restart_marker_blocks": 8}, {"restart_marker_rows": 2}]),
    st.tuples(st.integers(-100, 450), st.integers(-100, 340), st.integers(1, 500), st.integers(1, 375)),
    st.sampled_from([16, 64, 100]),
)
def test_between_restart_markers_stands_what_the_whole_shows(
    restarts: dict[str, int], corner_and_size: tuple[int, int, int, int], size: int
) -> None:
    """Only the stretches under the box are decoded, and nothing shows it, wherever the box is.

    To the bit; to a level where Pillow resizes, which takes rows or columns first as the picture's size has it.
    """
    left, top, width, height = corner_and_size
    box = (left, top, left + width, top + height)
    data = encode(Image.fromarray(load_sample_image("flower.jpg")).resize((500, 375)), **restarts)
    by_pillow = min(width, height) < WHOLE_PIXELS_FROM * dct_factor(box, size)
    differences = np.abs(crop(data, box, size).astype(int) - resize_at(data, box, size))
    assert differences.max() <= (1 if by_pillow else 0)


@pytest.mark.parametrize("subsampling", ["4:4:4", "4:2:2", "4:2:0"])
@pytest.mark.parametrize("mode", ["RGB", "L"])
def test_a_crop_costs_the_bytes_of_its_stretches(photo: Image.Image, subsampling: str, mode: str) -> None:
    data = encode(photo.convert(mode), subsampling=subsampling, restart_marker_blocks=1)
    header = read_jpeg_header(data)
    assert header is not None
    box = (100, 120, 200, 200)
    part = cut_out(data, header, box)
    assert part.left <= 100 < 200 <= part.left + part.width
    assert part.top <= 120 < 200 <= part.top + part.height
    assert part.width <= 100 + 2 * header.mcu_width
    assert part.height <= 80 + 2 * header.mcu_height
    assert len(part.data) < len(data) / 5
    assert np.array_equal(crop(data, box), resize_at(data, box, 64))


@pytest.mark.parametrize(("across", "blocks"), [(32, 4), (25, 5), (24, 4), (38, 2), (29, 29), (1, 1), (3, 3)])
def test_restart_markers_part_rows_equally(across: int, blocks: int) -> None:
    assert restart_blocks(across) == blocks


def test_stretches_that_go_round_the_edge_are_decoded_whole(photo: Image.Image) -> None:
    data = encode(photo, restart_marker_blocks=5)  # 32 blocks a row
    header = read_jpeg_header(data)
    assert header is not None
    assert cut_out(data, header, (0, 0, 50, 50)).data == data
    assert np.array_equal(crop(data, (0, 0, 100, 100)), resize_at(data, (0, 0, 100, 100), 64))


@pytest.mark.parametrize("change", ["a marker missing", "markers out of order", "one too many", "cut off"])
def test_restart_markers_that_are_not_as_declared_give_the_whole(photo: Image.Image, change: str) -> None:
    data = encode(photo, restart_marker_blocks=4)
    at = data.index(b"\xff\xd2")
    data = {
        "a marker missing": data[:at] + data[at + 2 :],
        "markers out of order": data[: at + 1] + b"\xd5" + data[at + 2 :],
        "one too many": data[:at] + b"\xff\xd2" + data[at:],
        "cut off": data[: at + 500],
    }[change]
    header = read_jpeg_header(data)
    assert header is not None
    assert cut_out(data, header, (0, 0, 50, 50)).data == data


@pytest.mark.parametrize("subsampling", ["4:4:4", "4:2:2", "4:2:0"])
def test_every_chroma_subsampling_ends_early(photo: Image.Image, subsampling: str) -> None:
    data = encode(photo, subsampling=subsampling)
    box = (20, 20, 200, 170)
    assert np.array_equal(crop(data, box), resize_at(data, box, 64))


def test_an_animation_gives_its_first_frame() -> None:
    frames = [Image.new("RGB", (80, 80), color) for color in ("red", "blue")]
    data = encode(frames[0], "GIF", save_all=True, append_images=frames[1:])
    assert crop(data)[5, 5].tolist() == [255, 0, 0]


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "BMP"])
def test_one_pixel_is_a_picture(kind: str) -> None:
    out = crop(encode(Image.new("RGB", (1, 1), (200, 100, 50)), kind))
    assert out.shape == (64, 64, 3)
    assert differ(out, np.broadcast_to(np.array([200, 100, 50]), out.shape)) < 4


@pytest.mark.parametrize("box", [(0, 0, 500, 70), (0, 250, 500, 375)])
def test_a_truncated_picture_is_broken_wherever_the_crop_is(photo: Image.Image, box: Box) -> None:
    data = encode(photo)
    with pytest.raises(BrokenPictureError, match=r"the\.jpg cannot be decoded"):
        crop(data[: len(data) // 2], box)


@pytest.mark.parametrize("cut", [0, 2, 3, 4, 20, 100, 180])
def test_a_header_cut_off_is_broken(photo: Image.Image, cut: int) -> None:
    with pytest.raises(BrokenPictureError, match=r"the\.jpg"):
        crop(encode(photo)[:cut])


def test_bytes_after_the_end_do_no_harm(photo: Image.Image) -> None:
    data = encode(photo)
    assert np.array_equal(crop(data + b"\0" * 5000), crop(data))
    assert np.array_equal(crop(data + b"\n", (0, 0, 500, 100)), crop(data, (0, 0, 500, 100)))


@given(st.binary(max_size=300))
def test_no_bytes_crash_the_header(tail: bytes) -> None:
    read_jpeg_header(b"\xff\xd8\xff" + tail)
    read_jpeg_header(tail)


@given(
    st.sampled_from(DAMAGEABLE),
    st.lists(st.tuples(st.integers(0, 4000), st.integers(0, 255)), max_size=6),
    st.integers(0, 5000),
)
def test_damage_ends_in_a_picture_or_in_one_that_is_broken(
    whole: bytes, changes: list[tuple[int, int]], cut: int
) -> None:
    """Whatever bytes are wrong, in the header most of all, nothing but our own error comes out."""
    data = bytearray(whole[: len(whole) - cut] if cut < 2500 else whole)
    for at, value in changes:
        data[min(at, len(data) - 1)] = value
    try:
        out = crop(bytes(data), (0, 0, 70, 70))
    except BrokenPictureError as error:
        assert "the.jpg" in error.problem
    else:
        assert out.shape == (64, 64, 3)


@pytest.mark.parametrize("rows", [b"\x00", b"\x0f"])
def test_impossible_sampling_factors_are_left_to_pillow(photo: Image.Image, rows: bytes) -> None:
    data = bytearray(encode(photo))
    header = read_jpeg_header(bytes(data))
    assert header is not None
    for component in range(3):
        data[header.size_at + 6 + 3 * component : header.size_at + 7 + 3 * component] = rows
    assert read_jpeg_header(bytes(data)) is None


def test_a_frame_header_at_the_end_is_no_picture() -> None:
    assert read_jpeg_header(b"\xff\xd8\xff\xc0\x00\x02\xff\xda\x00\x00") is None


def test_a_bomb_is_refused_before_it_is_decoded() -> None:
    """The header says 65,000 × 65,000; what follows is a small picture."""
    data = bytearray(encode(Image.new("RGB", (16, 16))))
    header = read_jpeg_header(bytes(data))
    assert header is not None
    data[header.size_at : header.size_at + 4] = b"\xfd\xe8\xfd\xe8"
    with pytest.raises(BrokenPictureError, match=r"bomb|pixels"):
        crop(bytes(data))


def test_arrays_are_cropped_at_fractions_of_a_pixel() -> None:
    """Eight pixels a side: half a pixel shows."""
    pixels = np.random.default_rng(0).integers(0, 256, (8, 8, 3), dtype=np.uint8)
    box = (0.4, 1.3, 6.9, 7.2)
    assert np.array_equal(crop(pixels, box, 34), by_pillow(Image.fromarray(pixels), box, 34))


@pytest.mark.parametrize("side", [8, 200])
def test_what_lies_beyond_the_picture_is_black(side: int) -> None:
    pixels = np.full((side, side, 3), 255, np.uint8)
    out = crop(pixels, (-side / 2, -side / 2, side / 2, side / 2), 40)
    assert out[:18, :18].max() == 0
    assert out[22:, 22:].min() == 255


def test_missing_files_are_named(tmp_path: Path) -> None:
    from zoo.data.pictures import Pictures

    gone = Pictures("x", ("a", "b"), [tmp_path / "gone.jpg"], np.zeros(1, np.int64))
    with pytest.raises(BrokenPictureError, match=r"no file .*gone\.jpg"):
        gone.read(0)


@pytest.mark.parametrize("left_over", [-1, 0, 1, 2])
def test_a_picture_cut_off_where_its_scan_begins_is_broken(photo: Image.Image, left_over: int) -> None:
    data = encode(photo, restart_marker_blocks=4)
    header = read_jpeg_header(data)
    assert header is not None
    with pytest.raises(BrokenPictureError, match=r"the\.jpg cannot be decoded"):
        crop(data[: header.scan_at + left_over], (0, 0, 100, 100))


def test_crops_hold_until_their_memory_is_reused() -> None:
    """Some outgrow the memory there is; none may be overwritten by those that come after."""
    photographs = [
        Image.fromarray(load_sample_image("flower.jpg")).resize((side, side)) for side in (100, 900, 300)
    ] * 3
    files = [encode(photo) for photo in photographs]
    decoder = CropDecoder()
    for _ in range(2):
        crops = [decoder.decode(data, lambda width, height: (0, 0, width, height), 90, name="") for data in files]
        for made, data in zip(crops, files, strict=True):
            assert np.array_equal(made.resized(90), crop(data, WHOLE, 90))
        decoder.reuse()


def test_a_decoder_is_full_before_a_crop_needs_memory_of_its_own(photo: Image.Image) -> None:
    data = encode(photo)
    decoder = CropDecoder()
    places = []
    while not decoder.is_full:
        places.append(
            decoder.decode(data, lambda width, height: (0, 0, width, height), 200, name="").pixels.ctypes.data
        )
    size_bytes = 375 * 500 * 3
    assert places == [places[0] + number * size_bytes for number in range(MEMORY_BYTES // size_bytes)]
    decoder.reuse()
    assert not decoder.is_full


@pytest.mark.parametrize("orientation", [6, 8])
def test_xmp_without_orientation_leaves_exif_s(photo: Image.Image, orientation: int) -> None:
    """As photo editors write them: one APP1 segment behind the other."""
    exif = Image.Exif()
    exif[0x0112] = orientation
    header = read_jpeg_header(encode(photo, exif=exif, xmp=b"<x:xmpmeta xmlns:x='adobe:ns:meta/'/>"))
    assert header is not None
    assert header.orientation == orientation


def with_exif(data: bytes, segment: bytes) -> bytes:
    segment = b"Exif\0\0" + segment
    return data[:2] + b"\xff\xe1" + (len(segment) + 2).to_bytes(2, "big") + segment + data[2:]


def test_exif_cut_off_is_left_to_pillow(photo: Image.Image) -> None:
    data = with_exif(encode(photo), b"MM\0*")
    assert read_jpeg_header(data) is None
    assert differ(crop(data), by_pillow(photo, WHOLE)) < 3


def test_odd_exif_is_not_warned_of(photo: Image.Image) -> None:
    """Pillow would, once a worker; what warns is an error in tests."""
    entry = (0x010F).to_bytes(2, "big") + b"\0\2" + (5000).to_bytes(4, "big") + (60000).to_bytes(4, "big")
    data = with_exif(encode(photo), b"MM\0*\0\0\0\x08\0\1" + entry + b"\0\0\0\0")
    assert np.array_equal(crop(data), crop(encode(photo)))


def test_a_crop_that_leaves_a_long_picture_on_one_side_takes_no_room_on_the_others(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    sizes = []
    expand = ImageOps.expand

    def watched(image: Image.Image, border: tuple[int, ...]) -> Image.Image:
        expanded = expand(image, border)
        sizes.append(expanded.size)
        return expanded

    monkeypatch.setattr(ImageOps, "expand", watched)
    out = crop(np.full((20, 3000, 3), 255, np.uint8), (-300, 2, 300, 18), 32)
    assert sizes == [(3300, 20)]
    assert out[:, :15].max() == 0
    assert out[:, 17:].min() == 255
