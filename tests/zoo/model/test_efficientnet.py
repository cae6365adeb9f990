from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import pytest
import torch
from torch.nn import functional as F

from zoo.model.build import FromPictures, build_network
from zoo.model.efficientnet import EfficientNet
from zoo.model.layers import Block, StageModule, StochasticDepth
from zoo.model.spec import Preprocessing, Variant
from zoo.model.variants import VARIANTS, find_variant, fused


@pytest.fixture(scope="module")
def tiny() -> EfficientNet:
    torch.manual_seed(0)
    return EfficientNet(find_variant("tiny"), 10)


def test_module_names_are_the_papers_words(tiny: EfficientNet) -> None:
    names = dict(tiny.named_modules())
    assert {"stem.conv", "stages.1.block.0.fused", "stages.3.block.1.depthwise", "stages.3.block.0.se", "head"} <= set(
        names
    )
    assert "stages.1.block.0.project" not in names  # Fused-MBConv with ratio 1 is a single convolution


def test_gradients_are_those_of_torchvisions_s() -> None:
    """One seeded batch through torchvision's S with our weights: logits and input-side gradients agree."""
    from torchvision.models import efficientnet_v2_s

    variant = find_variant("s")
    torch.manual_seed(0)
    ours = EfficientNet(variant, 10)
    theirs = efficientnet_v2_s(num_classes=10, dropout=0.0, stochastic_depth_prob=0.0)
    ours.set_dropout(0.0)
    ours.set_stochastic_depth(0.0)
    # Both register their convolutions, norms and squeezes in forward order, so the tensors pair up by position.
    own, other = ours.state_dict(), theirs.state_dict()
    assert [tuple(t.shape) for t in own.values()] == [tuple(t.shape) for t in other.values()]
    theirs.load_state_dict(dict(zip(other, own.values(), strict=True)))
    x = torch.randn(4, 3, 64, 64)
    y = torch.tensor([0, 3, 5, 9])
    grads = []
    for model in (ours, theirs):
        model.train()
        loss = torch.nn.functional.cross_entropy(model(x), y)
        loss.backward()
        first = next(p for p in model.parameters() if p.grad is not None)
        last = list(model.parameters())[-2]
        grads.append((loss.item(), first.grad.clone(), last.grad.clone()))
    assert grads[0][0] == pytest.approx(grads[1][0], rel=1e-5)
    for mine, reference in zip(grads[0][1:], grads[1][1:], strict=True):
        torch.testing.assert_close(mine, reference, rtol=1e-3, atol=1e-5 * reference.abs().max().item())


def test_initialisation_is_the_paper_codes(tiny: EfficientNet) -> None:
    s = EfficientNet(find_variant("s"), 100)
    depthwise = s.stages["6"].block[3].depthwise.conv.weight
    assert depthwise.std().item() == pytest.approx(math.sqrt(2 / 9), rel=0.05)
    fused = s.stages["1"].block[1].fused.conv.weight
    assert fused.std().item() == pytest.approx(math.sqrt(2 / (9 * 24)), rel=0.05)
    assert s.classifier.weight.abs().max().item() <= 0.1
    assert not s.classifier.bias.any()


def test_stochastic_depth_rises_with_the_block(tiny: EfficientNet) -> None:
    tiny.set_stochastic_depth(0.5)
    blocks = [m for m in tiny.modules() if isinstance(m, Block)]
    probs = {i: m.prob for i, b in enumerate(blocks) for m in b.children() if isinstance(m, StochasticDepth)}
    assert probs == {index: 0.5 * index / len(blocks) for index in probs}
    assert len(probs) == 3  # only blocks with a residual have one


def test_stochastic_depth_keeps_the_expectation() -> None:
    torch.manual_seed(0)
    layer = StochasticDepth().train()
    layer.prob = 0.25
    out = layer(torch.ones(4000, 1, 1, 1))
    assert sorted(out.unique().tolist()) == pytest.approx([0.0, 1 / 0.75])
    assert out.mean().item() == pytest.approx(1.0, abs=0.05)
    assert torch.equal(layer.eval()(out), out)


def test_preprocessing_inside_is_preprocessing_outside(tiny: EfficientNet) -> None:
    preprocessing = Preprocessing(image_size=32, mean=(127.0, 120.0, 110.0), std=(128.0, 60.0, 50.0))
    pictures = np.random.default_rng(0).integers(0, 256, (2, 32, 32, 3), dtype=np.uint8)
    outside = (pictures.astype(np.float64) - preprocessing.mean) / preprocessing.std
    tiny.eval()
    with torch.inference_mode():
        inside = FromPictures(tiny, preprocessing)(torch.from_numpy(pictures))
        reference = tiny(torch.from_numpy(outside.astype(np.float32)).permute(0, 3, 1, 2))
    torch.testing.assert_close(inside, reference, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("variant", VARIANTS, ids=lambda variant: variant.id)
def test_every_row_runs_forward_and_backward(variant: Variant) -> None:
    network = build_network(variant, num_classes=2)
    pictures = torch.randn(2, 3, 32, 32, generator=torch.Generator().manual_seed(0))
    logits = network.train()(pictures)
    assert logits.shape == (2, 2)
    assert logits.isfinite().all()
    logits.sum().backward()
    assert [name for name, parameter in network.named_parameters() if parameter.grad is None] == []


def test_squeeze_and_excitation_of_an_unexpanded_fused_block_comes_before_its_convolution() -> None:
    """google/automl FusedMBConvBlock: SE, then the k×k convolution that changes the width, then the activation."""
    stage = replace(fused(24, 2, stride=1, expand_ratio=1), se_ratio=0.25)
    block, second = StageModule(find_variant("b0"), stage, 16, "same").block.eval()
    x = torch.randn(2, 16, 8, 8)
    gate = torch.sigmoid(block.se.expand(F.silu(block.se.reduce(x.mean((2, 3), keepdim=True)))))
    expected = F.silu(block.fused.norm(block.fused.conv(x * gate)))
    torch.testing.assert_close(block(x), expected)
    assert block.se.reduce.weight.shape == (4, 16, 1, 1)

    # Without a gradient gates are written in place, but never over the input, which is the residual as well.
    wide = torch.randn(2, 24, 8, 8)
    before = wide.clone()
    with torch.no_grad():
        answer = second(wide)
    torch.testing.assert_close(wide, before)
    torch.testing.assert_close(answer, second(wide))
