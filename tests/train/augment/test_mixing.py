from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from train.augment.mixing import mix_batch


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
