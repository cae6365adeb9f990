"""Owns what benchmarks/decoding.py times, as functions by name, ours and other libraries'; it times nothing."""

from __future__ import annotations

import io
import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from fractions import Fraction
from functools import partial
from statistics import fmean
from typing import Any

import numpy as np
import simplejpeg
import torch
from loader import CROP_SCALE, HEIGHT, MAGNITUDE, WIDTH
from PIL import Image
from torch.nn.functional import interpolate
from torchvision.transforms import InterpolationMode
from torchvision.transforms.autoaugment import _apply_op

from train.augment.host import OPERATIONS, random_crop_box
from train.augment.strength import FILL, MAX_LEVEL, MAX_TRANSLATE_SHARE
from train.input.decode import Crop, CropDecoder, dct_factor, resize_box
from zoo.data.jpeg import Box, JpegPart, cut_out, read_jpeg_header

SIZES = (128, 300)
FULL = Fraction(1)
SCALES = (FULL, Fraction(1, 2), Fraction(1, 4), Fraction(1, 8))
CROP_RATIO = (3 / 4, 4 / 3)  # torchvision's and timm's default
# Blocks between two restart markers; a whole row has 32 of 16 px.
MARKERS = {0: "no markers"} | {n: f"markers every {n}" for n in (1, 2, 4, 8, 16)} | {32: "markers every row"}
WHOLE = "simplejpeg, the whole picture"
GEOMETRY = ("shear_x", "shear_y", "translate_x", "translate_y", "rotate")

Candidate = Callable[[Any], Any]
Key = tuple[str, str]  # what is measured, and at which scale or size
Modules = Mapping[str, Any]
Square = tuple[np.ndarray, Image.Image]  # the same pixels as an array and as Pillow keeps them


@dataclass(frozen=True, kw_only=True)
class CandidateGroup:
    """Candidates that do the same to every picture, and take turns.

    `views` say how results are looked at to compare them with what `reference` makes of the same picture at the same
    scale; `file_bytes` is the mean size of the files a candidate reads, where that differs.
    """

    name: str
    candidates: Mapping[Key, Candidate]
    pictures: Sequence[Any]
    reference: str = ""
    views: Mapping[str, Callable[[Any], np.ndarray]] = field(default_factory=dict)
    file_bytes: Mapping[str, float] = field(default_factory=dict)


CAPTIONS = {
    "decode": "A whole JPEG decoded; mean difference from Pillow at the same scale",
    "flags": "Chroma and DCT of simplejpeg; mean difference after the resize of the whole picture",
    "rows": f"Rows decoded from the top, of {HEIGHT}, up to a whole block",
    "crop": f"What a crop of {CROP_SCALE[0]:g} to {CROP_SCALE[1]:g} of the area needs decoded for a stage of a size, "
    "before its resize; mean difference after it from ours without markers",
    "resize": "Resize, 180² to 128² and 320² to 300²; mean difference from Pillow",
    "randaugment": "One operation of RandAugment",
}


def groups(files: Sequence[bytes], modules: Modules) -> Iterator[CandidateGroup]:
    """Every group, in the order of what happens to a picture."""
    yield whole_pictures(files, modules)
    yield flags(files)
    yield CandidateGroup(name="rows", candidates=rows_from_the_top(), pictures=files)
    yield from crops(files, modules)
    for side, size in ((180, 128), (320, 300)):
        yield resizes(files, side, size, modules)
    for size in SIZES:
        yield CandidateGroup(name="randaugment", candidates=operations(size, modules), pictures=squares(files, size))


def scaled(scale: Fraction) -> tuple[int, int]:
    """Height and width of a picture at a scale, as libjpeg rounds them."""
    return math.ceil(HEIGHT * scale), math.ceil(WIDTH * scale)


def of_simplejpeg(_: Any, scale: Fraction, **flags: bool) -> Candidate:
    """Into memory of its own, as the loader does."""
    height, width = scaled(scale)
    memory = np.empty(height * width * 3, np.uint8)
    return lambda data: simplejpeg.decode_jpeg(data, min_height=height, min_width=width, buffer=memory, **flags)


def of_pillow(_: Any, scale: Fraction) -> Candidate:
    """Decoded, not copied to an array."""
    wanted = (int(WIDTH * scale), int(HEIGHT * scale))

    def decode(data: bytes) -> Image.Image:
        image = Image.open(io.BytesIO(data))
        image.draft("RGB", wanted)
        image.load()
        return image

    return decode


