from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from PIL import Image, ImageOps
from sklearn.datasets import load_sample_image
from torchvision.transforms import RandAugment
from torchvision.transforms import functional as F

from train.augment.host import OPERATIONS, augment, draw_augmentation, random_crop_box
from train.augment.strength import FILL

Pixels = np.ndarray


def randaugment(pixels: Pixels, magnitude: float, num_layers: int, rng: np.random.Generator) -> Pixels:
    return augment(pixels, draw_augmentation(rng, flips=False, magnitude=magnitude, num_layers=num_layers), magnitude)


@pytest.fixture(scope="module")
def picture() -> Pixels:
    y, x = np.mgrid[0:48, 0:64]
    return np.stack([x * 4, y * 5, (x * y) % 256], -1).clip(0, 255).astype(np.uint8)


@pytest.fixture(scope="module")
def photo() -> Pixels:
    return np.ascontiguousarray(load_sample_image("china.jpg")[100:260, 200:360])


@pytest.mark.parametrize("name", OPERATIONS)
@pytest.mark.parametrize("share", [0.1, 1.0, 2.5])
@pytest.mark.parametrize("sign", [-1.0, 1.0])
def test_operations_keep_size_and_content(name: str, share: float, sign: float, picture: Pixels) -> None:
    """Levels up to 25 (the paper's L) neither crash nor blank the picture, nor write into it."""
    before = picture.copy()
    out = OPERATIONS[name](picture, share, sign)
    assert (out.shape, out.dtype) == (picture.shape, np.uint8)
    assert out.std() > 1
    assert np.array_equal(picture, before)


@pytest.mark.parametrize("name", OPERATIONS)
def test_one_pixel_survives_every_operation(name: str) -> None:
    assert OPERATIONS[name](np.full((1, 1, 3), 77, np.uint8), 1.0, 1.0).shape == (1, 1, 3)


@pytest.mark.parametrize(
    "name", ["shear_x", "translate_y", "rotate", "brightness", "contrast", "posterize", "solarize"]
)
def test_strength_grows_with_the_level(name: str, picture: Pixels) -> None:
    before = picture.astype(float)
    change = [np.abs(OPERATIONS[name](picture, share, 1.0) - before).mean() for share in (0.1, 0.5, 1.0)]
    assert change == sorted(change)
    assert change[0] < change[2]


# torchvision's own operations on a Pillow picture, with its RandAugment's arguments at a share of the range
# (transforms/autoaugment.py, _apply_op and _augmentation_space). Its shears turn about the corner unless told.
def theirs(name: str, image: Image.Image, share: float, sign: float) -> Image.Image:
    width, height = image.size
    level = sign * share
    fill, still = [float(grey) for grey in FILL], {"angle": 0.0, "translate": [0, 0], "scale": 1.0, "shear": [0.0, 0.0]}
    match name:
        case "identity":
            return image
        case "shear_x" | "shear_y":
            angle = math.degrees(math.atan(0.3 * level))
            shear = [angle, 0.0] if name == "shear_x" else [0.0, angle]
            return F.affine(image, **still | {"shear": shear}, fill=fill)
        case "translate_x":
            return F.affine(image, **still | {"translate": [-round(150 / 331 * width * level), 0]}, fill=fill)
        case "translate_y":
            return F.affine(image, **still | {"translate": [0, -round(150 / 331 * height * level)]}, fill=fill)
        case "rotate":
            return F.rotate(image, 30.0 * level, fill=fill)
        case "posterize":
            return F.posterize(image, 8 - round(4 * share))
        case "solarize":
            return F.solarize(image, 255.0 * (1 - share))
        case "autocontrast":
            return F.autocontrast(image)
        case "equalize":
            return F.equalize(image)
    adjust = {
        "brightness": F.adjust_brightness,
        "color": F.adjust_saturation,
        "contrast": F.adjust_contrast,
        "sharpness": F.adjust_sharpness,
    }
    return adjust[name](image, 1.0 + 0.9 * level)


@pytest.mark.parametrize("name", OPERATIONS)
@pytest.mark.parametrize("share", [0.1, 0.3, 1.0])
@pytest.mark.parametrize("sign", [-1.0, 1.0])
def test_operations_are_torchvision_s(name: str, share: float, sign: float, photo: Pixels) -> None:
    """Values within 2 levels; geometry may take the neighbour of a pixel at a border between two: 1 in 50."""
    ours = OPERATIONS[name](photo, share, sign).astype(int)
    reference = np.asarray(theirs(name, Image.fromarray(photo), share, sign)).astype(int)
    away = np.abs(ours - reference).max(-1) > 2
    assert away.mean() <= (0.02 if name.startswith(("shear", "translate", "rotate")) else 0)
    assert np.abs(ours.mean((0, 1)) - reference.mean((0, 1))).max() < 0.75


@given(arrays(np.uint8, (9, 7, 3)))
def test_tables_are_pillow_s_for_any_pixels(pixels: Pixels) -> None:
    image = Image.fromarray(pixels)
    assert np.array_equal(OPERATIONS["equalize"](pixels, 1.0, 1.0), np.asarray(ImageOps.equalize(image)))
    stretched = np.asarray(ImageOps.autocontrast(image)).astype(int)
    assert np.abs(OPERATIONS["autocontrast"](pixels, 1.0, 1.0) - stretched).max() <= 1


def test_statistics_of_randaugment_are_torchvision_s(photo: Pixels) -> None:
    """Mean and deviation over 600 drawn pictures, at the same strength (9 of torchvision's 30 bins): within 4 levels.

    The standard error of such a mean is about 1 level.
    """
    torch.manual_seed(0)
    reference = RandAugment(num_ops=2, magnitude=9, fill=list(FILL))
    image = Image.fromarray(photo)
    drawn = np.stack([randaugment(photo, 3.0, 2, np.random.default_rng(seed)) for seed in range(600)])
    wanted = np.stack([np.asarray(reference(image)) for _ in range(600)])
    for statistic in (np.mean, np.std):
        assert statistic(drawn) == pytest.approx(statistic(wanted), abs=4)


def test_magnitude_zero_changes_nothing(picture: Pixels) -> None:
    assert randaugment(picture, 0.0, 2, np.random.default_rng(0)) is picture


def test_randaugment_depends_on_its_generator_alone(picture: Pixels) -> None:
    drawn = [randaugment(picture, 8, 2, np.random.default_rng(seed)) for seed in (1, 1, 2)]
    assert np.array_equal(drawn[0], drawn[1])
    assert not np.array_equal(drawn[0], drawn[2])


@given(st.integers(1, 500), st.integers(1, 500), st.integers(0, 2**32))
def test_crops_lie_inside_the_picture(width: int, height: int, seed: int) -> None:
    left, top, right, bottom = random_crop_box(width, height, (0.05, 1.0), (3 / 4, 4 / 3), np.random.default_rng(seed))
    assert 0 <= left < right <= width + 1e-9
    assert 0 <= top < bottom <= height + 1e-9
