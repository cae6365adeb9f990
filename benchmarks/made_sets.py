"""Draws picture sets that test a default where photographs do not: OUT/{train,val,test}/CLASS/*.jpg, by a seed.

    marks       clutter of 300 px with marks of a dozen pixels, whose shape is the class: 6 classes, 900 + 150 + 600
    unequal     castings of 160 px, of which one in twenty-one has a scratch: 2 classes, 1,050 + 210 + 840
    textures    gratings of 128 px; the class is direction and pitch, so a mirror image may be of another: 8 classes,
                800 + 160 + 640

Nothing is fetched, and the same seed draws the same pictures. What is drawn is easy for whoever sees it: what a set
asks is whether a default loses the marks by shrinking pictures, the rare class by counting, or the direction by
mirroring.
"""

from __future__ import annotations

import io
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw

from zoo.files import write_bytes

Pixels = NDArray[np.float64]  # (H, W, 3), 0 … 255
SPLITS = ("train", "val", "test")
MARKS = ("circle", "cross", "plus", "square", "tee", "triangle")
TEXTURES = tuple(f"{direction}-{pitch}" for direction in ("000", "045", "090", "135") for pitch in ("coarse", "fine"))


def clutter(rng: np.random.Generator, size: int, *, power: float = 1.2) -> Pixels:
    """Coloured noise whose spectrum falls as a photograph's does: amplitude ∝ 1 / frequency^power."""
    frequency = np.hypot(np.fft.fftfreq(size)[:, None], np.fft.rfftfreq(size)[None])
    frequency[0, 0] = 1.0
    spectrum = np.fft.rfft2(rng.normal(size=(3, size, size))) / frequency**power
    noise = np.fft.irfft2(spectrum, (size, size))
    noise = (noise[0] + 0.4 * noise).transpose(1, 2, 0)
    return 128 + 38 * (noise - noise.mean()) / noise.std()


def marks(rng: np.random.Generator, kind: str) -> Pixels:
    """Eight marks of one kind, 11 to 15 px large with lines of 2 px, at random places of clutter."""
    picture = clutter(rng, 300)
    layer = Image.new("L", (300, 300))
    draw = ImageDraw.Draw(layer)
    for x, y in rng.uniform(12, 288, (8, 2)):
        half = rng.uniform(5.5, 7.5)
        _draw_mark(draw, kind, x, y, half)
    strength = np.asarray(layer)[..., None] / 255 * rng.choice([-1, 1]) * rng.uniform(70, 100)
    return picture + strength


def _draw_mark(draw: ImageDraw.ImageDraw, kind: str, x: float, y: float, half: float) -> None:
    left, right, top, bottom = x - half, x + half, y - half, y + half
    lines: dict[str, list[list[tuple[float, float]]]] = {
        "cross": [[(left, top), (right, bottom)], [(left, bottom), (right, top)]],
        "plus": [[(left, y), (right, y)], [(x, top), (x, bottom)]],
        "square": [[(left, top), (right, top), (right, bottom), (left, bottom), (left, top)]],
        "tee": [[(left, top), (right, top)], [(x, top), (x, bottom)]],
        "triangle": [[(x, top), (right, bottom), (left, bottom), (x, top)]],
    }
    if kind == "circle":
        draw.ellipse((left, top, right, bottom), outline=255, width=2)
    for line in lines.get(kind, []):
        draw.line(line, fill=255, width=2)