def of_opencv(cv2: Any, scale: Fraction) -> Candidate:
    """Blue first, turned by a view."""
    flag = cv2.IMREAD_COLOR if scale == 1 else getattr(cv2, f"IMREAD_REDUCED_COLOR_{scale.denominator}")
    return lambda data: cv2.imdecode(np.frombuffer(data, np.uint8), flag)[..., ::-1]


def of_pyav(av: Any, scale: Fraction, *, rgb: bool) -> Candidate:
    """FFmpeg's own decoder; it ends in planes of luma and chroma, which its scaler turns into pixels."""
    codec = av.CodecContext.create("mjpeg", "r")
    codec.thread_count = 1
    codec.options = {"lowres": str(scale.denominator.bit_length() - 1)}

    def decode(data: bytes) -> Any:
        (frame,) = codec.decode(av.Packet(data))
        return frame.to_ndarray(format="rgb24") if rgb else frame

    return decode


def of_pyvips(pyvips: Any, scale: Fraction) -> Candidate:
    """Read from top to bottom, once."""
    return lambda data: pyvips.Image.jpegload_buffer(data, shrink=scale.denominator, access="sequential").numpy()


def of_nvimgcodec(nvimgcodec: Any, _: Fraction) -> Candidate:
    """Its decoder for processors."""
    return cpu_decoder(nvimgcodec).decode


def cpu_decoder(nvimgcodec: Any) -> Any:
    """A decoder that asks for no GPU; −99999 is NVIMGCODEC_DEVICE_CPU_ONLY of nvimgcodec.h."""
    backends = [nvimgcodec.Backend(nvimgcodec.CPU_ONLY)]
    return nvimgcodec.Decoder(device_id=-99999, max_num_cpu_threads=1, backends=backends)


def of_torchvision(io_module: Any, _: Fraction) -> Candidate:
    """From memory that may be written, as a tensor must be: a copy of 40 kB; planes, turned by a view."""
    rgb = io_module.ImageReadMode.RGB

    def decode(data: bytes) -> torch.Tensor:
        written = torch.frombuffer(bytearray(data), dtype=torch.uint8)
        return io_module.decode_jpeg(written, rgb).permute(1, 2, 0)

    return decode


# Name, the module it needs beyond those always there, what makes a decoder for a scale, and the scales it has.
DECODERS: tuple[tuple[str, str | None, Callable[[Any, Fraction], Candidate], Sequence[Fraction]], ...] = (
    ("Pillow, draft", None, of_pillow, SCALES),
    ("simplejpeg", None, of_simplejpeg, (FULL, Fraction(5, 8), *SCALES[1:])),
    ("OpenCV, IMREAD_REDUCED", "cv2", of_opencv, SCALES),
    ("kornia-rs, zune-jpeg", "kornia_rs", lambda kornia, _: kornia.io.decode_image_jpeg, SCALES[:1]),
    (
        "kornia-rs, libjpeg-turbo",
        "kornia_rs",
        lambda kornia, _: lambda data: kornia.io.decode_image_jpegturbo(data, "rgb"),
        SCALES[:1],
    ),
    ("imagecodecs", "imagecodecs", lambda imagecodecs, _: imagecodecs.jpeg8_decode, SCALES[:1]),
    ("PyAV, planes", "av", partial(of_pyav, rgb=False), SCALES),
    ("PyAV, RGB", "av", partial(of_pyav, rgb=True), SCALES),
    ("pyvips", "pyvips", of_pyvips, SCALES),
    ("nvImageCodec, CPU", "nvidia.nvimgcodec", of_nvimgcodec, SCALES[:1]),
    ("torchvision.io", "torchvision.io", of_torchvision, SCALES[:1]),
)


def whole_pictures(files: Sequence[bytes], modules: Modules) -> CandidateGroup:
    """Every decoder that is there, at every scale it has."""
    candidates = {
        (name, named(scale)): make(modules.get(module or ""), scale)
        for name, module, make, scales in DECODERS
        if module is None or module in modules
        for scale in scales
    }
    # Planes are no pixels: they are compared as PyAV turns them itself.
    views = {
        "as decoded": lambda one: one.to_ndarray(format="rgb24") if hasattr(one, "to_ndarray") else np.asarray(one)
    }
    return CandidateGroup(name="decode", candidates=candidates, pictures=files, reference="Pillow, draft", views=views)


def named(scale: Fraction) -> str:
    """A scale as a table calls it."""
    return "full" if scale == FULL else str(scale)


