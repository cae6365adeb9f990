"""Networks that train rounded: their keys, their steps, their ranges."""

from __future__ import annotations

from copy import deepcopy

import pytest
import torch
from torch import nn

from zoo.errors import ZooError
from zoo.model.build import build_network
from zoo.model.fake_quantize import (
    FakeQuantize,
    fake_quantize,
    float_state,
    least_error_range,
    ranges_of,
    rounded_weight,
)
from zoo.model.network import Network
from zoo.model.variants import find_variant


@pytest.fixture
def rounded() -> Network:
    torch.manual_seed(0)
    network = build_network(find_variant("tiny"), 10)
    fake_quantize(network)
    return network


def test_a_rounding_network_has_the_keys_of_a_float_one_and_its_ranges(rounded: Network) -> None:
    plain = build_network(find_variant("tiny"), 10)
    state = float_state(rounded, rounded.state_dict())
    assert {key: value.shape for key, value in state.items()} == {
        key: value.shape for key, value in plain.state_dict().items()
    }
    extra = set(rounded.state_dict()) - set(state)
    assert extra and {key.rpartition(".")[2] for key in extra} == {"low", "high"}
    plain.load_state_dict(state)
    assert float_state(plain, plain.state_dict()).keys() == state.keys()


def test_before_the_first_batch_nothing_is_rounded_but_weights_and_there_are_no_ranges(rounded: Network) -> None:
    with pytest.raises(ZooError, match="there are no ranges"):
        ranges_of(rounded)
    rounding = FakeQuantize("x").eval()
    values = torch.randn(50)
    assert rounding(values) is values


def test_a_rounding_follows_the_batches_in_training_and_stays_in_evaluation() -> None:
    torch.manual_seed(0)
    rounding, batch = FakeQuantize("x"), torch.rand(4, 100)
    answered = rounding(batch)
    first = rounding.high.item()
    assert first == pytest.approx(1.0, abs=0.02) and rounding.low.item() == 0.0
    assert len(answered.unique()) <= 256 and (answered - batch).abs().max() <= first / 255 + batch.max() - first
    rounding(3 * batch)
    assert first < rounding.high.item() < 1.1 * first
    kept = rounding.high.item()
    rounding.eval()(9 * batch)
    assert rounding.high.item() == kept


def test_the_gradient_passes_where_nothing_is_clipped() -> None:
    rounding = FakeQuantize("x").eval()
    rounding.low.fill_(-1.0)
    rounding.high.fill_(1.0)
    values = torch.tensor([-3.0, -0.5, 0.3, 5.0], requires_grad=True)
    rounding(values).sum().backward()
    assert values.grad is not None and values.grad.tolist() == [0.0, 1.0, 1.0, 0.0]


def test_rare_values_are_clipped_and_zeros_have_a_range() -> None:
    torch.manual_seed(0)
    values = torch.randn(100_000)
    low, high = least_error_range(values)
    assert values.min() < low < -2.0 and 2.0 < high < values.max()
    assert least_error_range(torch.zeros(10))[1] > 0


def test_a_norm_behind_a_weight_does_not_change_its_steps() -> None:
    torch.manual_seed(0)
    weight, gain = torch.randn(6, 3, 3, 3), torch.rand(6)[:, None, None, None] + 0.1
    assert torch.allclose(rounded_weight(weight * gain), rounded_weight(weight) * gain, rtol=1e-5, atol=1e-7)
    scale = weight.flatten(1).abs().amax(1) / 127
    steps = rounded_weight(weight) / scale[:, None, None, None]
    assert torch.allclose(steps, steps.round(), atol=1e-3) and steps.abs().max().round() == 127
    assert rounded_weight(torch.zeros(2, 3)).eq(0).all()


def test_a_copy_of_a_network_has_roundings_of_its_own(rounded: Network) -> None:
    average = deepcopy(rounded).eval()
    rounded.train()(torch.randn(2, 3, 32, 32))
    assert all(low < high or high > 0 for low, high in ranges_of(rounded).values())
    with pytest.raises(ZooError):
        ranges_of(average)
    average.train()(torch.randn(2, 3, 32, 32))
    assert ranges_of(average).keys() == ranges_of(rounded).keys() and ranges_of(average) != ranges_of(rounded)


def test_every_layer_of_a_network_is_rounded(rounded: Network) -> None:
    layers = [module for module in rounded.modules() if isinstance(module, nn.Conv2d | nn.Linear)]
    assert layers and all(type(module).__name__.startswith("Rounded") for module in layers)


def test_a_resnet_is_refused() -> None:
    with pytest.raises(ZooError, match="no EfficientNet"):
        fake_quantize(build_network(find_variant("resnet50"), 3))
