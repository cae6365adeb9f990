"""Owns what MODEL means on a command line: a path (checkpoint, run folder, row file) or an id (row, weights)."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from zoo.errors import CheckpointError, UnknownNameError
from zoo.model.spec import Variant
from zoo.model.variants import VARIANTS, find_variant
from zoo.weights.cache import file_of
from zoo.weights.origins import ORIGINS
from zoo.weights.spec import Weights
from zoo.weights.table import find_weights, is_weights_id, weights_of

if TYPE_CHECKING:
    from zoo.model.network import Network
    from zoo.weights.checkpoint import Checkpoint

CHECKPOINT_SUFFIX = ".safetensors"
ROW_SUFFIX = ".toml"


def run_folder(variant: str, out: Path | None = None) -> Path:
    """Where `zoo train` writes and later commands look: runs/MODEL."""
    return out or Path("runs") / variant


def checkpoint_path(model: str) -> Path | None:
    """The checkpoint file MODEL stands for, or None where it has only published weights or none at all.

    A path is taken as it is, a run folder means the checkpoint in it, an id or a row file means
    runs/ID/checkpoint.safetensors; the id of published weights never means a run.

    Raises:
        UnknownNameError: neither a file nor a known id. DataError: a row file that is not one.
    """
    _check_name(model)
    path = Path(model)
    if path.suffix == CHECKPOINT_SUFFIX:
        return path
    if path.is_dir() and (path / "checkpoint.safetensors").is_file():
        return path / "checkpoint.safetensors"
    if is_weights_id(model):
        return None
    if not any(model in (row.id, row.name) for row in VARIANTS) and path.suffix != ROW_SUFFIX:
        own = run_folder(model) / "checkpoint.safetensors"  # of a network of one's own
        if own.is_file():
            return own
    of_run = run_folder(_find_row(model).id) / "checkpoint.safetensors"
    return of_run if of_run.is_file() else None


def find_model_variant(model: str) -> Variant:
    """The row of MODEL: of a checkpoint's header, of the table, of a row file, or of published weights' network.

    Raises:
        UnknownNameError: neither a file nor a known id.
        CheckpointError, DataError: a file that is not a checkpoint or a row of ours.
    """
    _check_name(model)
    path = Path(model)
    if path.is_dir():
        path = path / "checkpoint.safetensors"
    if path.suffix == CHECKPOINT_SUFFIX:
        from zoo.weights.checkpoint import read_card

        return read_card(path).variant
    if is_weights_id(model):
        row = find_weights(model)
        return replace(find_variant(row.variant), batch_norm_eps=ORIGINS[row.origin].eps_of(row.variant))
    return _find_row(model)


def _check_name(model: str) -> None:
    """Refuse an empty name, which would be the current folder, and an address, which is no model's name."""
    if not model.strip():
        raise UnknownNameError(
            "The model's name is empty.", "Is the variable set? `zoo list` shows the names there are."
        )
    if "://" in model:
        raise UnknownNameError(
            "The model's name is an address; expected an id, a checkpoint, a run folder or a row file.",
            "Addresses of pictures go to --data. `zoo list` shows the ids, `zoo pull` fetches published weights.",
        )


def _find_row(model: str) -> Variant:
    if Path(model).suffix != ROW_SUFFIX:
        return find_variant(model)
    from zoo.model.row_files import check_own_id, load_row

    row = load_row(Path(model))
    check_own_id(Path(model), row.id)
    return row


def load_model(model: str) -> tuple[Network, Checkpoint, str]:
    """Load MODEL with trained weights: its network in evaluation mode, its card, and where they came from.

    For an id, in this order: the checkpoint of its run, published weights that were pulled, published weights of an
    installed package.

    Raises:
        CheckpointError: nothing trained and nothing published; never silently random weights.
        UnknownNameError, MissingCapabilityError: as `checkpoint_path` and `load_published`.
    """
    from zoo.weights.bring_in import load_published
    from zoo.weights.checkpoint import load_checkpoint

    path = checkpoint_path(model)
    if path:
        return *load_checkpoint(path), str(path)
    row = find_weights(model) if is_weights_id(model) else _at_hand(_find_row(model), model)
    return *load_published(row), row.id


def weights_file(model: str) -> Path | None:
    """The file that `load_model` reads the weights of MODEL from; None where they are not on this machine.

    Raises:
        CheckpointError, UnknownNameError: as `load_model`.
    """
    path = checkpoint_path(model)
    if path:
        return path
    return file_of(find_weights(model) if is_weights_id(model) else _at_hand(_find_row(model), model))


def _at_hand(variant: Variant, model: str) -> Weights:
    """The published weights of a network to use: those that were pulled, else those of a package."""
    rows = sorted(weights_of(variant.id), key=lambda row: bool(row.package))
    there = [row for row in rows if file_of(row)]
    packaged = [row for row in rows if row.package]
    if there or packaged:
        return (there or packaged)[0]
    missing = run_folder(variant.id) / "checkpoint.safetensors"
    fetch = f"`zoo pull {variant.id}` fetches published ones, " if rows else ""
    raise CheckpointError(
        f"{variant.id} has no trained weights: there is no {missing}.",
        f"{fetch}`zoo train {model}` makes one; or pass the path of a checkpoint.",
    )
