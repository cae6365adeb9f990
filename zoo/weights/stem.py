"""Owns how RGB's weights begin on pictures of other planes: the first convolution is adapted; nothing is trained.

Asking whether they can loads no framework.
"""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

from zoo.errors import CheckpointError
from zoo.model.spec import COLOR_ORDERS, RGB, Variant
from zoo.weights.checkpoint import Checkpoint

if TYPE_CHECKING:
    from torch import Tensor

    from zoo.model.network import Network


def stem_key(variant: Variant) -> str:
    """Our key of the first convolution's weight, (out, C, k, k): the one tensor that knows the number of planes."""
    return "backbone.conv1.weight" if variant.is_resnet else "stem.conv.weight"


def check_adaptable(variant: Variant, channels: int, label: str) -> None:
    """Refuse weights for other planes than their own, unless they are RGB's.

    Raises:
        CheckpointError: says which they take.
    """
    if variant.channels not in (channels, RGB):
        theirs, wanted = COLOR_ORDERS[variant.channels], COLOR_ORDERS[channels]
        raise CheckpointError(
            f"The weights of {label} take {theirs} pictures, and {wanted} ones are asked for.",
            "Only weights of RGB pictures are adapted to others: begin from such, or leave --channels out.",
        )


def adapt_stem(weight: Tensor, channels: int) -> Tensor:
    """The first convolution (out, 3, k, k) for `channels` planes, as timm's `adapt_input_conv` makes it.

    For one plane the three are summed: grey pictures get the answers they got as RGB, where mean and std are the same
    for all three. For more they are repeated and scaled by 3 / C, so that the sum keeps its size: four planes have the
    weights of red, green, blue and red, times 0.75.
    Source: huggingface/pytorch-image-models timm/models/_manipulate.py.
    """
    if channels == 1:
        return weight.sum(dim=1, keepdim=True)
    repeated = weight.repeat(1, -(-channels // RGB), 1, 1)[:, :channels]
    return repeated * (RGB / channels)


def for_channels(network: Network, card: Checkpoint, channels: int) -> tuple[Network, Checkpoint]:
    """A network with RGB's weights for pictures of `channels` planes, and its card; itself where it has as many.

    Raises:
        CheckpointError: as `check_adaptable`.
    """
    import torch

    from zoo.model.build import build_network

    if card.variant.channels == channels:
        return network, card
    check_adaptable(card.variant, channels, card.variant.id)
    card = replace(
        card, variant=card.variant.with_channels(channels), preprocessing=card.preprocessing.with_channels(channels)
    )
    state, key = dict(network.state_dict()), stem_key(card.variant)
    state[key] = adapt_stem(state[key], channels)
    with torch.device("meta"):  # nothing is drawn: the tensors become the parameters
        adapted = build_network(card.variant, len(card.classes), padding=card.padding)
    adapted.load_state_dict(state, assign=True)
    return adapted.train(network.training), card
