"""Owns the checkpoint file: safetensors whose header says all that is needed to use it; no training, no export.

Reading a header loads no framework.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Self

from safetensors import SafetensorError, safe_open

from zoo import __version__
from zoo.errors import CheckpointError, RowError
from zoo.files import replacing, writing_errors
from zoo.model.spec import Card, Padding, Preprocessing, Thresholds, Variant
from zoo.rows import Row, Text, Within

if TYPE_CHECKING:
    import torch

    from zoo.model.network import Network

FORMAT = "zoo-checkpoint-1"


@dataclass(frozen=True, kw_only=True)
class TrainedRange(Row):
    """The range low ≤ 0 ≤ high that a network of `zoo train --qat` learned for a tensor, named after its module."""

    point: Text
    low: Annotated[float, Within(high=0)]
    high: Annotated[float, Within(low=0)]

    @classmethod
    def of(cls, ranges: Mapping[str, tuple[float, float]]) -> tuple[Self, ...]:
        """The rows of what `zoo.model.fake_quantize.ranges_of` returns."""
        return tuple(cls(point=point, low=low, high=high) for point, (low, high) in ranges.items())


@dataclass(frozen=True, kw_only=True)
class Checkpoint(Card):
    """What the header of a checkpoint says about its network: the card.

    `recipe` is the resolved recipe as plain JSON types ({} for imported weights); `provenance` says where the
    weights come from: data, seed, versions, accuracy. `thresholds` (K,), of a network that answers several labels a
    picture, are the scores (sigmoid) from which on each class is answered; None of one that answers one class.
    `ranges` are those of its tensors that it was trained with for 8 bits; none, if it was not.
    """

    written_too = ("format", "zoo_version", "task")

    variant: Variant
    classes: tuple[str, ...]
    preprocessing: Preprocessing
    padding: Padding
    recipe: Mapping[str, Any] = field(default_factory=dict)
    provenance: Mapping[str, Any] = field(default_factory=dict)
    thresholds: Thresholds = None
    ranges: tuple[TrainedRange, ...] = ()

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.variant.channels != self.preprocessing.channels:
            raise RowError(
                f"The network takes {self.variant.preprocessing.planes}, pictures have {self.preprocessing.planes}.",
                "Both are said by `color_order`, `mean` and `std`.",
            )

    def to_dict(self) -> dict[str, Any]:
        """Return plain JSON types; without ranges they are those that earlier versions read too."""
        fields = super().to_dict()
        if not self.ranges:
            del fields["ranges"]
        return fields

    @property
    def format(self) -> str:
        """Which fields the header has."""
        return FORMAT

    @property
    def zoo_version(self) -> str:
        """The version that writes the header."""
        return __version__


def save_checkpoint(path: Path, state: Mapping[str, torch.Tensor], card: Checkpoint) -> None:
    """Write weights and card, whole or not at all. Weights are stored as float32, contiguous, on the CPU."""
    from safetensors.torch import save_file

    tensors = {key: value.detach().to("cpu").contiguous() for key, value in state.items()}
    with replacing(path) as temporary, writing_errors(SafetensorError):
        save_file(tensors, temporary, metadata={"zoo": json.dumps(card.to_dict())})


def read_card(path: Path) -> Checkpoint:
    """Read a checkpoint's card without its weights.

    Raises:
        CheckpointError: missing, truncated, or not written by this project.
    """
    if not path.is_file():
        raise CheckpointError(f"There is no checkpoint {path}.", "`zoo train MODEL` writes one.")
    with _reading(path), safe_open(path, framework="numpy") as file:
        metadata = file.metadata() or {}
    try:
        fields = json.loads(metadata["zoo"])
        if fields["format"] != FORMAT:
            raise CheckpointError(f"{path} has the format {fields['format']!r}; this version reads {FORMAT!r}.")
        return Checkpoint.from_dict(fields)
    except (KeyError, TypeError, ValueError) as error:
        raise CheckpointError(
            f"{path} carries no readable zoo header.", "Only checkpoints written by `zoo train` or `zoo import` do."
        ) from error


def load_checkpoint(path: Path) -> tuple[Network, Checkpoint]:
    """Rebuild the network of a checkpoint, in evaluation mode on the CPU.

    Raises:
        CheckpointError: as `read_card`, or the weights do not fit the row in the header.
    """
    from safetensors.torch import load_file

    from zoo.model.build import build_network

    card = read_card(path)
    with _reading(path):
        state = load_file(path)
    model = build_network(card.variant, len(card.classes), padding=card.padding)
    load_state(model, state, str(path))
    return model.eval(), card


def load_state(model: torch.nn.Module, state: Mapping[str, torch.Tensor], name: str) -> None:
    """Load weights that must fit exactly.

    Raises:
        CheckpointError: lists missing, unknown and misshapen keys, at most five of each.
    """
    misfit = describe_misfit(model.state_dict(), state)
    if misfit:
        raise CheckpointError(f"{name} does not fit the network: {misfit}.", "Is it another variant's file?")
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


@contextmanager
def _reading(path: Path) -> Iterator[None]:
    try:
        yield
    except (SafetensorError, OSError) as error:
        raise CheckpointError(
            f"{path} is truncated or not a safetensors file: {error}.", "Copy or train it again."
        ) from error