def flags(files: Sequence[bytes]) -> CandidateGroup:
    """What simplejpeg's flags change at full scale."""
    chosen = ({}, {"fastupsample": True}, {"fastdct": True}, {"fastupsample": True, "fastdct": True})
    return CandidateGroup(
        name="flags",
        candidates={(", ".join(one) or "as default", "full"): of_simplejpeg(None, FULL, **one) for one in chosen},
        pictures=files,
        reference="as default",
        views={f"at {size} px": partial(resize_box, box=(0, 0, WIDTH, HEIGHT), size=size) for size in SIZES},
    )


def rows_from_the_top() -> dict[Key, Candidate]:
    """A quarter of the rows to all of them."""
    shares = [Fraction(part, 4) for part in (1, 2, 3, 4)]
    return {("simplejpeg, fastupsample", named(share)): partial(decode_rows, share, new_memory()) for share in shares}


def new_memory() -> np.ndarray:
    """Room for a whole picture."""
    return np.empty(HEIGHT * WIDTH * 3, np.uint8)


def decode_rows(share: Fraction, memory: np.ndarray, data: bytes) -> None:
    """The first rows, as the loader ends early: that bytes are left over is a complaint it expects."""
    part = cut_out(data, read_jpeg_header(data), (0, 0, WIDTH, math.ceil(HEIGHT * share)))
    try:
        simplejpeg.decode_jpeg(part.data, fastupsample=True, buffer=memory)
    except ValueError:
        if not part.ends_early:
            raise


@dataclass(frozen=True)
class Cropped:
    """One picture by blocks between two restart markers, and the box drawn for it."""

    files: Mapping[int, bytes]
    box: Box


def crops(files: Sequence[bytes], modules: Modules) -> Iterator[CandidateGroup]:
    """The same drawn crops of files with and without restart markers, a group a size."""
    pictures = [with_markers(index, data) for index, data in enumerate(files)]
    mean_bytes = {blocks: fmean(len(one.files[blocks]) for one in pictures) for blocks in MARKERS}
    for size in SIZES:
        makers = {"zoo": lambda blocks, size=size: partial(decode_crop, CropDecoder(), blocks, size)}
        if nvimgcodec := modules.get("nvidia.nvimgcodec"):
            decoder = cpu_decoder(nvimgcodec)
            makers["nvImageCodec, CPU"] = partial(partial, decode_region, nvimgcodec, decoder)
        named_makers = {(f"{who}, {said}", n): make for who, make in makers.items() for n, said in MARKERS.items()}
        candidates = {(what, f"{size} px"): make(blocks) for (what, blocks), make in named_makers.items()}
        yield CandidateGroup(
            name="crop",
            candidates={(WHOLE, f"{size} px"): partial(decode_whole, size)} | candidates,
            pictures=pictures,
            reference=f"zoo, {MARKERS[0]}",
            views={"resized": partial(Crop.resized, size=size)},
            file_bytes={WHOLE: mean_bytes[0]} | {what: mean_bytes[blocks] for what, blocks in named_makers},
        )


def with_markers(index: int, data: bytes) -> Cropped:
    """The picture written again, by the same tables, without markers and with every distance between them."""
    image, files = Image.open(io.BytesIO(data)), {}
    for blocks in MARKERS:
        buffer = io.BytesIO()
        image.save(buffer, "JPEG", quality="keep", restart_marker_blocks=blocks)
        files[blocks] = buffer.getvalue()
        if read_jpeg_header(files[blocks]).restart_interval != blocks:
            raise ValueError(f"this Pillow does not write restart markers every {blocks} blocks")
    return Cropped(files, random_crop_box(WIDTH, HEIGHT, CROP_SCALE, CROP_RATIO, np.random.default_rng((0, index))))


def decode_crop(decoder: CropDecoder, blocks: int, size: int, picture: Cropped) -> Crop:
    """As the loader does; the result holds until the decoder's next."""
    crop = decoder.decode(picture.files[blocks], lambda width, height: picture.box, size, name="")
    decoder.reuse()
    return crop


def decode_whole(size: int, picture: Cropped) -> Crop:
    """All of it, at the scale the loader would take."""
    factor = dct_factor(picture.box, size)
    height, width = scaled(Fraction(1, factor))
    data = picture.files[0]
    pixels = simplejpeg.decode_jpeg(data, fastupsample=True, min_height=height, min_width=width)
    return Crop(pixels, JpegPart(data=data, left=0, top=0, width=WIDTH, height=HEIGHT).scaled(picture.box, factor))