def unequal(rng: np.random.Generator, kind: str) -> Pixels:
    """A brushed plate with holes; a scratch is a curved thin line of little contrast, which runs anywhere."""
    size = 160
    brushed = np.repeat(rng.normal(size=(size, 1, 1)), size, axis=1) * 7
    picture = 0.35 * (clutter(rng, size) - 128) + rng.uniform(110, 170) + brushed
    layer = Image.new("L", (size * 2, size * 2))  # drawn at twice the size, so that lines are smooth
    draw = ImageDraw.Draw(layer)
    for x, y, half in zip(*rng.uniform(0, size * 2, (2, 4)), rng.uniform(12, 30, 4), strict=True):
        draw.ellipse((x - half, y - half, x + half, y + half), fill=255)
    holes = np.asarray(layer.resize((size, size), Image.Resampling.BOX))[..., None] / 255
    picture = picture * (1 - 0.7 * holes)
    if kind == "scratched":
        layer = Image.new("L", (size * 2, size * 2))
        start, heading = rng.uniform(0.2, 0.8, 2) * size * 2, rng.uniform(0, 2 * np.pi)
        bend, points = rng.normal(0, 0.05), [start]
        for _ in range(int(rng.integers(10, 18))):
            heading += bend
            points.append(points[-1] + 9 * np.array([np.cos(heading), np.sin(heading)]))
        ImageDraw.Draw(layer).line([tuple(point) for point in points], fill=255, width=4)
        line = np.asarray(layer.resize((size, size), Image.Resampling.BOX))[..., None] / 255
        picture = picture + line * rng.choice([-1, 1]) * rng.uniform(35, 60)
    return picture


def textures(rng: np.random.Generator, kind: str) -> Pixels:
    """A grating that wavers, in two colours, with clutter over it; ± 8° and ± 12 % about what its class says."""
    size = 128
    direction, pitch = kind.split("-")
    angle = np.deg2rad(int(direction) + rng.uniform(-8, 8))
    period = {"coarse": 16, "fine": 9}[pitch] * rng.uniform(0.88, 1.12)
    y, x = np.mgrid[:size, :size]
    waver = (clutter(rng, size, power=2)[..., 0] - 128) / 38
    phase = (x * np.cos(angle) + y * np.sin(angle)) / period + rng.uniform() + 0.15 * waver
    wave = 0.5 + 0.5 * np.sin(2 * np.pi * phase)[..., None]
    dark, light = rng.uniform(40, 120, 3), rng.uniform(110, 220, 3)
    return dark + (light - dark) * wave + 0.9 * (clutter(rng, size) - 128)


Draw = Callable[[np.random.Generator, str], Pixels]
# A set's drawing, and how many pictures of each class train, val and test have.
MADE: dict[str, tuple[Draw, dict[str, tuple[int, int, int]]]] = {
    "marks": (marks, dict.fromkeys(MARKS, (150, 25, 100))),
    "unequal": (unequal, {"good": (1000, 200, 800), "scratched": (50, 10, 40)}),
    "textures": (textures, dict.fromkeys(TEXTURES, (100, 20, 80))),
}


def make_drawn_set(name: str, out: Path, seed: int) -> Path:
    """Draw a set in `out`, unless it is there."""
    if (out / "test").is_dir():
        return out
    draw, classes = MADE[name]
    for number, (kind, counts) in enumerate(sorted(classes.items())):
        for place, (split, count) in enumerate(zip(SPLITS, counts, strict=True)):
            for index in range(count):
                picture = draw(np.random.default_rng((seed, number, place, index)), kind)
                write_bytes(out / split / kind / f"{index:05d}.jpg", jpeg(picture))
    return out


def jpeg(picture: Pixels) -> bytes:
    """A picture as a JPEG of quality 92, as a camera writes it."""
    buffer = io.BytesIO()
    Image.fromarray(np.clip(picture, 0, 255).astype(np.uint8)).save(buffer, "JPEG", quality=92)
    return buffer.getvalue()


def sheet(name: str, seed: int = 0, each: int = 4) -> Image.Image:
    """A few pictures of each class, a row each, to look at."""
    draw, classes = MADE[name]
    rows: Sequence[Pixels] = [
        np.hstack([draw(np.random.default_rng((seed, number, 0, index)), kind) for index in range(each)])
        for number, kind in enumerate(sorted(classes))
    ]
    return Image.fromarray(np.clip(np.vstack(rows), 0, 255).astype(np.uint8))
