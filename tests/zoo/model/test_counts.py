"""The rows against the published tables and against the modules built from them."""

from __future__ import annotations

import pytest
import torch

from zoo.model.build import build_network
from zoo.model.counts import count_macs, count_params, largest_map, padding_of, parts
from zoo.model.layers import Conv2dSame
from zoo.model.spec import Variant
from zoo.model.variants import VARIANTS, find_variant

# Trainable parameters at 1,000 classes and GMACs (convolutions and dense) at the eval size. Parameters are
# torchvision's num_params where it has the network, google/automl's README and a recount of its configuration for the
# rest of V2, tensorflow/tpu's lite/README.md and a recount for Lite.
PUBLISHED = {
    "s": (21_458_488, 8.37),
    "m": (54_139_356, 24.58),
    "l": (118_515_272, 56.08),
    "xl": (208_119_808, 93.35),
    "b0": (7_139_704, 0.718),
    "b1": (8_141_052, 1.197),
    "b2": (10_096_086, 1.698),
    "b3": (14_358_406, 3.011),
    "v1-b0": (5_288_548, 0.386),
    "v1-b1": (7_794_184, 0.687),
    "v1-b2": (9_109_994, 0.994),
    "v1-b3": (12_233_232, 1.827),
    "v1-b4": (19_341_616, 4.394),
    "v1-b5": (30_389_784, 10.27),
    "v1-b6": (43_040_704, 19.07),
    "v1-b7": (66_347_960, 37.75),
    "lite0": (4_652_008, 0.385),
    "lite1": (5_416_680, 0.600),
    "lite2": (6_092_072, 0.860),
    "lite3": (8_197_096, 1.383),
    "lite4": (13_006_568, 2.553),
    "resnet50": (25_557_032, 4.09),
    "resnet152": (60_192_808, 11.51),
}


@pytest.mark.parametrize("id", PUBLISHED)
def test_counts_are_the_published_ones(id: str) -> None:
    params, gmacs = PUBLISHED[id]
    variant = find_variant(id)
    assert count_params(variant) == params
    assert count_macs(variant) / 1e9 == pytest.approx(gmacs, rel=0.005)


@pytest.mark.parametrize(("last", "millions"), [(3, 20.0), (5, 43.4), (7, 132.0)])
def test_the_networks_of_table_3_come_as_near_as_the_paper_determines_them(last: int, millions: float) -> None:
    assert count_params(find_variant(f"v1-b4-fused1{last}")) / 1e6 == pytest.approx(millions, rel=0.02)


@pytest.mark.parametrize("variant", VARIANTS, ids=lambda v: v.id)
def test_rows_and_modules_count_the_same(variant) -> None:  # type: ignore[no-untyped-def]
    with torch.device("meta"):
        model = build_network(variant, 7)
    assert sum(p.numel() for p in model.parameters()) == count_params(variant, 7)


@pytest.mark.parametrize("id", ["tiny", "resnet50"])
def test_macs_are_what_the_convolutions_do(id: str) -> None:
    """Count multiply-adds with hooks on the real modules."""
    variant = find_variant(id)
    model = build_network(variant, 5).eval()
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


@pytest.mark.parametrize("size", [97, 224])
@pytest.mark.parametrize("variant", VARIANTS, ids=lambda v: v.id)
def test_the_largest_map_is_that_of_the_modules(variant: Variant, size: int) -> None:
    made = [3 * size**2]
    with torch.device("meta"):
        model = build_network(variant, 7).eval()
        for module in model.modules():
            if isinstance(module, torch.nn.Conv2d):
                module.register_forward_hook(lambda _module, _inputs, output: made.append(output.numel()))
        model(torch.zeros(1, 3, size, size))
    assert largest_map(variant, size) == max(made)