def decode_region(nvimgcodec: Any, decoder: Any, blocks: int, picture: Cropped) -> Crop:
    """The crop's whole pixels, at full scale: it has no other."""
    left, top = (math.floor(low) for low in picture.box[:2])
    right, bottom = (math.ceil(high) for high in picture.box[2:])
    region = nvimgcodec.Region(top, left, bottom, right)
    pixels = decoder.decode(nvimgcodec.CodeStream(picture.files[blocks]).get_sub_code_stream(region=region))
    part = JpegPart(data=b"", left=left, top=top, width=right - left, height=bottom - top)
    return Crop(np.asarray(pixels), part.scaled(picture.box, 1))


def squares(files: Sequence[bytes], side: int) -> list[Square]:
    """The middle of every picture, `side` pixels square."""
    left, top = (WIDTH - side) // 2, (HEIGHT - side) // 2
    images = [Image.open(io.BytesIO(data)).crop((left, top, left + side, top + side)) for data in files]
    return [(np.array(image), image) for image in images]


def resizes(files: Sequence[bytes], side: int, size: int, modules: Modules) -> CandidateGroup:
    """From one square to another."""

    def planes(one: Square) -> torch.Tensor:
        picture = torch.from_numpy(one[0]).permute(2, 0, 1)[None]
        return interpolate(picture, (size, size), mode="bilinear", antialias=True)[0].permute(1, 2, 0)

    ways: dict[str, Candidate] = {
        "Pillow, bilinear": lambda one: one[1].resize((size, size), Image.Resampling.BILINEAR),
        "PyTorch interpolate, uint8": planes,
        "PyTorch interpolate, uint8, interleaved": lambda one: planes(one).contiguous(),
        "zoo: PyTorch's operator writes pixels": lambda one: resize_box(one[0], (0, 0, side, side), size),
    }
    if cv2 := modules.get("cv2"):
        for how in ("INTER_AREA", "INTER_LINEAR"):
            resize = partial(cv2.resize, dsize=(size, size), interpolation=getattr(cv2, how))
            ways[f"OpenCV, {how}"] = lambda one, resize=resize: resize(one[0])
    candidates = {(what, f"{size} px"): call for what, call in ways.items()}
    return CandidateGroup(
        name="resize",
        candidates=candidates,
        pictures=squares(files, side),
        reference="Pillow, bilinear",
        views={"resized": np.asarray},
    )


def operations(size: int, modules: Modules) -> dict[Key, Candidate]:
    """Ours on arrays beside torchvision's on Pillow pictures, at the same strength."""
    share = MAGNITUDE / MAX_LEVEL
    strengths = {"rotate": 30 * share, "posterize": 8 - round(4 * share), "solarize": 255 * (1 - share)}
    strengths |= dict.fromkeys(("shear_x", "shear_y"), 0.3 * share)
    strengths |= dict.fromkeys(("translate_x", "translate_y"), MAX_TRANSLATE_SHARE * size * share)
    called: dict[str, Candidate] = {"an array to Pillow and back": lambda one: np.array(Image.fromarray(one[0]))}
    for name, operation in OPERATIONS.items():
        called[f"{name}, zoo"] = lambda one, operation=operation: operation(one[0], share, 1.0)
        theirs = "AutoContrast" if name == "autocontrast" else "".join(map(str.capitalize, name.split("_")))
        run = partial(torchvision_operation, theirs, strengths.get(name, 0.9 * share))
        if name in GEOMETRY:
            for how in (InterpolationMode.NEAREST, InterpolationMode.BILINEAR):
                called[f"{name}, torchvision, {how.value}"] = partial(run, how)
        else:
            called[f"{name}, torchvision"] = partial(run, InterpolationMode.NEAREST)
    if cv2 := modules.get("cv2"):
        turn = cv2.getRotationMatrix2D((size / 2, size / 2), strengths["rotate"], 1.0)
        called["rotate, OpenCV, bilinear"] = lambda one: cv2.warpAffine(one[0], turn, (size, size), borderValue=FILL)
    return {(what, f"{size} px"): call for what, call in called.items()}


def torchvision_operation(name: str, strength: float, how: InterpolationMode, one: Square) -> Image.Image:
    """What its RandAugment calls."""
    return _apply_op(one[1], name, strength, how, [float(grey) for grey in FILL])
