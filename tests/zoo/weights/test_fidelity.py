"""Every network of torchvision and timm: the same weights give the same logits here, and go back bit for bit."""

from __future__ import annotations

from dataclasses import replace

import pytest
import timm
import torch
import torchvision
from torch import Tensor, nn

from zoo.model.variants import find_variant
from zoo.weights.checkpoint import Checkpoint
from zoo.weights.convert import to_network, to_origin
from zoo.weights.origins import TIMM_ORIGIN, TORCHVISION_ORIGIN, Origin

# Above this many parameters a network counts as slow; the others together take seconds.
LARGE = {"m", "l", "xl", "v1-b5", "v1-b6", "v1-b7"}
# One even and one odd side: "same" padding differs between them at every stride, in all five halvings.
SIZES = (64, 65)


def seeded_state(model: nn.Module, seed: int = 0) -> dict[str, Tensor]:
    """Random weights under which activations keep their scale, with batch norms far from their initial values."""
    generator = torch.Generator().manual_seed(seed)

    def uniform(shape: torch.Size, low: float, high: float) -> Tensor:
        return torch.empty(shape).uniform_(low, high, generator=generator)

    state = {}
    for key, value in model.state_dict().items():
        if key.endswith("num_batches_tracked"):
            state[key] = torch.randint(1, 10**6, (), generator=generator)
        elif value.ndim > 1:
            bound = (3 / value[0].numel()) ** 0.5  # variance 1 / fan-in
            state[key] = uniform(value.shape, -bound, bound)
        elif key.endswith(("running_var", "weight")):
            state[key] = uniform(value.shape, 0.4, 1.2)
        else:
            state[key] = uniform(value.shape, -0.5, 0.5)
    return state


def made(constructor: str) -> nn.Module:
    """Run the line `zoo convert` prints, on the meta device: shapes, but nothing is drawn or stored yet."""
    with torch.device("meta"):
        network: nn.Module = eval(constructor, {"torchvision": torchvision, "timm": timm})
    return network


NETWORKS = [
    pytest.param(origin, id, id=f"{origin.id}-{id}", marks=[pytest.mark.slow] if id in LARGE else [])
    for origin in (TORCHVISION_ORIGIN, TIMM_ORIGIN)
    for id in origin.networks
]


def test_the_issues_networks_are_all_here() -> None:
    assert set(TORCHVISION_ORIGIN.networks) == {"s", "m", "l", *(f"v1-b{i}" for i in range(8)), "resnet50", "resnet152"}
    assert set(TIMM_ORIGIN.networks) == {
        *("s", "m", "l", "xl", "b0", "b1", "b2", "b3"),
        *(f"v1-b{i}" for i in range(8)),
        *(f"lite{i}" for i in range(5)),
    }


@pytest.mark.parametrize(("origin", "id"), NETWORKS)
def test_the_same_weights_give_the_same_logits_and_go_back_unchanged(origin: Origin, id: str) -> None:
    constructor = origin.constructor.format(network=origin.networks[id], num_classes=1000)
    reference = made(constructor)
    state = seeded_state(reference)
    reference.load_state_dict(state, assign=True)
    reference.eval()
    assert {layer.eps for layer in reference.modules() if isinstance(layer, nn.BatchNorm2d)} == {origin.eps_of(id)}
    variant = replace(find_variant(id), batch_norm_eps=origin.eps_of(id))

    ours, num_classes = to_network(state, variant, origin, name="seeded")

    assert num_classes == 1000
    for size in SIZES:
        pictures = torch.randn(1, 3, size, size, generator=torch.Generator().manual_seed(size))
        with torch.inference_mode():
            expected, got = reference(pictures), ours(pictures)
        scale = expected.abs().max().item()
        assert 0.1 < scale < 1e3  # neither dead nor exploded: the comparison means something
        # The other padding is off by a hundredth and more at 64 px; an epsilon that is 10 % off, by 1e-4.
        assert (got - expected).abs().max().item() <= 1e-4 * scale

    card = Checkpoint(
        variant=variant, classes=("x",) * 1000, preprocessing=variant.preprocessing, padding=origin.padding
    )
    back = to_origin(ours, card, origin)
    assert (back.constructor, back.notes) == (constructor, ())
    assert back.tensors.keys() == state.keys()
    assert all(torch.equal(back.tensors[key], value) for key, value in state.items())
