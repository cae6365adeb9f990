"""The rows against the published tables and against the modules built from them."""

from __future__ import annotations

import pytest
import torch

from zoo.counts import count_macs, count_params, padding_of, parts
from zoo.layers import Conv2dSame
from zoo.model import EfficientNet
from zoo.variants import VARIANTS, find_variant

# Trainable parameters at 1,000 classes and GMACs at the eval size; sources: torchvision's num_params for s,
# tensorflow/tpu lite/README.md and an independent recount for the Lite family.
PUBLISHED = {
    "s": (21_458_488, 8.37),
    "lite0": (4_652_008, 0.385),
    "lite1": (5_416_680, 0.600),
    "lite2": (6_092_072, 0.860),
}


@pytest.mark.parametrize("id", PUBLISHED)
def test_counts_are_the_published_ones(id: str) -> None:
    params, gmacs = PUBLISHED[id]
    variant = find_variant(id)
    assert count_params(variant) == params
    assert count_macs(variant) / 1e9 == pytest.approx(gmacs, rel=0.005)


@pytest.mark.parametrize("variant", VARIANTS, ids=lambda v: v.id)
def test_rows_and_modules_count_the_same(variant) -> None:  # type: ignore[no-untyped-def]
    with torch.device("meta"):
        model = EfficientNet(variant, 7)
    assert sum(p.numel() for p in model.parameters()) == count_params(variant, 7)


def test_macs_are_what_the_convolutions_do() -> None:
    """Count multiply-adds with hooks on the real modules."""
    variant = find_variant("tiny")
    model = EfficientNet(variant, 5).eval()
    counted = 0

    def hook(module: torch.nn.Module, _: object, output: torch.Tensor) -> None:
        nonlocal counted
        weights = module.weight
        counted += weights.numel() * (output.shape[-1] * output.shape[-2] if output.ndim == 4 else 1)

    for module in model.modules():
        if isinstance(module, torch.nn.Conv2d | torch.nn.Linear):
            module.register_forward_hook(hook)
    with torch.inference_mode():
        model(torch.zeros(1, 3, 45, 45))
    assert counted == count_macs(variant, 45, 5)


def test_sizes_of_s_at_its_eval_size() -> None:
    assert [part.size for part in parts(find_variant("s"))] == [192, 192, 96, 48, 24, 24, 12, 12]


@pytest.mark.parametrize(("kernel", "stride", "size"), [(3, 2, 224), (3, 2, 225), (5, 2, 56), (5, 2, 15), (3, 1, 7)])
def test_same_padding_gives_the_rounded_up_size(kernel: int, stride: int, size: int) -> None:
    conv = Conv2dSame(1, 1, kernel, stride, bias=False)
    assert conv(torch.zeros(1, 1, size, size)).shape[-1] == -(-size // stride)


def test_same_padding_puts_the_odd_pixel_last() -> None:
    assert padding_of(3, 2, 224, "same") == (0, 1)
    assert padding_of(3, 2, 225, "same") == (1, 1)
    assert padding_of(5, 2, 56, "same") == (1, 2)
    assert padding_of(5, 2, 56, "symmetric") == (2, 2)
