from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from train.augment import OPERATIONS, mix_batch, randaugment, random_crop_box


@pytest.fixture(scope="module")
def picture() -> Image.Image:
    y, x = np.mgrid[0:48, 0:64]
    pixels = np.stack([x * 4, y * 5, (x * y) % 256], -1).clip(0, 255).astype(np.uint8)
    return Image.fromarray(pixels)


@pytest.mark.parametrize("name", OPERATIONS)
@pytest.mark.parametrize("share", [0.1, 1.0, 2.5])
@pytest.mark.parametrize("sign", [-1.0, 1.0])
def test_operations_keep_size_and_content(name: str, share: float, sign: float, picture: Image.Image) -> None:
    """Levels up to 25 (the paper's L) neither crash nor blank the picture."""
    out = OPERATIONS[name](picture, share, sign)
    assert (out.size, out.mode) == (picture.size, "RGB")
    assert np.asarray(out).std() > 1


@pytest.mark.parametrize(
    "name", ["shear_x", "translate_y", "rotate", "brightness", "contrast", "posterize", "solarize"]
)
def test_strength_grows_with_the_level(name: str, picture: Image.Image) -> None:
    before = np.asarray(picture).astype(float)
    change = [np.abs(np.asarray(OPERATIONS[name](picture, share, 1.0)) - before).mean() for share in (0.1, 0.5, 1.0)]
    assert change == sorted(change)
    assert change[0] < change[2]


def test_magnitude_zero_changes_nothing(picture: Image.Image) -> None:
    assert randaugment(picture, 0.0, 2, np.random.default_rng(0)) is picture


def test_randaugment_depends_on_its_generator_alone(picture: Image.Image) -> None:
    drawn = [np.asarray(randaugment(picture, 8, 2, np.random.default_rng(seed))) for seed in (1, 1, 2)]
    assert np.array_equal(drawn[0], drawn[1])
    assert not np.array_equal(drawn[0], drawn[2])


@given(st.integers(1, 500), st.integers(1, 500), st.integers(0, 2**32))
def test_crops_lie_inside_the_picture(width: int, height: int, seed: int) -> None:
    left, top, right, bottom = random_crop_box(width, height, (0.05, 1.0), (3 / 4, 4 / 3), np.random.default_rng(seed))
    assert 0 <= left < right <= width + 1e-9
    assert 0 <= top < bottom <= height + 1e-9


def batch(count: int, classes: int = 4) -> tuple[torch.Tensor, torch.Tensor]:
    pictures = torch.arange(count, dtype=torch.float32)[:, None, None, None].expand(count, 3, 8, 8).clone()
    return pictures, torch.eye(classes)[torch.arange(count) % classes]


@given(st.integers(2, 9), st.floats(0.05, 2), st.sampled_from(["mixup", "cutmix", "both"]), st.integers(0, 2**32))
def test_mixed_labels_still_sum_to_one(count: int, alpha: float, kind: str, seed: int) -> None:
    pictures, labels = batch(count)
    mix_batch(
        pictures,
        labels,
        mixup_alpha=alpha * (kind != "cutmix"),
        cutmix_alpha=alpha * (kind != "mixup"),
        rng=np.random.default_rng(seed),
    )
    torch.testing.assert_close(labels.sum(1), torch.ones(count))
    assert pictures.min() >= 0
    assert pictures.max() <= count - 1


def test_mixup_keeps_at_least_half_of_each_picture() -> None:
    pictures, labels = batch(4)
    mix_batch(pictures, labels, mixup_alpha=1.0, cutmix_alpha=0.0, rng=np.random.default_rng(0))
    for index in range(4):
        share = labels[index, index].item()
        assert share >= 0.5
        expected = share * index + (1 - share) * (3 - index)
        assert pictures[index, 0, 0, 0].item() == pytest.approx(expected, rel=1e-5)


def test_cutmix_labels_follow_the_pasted_area() -> None:
    pictures, labels = batch(4)
    mix_batch(pictures, labels, mixup_alpha=0.0, cutmix_alpha=1.0, rng=np.random.default_rng(1))
    for index in range(4):
        pasted = (pictures[index, 0] == 3 - index).float().mean().item()
        assert labels[index, 3 - index].item() == pytest.approx(pasted, abs=1e-6)


def test_alphas_of_zero_change_nothing() -> None:
    pictures, labels = batch(5)
    kept = pictures.clone(), labels.clone()
    mix_batch(pictures, labels, mixup_alpha=0.0, cutmix_alpha=0.0, rng=np.random.default_rng(0))
    assert torch.equal(pictures, kept[0])
    assert torch.equal(labels, kept[1])
