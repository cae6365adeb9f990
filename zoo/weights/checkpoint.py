"""Owns the checkpoint file: safetensors whose header says all that is needed to use it; no training, no export."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file

from zoo import __version__
from zoo.errors import CheckpointError
from zoo.files import replacing, writing_errors
from zoo.model.build import build_network
from zoo.model.network import Network
from zoo.model.spec import Padding, Preprocessing, Variant

FORMAT = "zoo-checkpoint-1"


@dataclass(frozen=True, kw_only=True)
class Checkpoint:
    """A network's identity card, stored in the safetensors header.

    `recipe` is the resolved recipe as plain JSON types ({} for imported weights); `provenance` says where the
    weights come from: data, seed, versions, accuracy.
    """

    variant: Variant
    classes: tuple[str, ...]
    preprocessing: Preprocessing
    padding: Padding
    recipe: Mapping[str, Any] = field(default_factory=dict)
    provenance: Mapping[str, Any] = field(default_factory=dict)

    def to_dict(self) -> dict[str, Any]:
        """Return plain JSON types."""
        return {
            "format": FORMAT,
            "zoo_version": __version__,
            "variant": self.variant.to_dict(),
            "classes": list(self.classes),
            "preprocessing": self.preprocessing.to_dict(),
            "padding": self.padding,
            "recipe": dict(self.recipe),
            "provenance": dict(self.provenance),
        }

    @classmethod
    def from_dict(cls, fields: Mapping[str, Any]) -> Checkpoint:
        """Read what `to_dict` wrote."""
        return cls(
            variant=Variant.from_dict(fields["variant"]),
            classes=tuple(fields["classes"]),
            preprocessing=Preprocessing.from_dict(fields["preprocessing"]),
            padding=fields["padding"],
            recipe=fields["recipe"],
            provenance=fields["provenance"],
        )


def save_checkpoint(path: Path, state: Mapping[str, torch.Tensor], card: Checkpoint) -> None:
    """Write weights and card, whole or not at all. Weights are stored as float32, contiguous, on the CPU."""
    tensors = {key: value.detach().to("cpu").contiguous() for key, value in state.items()}
    with replacing(path) as temporary, writing_errors(SafetensorError):
        save_file(tensors, temporary, metadata={"zoo": json.dumps(card.to_dict())})


def read_card(path: Path) -> Checkpoint:
    """Read a checkpoint's card without its weights.

    Raises:
        CheckpointError: missing, truncated, or not written by this project.
    """
    return _read(path, weights=False)[0]


def load_checkpoint(path: Path) -> tuple[Network, Checkpoint]:
    """Rebuild the network of a checkpoint, in evaluation mode on the CPU.

    Raises:
        CheckpointError: as `read_card`, or the weights do not fit the row in the header.
    """
    card, state = _read(path, weights=True)
    model = build_network(card.variant, len(card.classes), padding=card.padding)
    load_state(model, state, str(path))
    return model.eval(), card


def load_state(model: torch.nn.Module, state: Mapping[str, torch.Tensor], name: str) -> None:
    """Load weights that must fit exactly.

    Raises:
        CheckpointError: lists missing, unknown and misshapen keys, at most five of each.
    """
    said = describe_misfit(model.state_dict(), state)
    if said:
        raise CheckpointError(f"{name} does not fit the network: {said}.", "Is it another variant's file?")
    model.load_state_dict(state)


def describe_misfit(expected: Mapping[str, torch.Tensor], state: Mapping[str, torch.Tensor]) -> str:
    """Name the missing, unknown and misshapen keys of `state`, at most five of each; "" where it fits."""
    misshapen = [
        f"{key} {tuple(state[key].shape)} instead of {tuple(expected[key].shape)}"
        for key in expected
        if key in state and state[key].shape != expected[key].shape
    ]
    wrong = {
        "missing": sorted(expected.keys() - state.keys()),
        "unknown": sorted(state.keys() - expected.keys()),
        "misshapen": misshapen,
    }
    return "; ".join(f"{len(keys)} {kind} ({', '.join(keys[:5])})" for kind, keys in wrong.items() if keys)


def _read(path: Path, *, weights: bool) -> tuple[Checkpoint, dict[str, torch.Tensor]]:
    if not path.is_file():
        raise CheckpointError(f"There is no checkpoint {path}.", "`zoo train MODEL` writes one.")
    try:
        with safe_open(path, framework="pt") as file:
            metadata = file.metadata() or {}
            state = {key: file.get_tensor(key) for key in file.keys()} if weights else {}  # noqa: SIM118
    except (SafetensorError, OSError) as error:
        raise CheckpointError(
            f"{path} is truncated or not a safetensors file: {error}.", "Copy or train it again."
        ) from error
    try:
        fields = json.loads(metadata["zoo"])
        if fields["format"] != FORMAT:
            raise CheckpointError(f"{path} has the format {fields['format']!r}; this version reads {FORMAT!r}.")
        return Checkpoint.from_dict(fields), state
    except (KeyError, TypeError, ValueError) as error:
        raise CheckpointError(
            f"{path} carries no readable zoo header.", "Only checkpoints written by `zoo train` or `zoo import` do."
        ) from error
