"""Flip and RandAugment of pictures that are not RGB: what is done to which planes, one by one and as batches."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from train.augment.device import augment_batch
from train.augment.host import OPERATIONS, augment, draw_augmentation

NAMES = tuple(OPERATIONS)
MOVES = ("shear_x", "shear_y", "translate_x", "translate_y", "rotate")
TONES = tuple(name for name in NAMES if name not in (*MOVES, "identity"))
RNG = np.random.default_rng(0)
SIZES = (1, 20, 70)


def picture(size: int, channels: int) -> np.ndarray:
    y, x = np.mgrid[0:size, 0:size]
    planes = [x * 3, y * 2 + 20, (x * y) % 200 + 10, (x + 2 * y) % 256]
    return np.ascontiguousarray(np.stack(planes[:channels], -1).clip(0, 255).astype(np.uint8))


def drawn(name: str, sign: int, *, flip: int = 0) -> np.ndarray:
    return np.array([flip, NAMES.index(name), sign], np.int8)


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("name", NAMES)
def test_grey_changes_as_three_equal_planes_do(name: str, size: int) -> None:
    """Every operation of one plane is what RGB's makes of a grey picture; of those of colour nothing is left."""
    grey = picture(size, 1)
    for sign in (-1, 1):
        alone = augment(grey, drawn(name, sign), 9.0)
        as_rgb = augment(np.repeat(grey, 3, axis=-1), drawn(name, sign), 9.0)
        assert alone.shape == grey.shape
        assert np.array_equal(alone[..., 0], as_rgb[..., 0])


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("name", NAMES)
def test_of_four_planes_geometry_moves_all_and_tones_change_the_colours(name: str, size: int) -> None:
    four = picture(size, 4)
    alone = augment(np.ascontiguousarray(four[..., :3]), drawn(name, 1, flip=1), 9.0)
    found = augment(four, drawn(name, 1, flip=1), 9.0)
    assert np.array_equal(found[..., :3], alone)
    last = np.repeat(four[..., 3:], 3, axis=-1)
    expected = augment(last, drawn(name if name in MOVES else "identity", 1, flip=1), 9.0)
    assert np.array_equal(found[..., 3], expected[..., 0])


@pytest.mark.parametrize("name", TONES)
def test_a_picture_is_not_written_to(name: str) -> None:
    for channels in (1, 4):
        pixels = picture(20, channels)
        before = pixels.copy()
        augment(pixels, drawn(name, 1), 9.0)
        assert np.array_equal(pixels, before)


@pytest.mark.parametrize("channels", [1, 4])
@pytest.mark.parametrize("size", SIZES)
def test_batches_are_augmented_as_their_pictures_would_be(size: int, channels: int) -> None:
    """All operations and both signs, then two layers as they are drawn: at most one level away, of few values."""
    draws = [[flip, place, sign] for flip in (0, 1) for place in range(len(NAMES)) for sign in (1, -1)]
    two = [draw_augmentation(RNG, flips=True, magnitude=7.0, num_layers=2) for _ in range(40)]
    for rows in (np.array(draws, np.int8), np.stack(two)):
        pictures = RNG.integers(0, 256, (len(rows), size, size, channels), dtype=np.uint8)
        pictures[0] = picture(size, channels)
        batch = augment_batch(torch.from_numpy(pictures), torch.from_numpy(rows), 7.0).numpy()
        alone = np.stack([augment(one, own, 7.0) for one, own in zip(pictures, rows, strict=True)])
        away = np.abs(batch.astype(int) - alone)
        assert batch.shape == pictures.shape
        assert (away > 1).mean() <= 1e-3
