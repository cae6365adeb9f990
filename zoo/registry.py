"""Owns what MODEL means on a command line: a checkpoint's path, an id with a run, or an id with published weights."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from zoo.errors import CheckpointError
from zoo.spec import Variant
from zoo.variants import find_variant

if TYPE_CHECKING:
    from zoo.checkpoint import Checkpoint
    from zoo.model import EfficientNet

CHECKPOINT_SUFFIX = ".safetensors"


def run_folder(variant: str, out: Path | None = None) -> Path:
    """Where `zoo train` writes and later commands look: runs/MODEL."""
    return out or Path("runs") / variant


def checkpoint_path(model: str) -> Path | None:
    """The checkpoint file MODEL stands for, or None where it has only published weights or none at all.

    A path is taken as it is, a run folder means the checkpoint in it, an id means runs/ID/checkpoint.safetensors.

    Raises:
        UnknownNameError: neither a file nor a known id.
    """
    path = Path(model)
    if path.suffix == CHECKPOINT_SUFFIX:
        return path
    if path.is_dir() and (path / "checkpoint.safetensors").is_file():
        return path / "checkpoint.safetensors"
    of_run = run_folder(find_variant(model).id) / "checkpoint.safetensors"
    return of_run if of_run.is_file() else None


def find_model_variant(model: str) -> Variant:
    """The row of MODEL: of a checkpoint's header, or of the table.

    Raises:
        UnknownNameError: neither a file nor a known id.
        CheckpointError: a file that is not a checkpoint of ours.
    """
    from zoo.checkpoint import read_card

    path = Path(model)
    return read_card(path).variant if path.suffix == CHECKPOINT_SUFFIX else find_variant(model)


def load_model(model: str) -> tuple[EfficientNet, Checkpoint, str]:
    """Load MODEL with trained weights: its network in evaluation mode, its card, and where they came from.

    Raises:
        CheckpointError: nothing trained and nothing published; never silently random weights.
        UnknownNameError, MissingCapabilityError: as `checkpoint_path` and `load_published`.
    """
    from zoo.checkpoint import load_checkpoint
    from zoo.pretrained import load_published
    from zoo.weights import weights_of

    path = checkpoint_path(model)
    if path:
        return *load_checkpoint(path), str(path)
    variant = find_variant(model)
    for row in weights_of(variant.id):
        return *load_published(row), row.id
    raise CheckpointError(
        f"{variant.id} has no trained weights: there is no {run_folder(variant.id) / 'checkpoint.safetensors'}.",
        f"`zoo train {variant.id}` makes one; or pass the path of a checkpoint.",
    )
