from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torchvision.transforms import RandomErasing

from train.augment.erasing import draw_rectangle, erase
from train.progressive.recipe import find_recipe
from zoo.model.variants import find_variant

SCALE, RATIO = (0.02, 0.33), (0.3, 3.3)


def erased(prob: float, fill: str = "zero", count: int = 64, seed: int = 0) -> torch.Tensor:
    recipe = replace(
        find_recipe("folder", find_variant("tiny")),
        random_erasing_scale=SCALE,
        random_erasing_ratio=RATIO,
        random_erasing_fill=fill,
    )
    return erase(torch.ones(count, 3, 16, 16), prob, recipe, np.random.default_rng(seed))


def test_probability_is_per_picture() -> None:
    assert torch.equal(erased(0.0), torch.ones(64, 3, 16, 16))
    assert (erased(1.0) == 0).flatten(1).any(1).all()
    share = (erased(0.25, count=400) == 0).flatten(1).any(1).float().mean().item()
    assert 0.15 < share < 0.35


def test_what_is_erased_is_one_rectangle_of_all_channels() -> None:
    for picture in erased(1.0):
        gone = picture == 0
        assert torch.equal(gone[0], gone[1])
        rows, columns = gone[0].any(1), gone[0].any(0)
        assert torch.equal(gone[0], rows[:, None] & columns[None, :])


def test_noise_has_mean_0_and_deviation_1() -> None:
    values = erased(1.0, "noise", count=400)
    noise = values[values != 1]
    assert noise.mean().item() == pytest.approx(0, abs=0.03)
    assert noise.std().item() == pytest.approx(1, abs=0.03)


def test_the_generator_alone_decides() -> None:
    assert torch.equal(erased(0.5, seed=1), erased(0.5, seed=1))
    assert not torch.equal(erased(0.5, seed=1), erased(0.5, seed=2))


@given(st.integers(4, 64), st.integers(4, 64), st.integers(0, 2**32))
def test_rectangles_lie_inside(height: int, width: int, seed: int) -> None:
    box = draw_rectangle(height, width, SCALE, RATIO, np.random.default_rng(seed))
    if box is not None:
        top, left, high, wide = box
        assert 0 <= top <= height - high
        assert 0 <= left <= width - wide
        assert high < height
        assert wide < width


def test_areas_and_aspects_are_torchvisions() -> None:
    """Two samples of 2,000: their quantiles agree."""
    torch.manual_seed(0)
    picture = torch.zeros(3, 64, 48)
    theirs = [RandomErasing.get_params(picture, SCALE, RATIO, [0.0])[2:4] for _ in range(2000)]
    rng = np.random.default_rng(0)
    ours = [draw_rectangle(64, 48, SCALE, RATIO, rng) for _ in range(2000)]
    sizes = np.array([box[2:] for box in ours if box is not None], float)
    expected = np.array(theirs, float)
    for of in (lambda s: s[:, 0] * s[:, 1], lambda s: s[:, 0] / s[:, 1]):
        quantiles = [0.1, 0.25, 0.5, 0.75, 0.9]
        np.testing.assert_allclose(np.quantile(of(sizes), quantiles), np.quantile(of(expected), quantiles), rtol=0.12)
