"""Owns what MODEL means on a command line: a path (checkpoint, run folder, row file) or an id (row, weights)."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from zoo.errors import CheckpointError, UnknownNameError
from zoo.model.spec import Variant
from zoo.model.variants import VARIANTS, find_variant
from zoo.weights.cache import file_of
from zoo.weights.mistaken import LISTED, MODEL, no_model
from zoo.weights.origins import ORIGINS
from zoo.weights.spec import Weights
from zoo.weights.stem import check_adaptable
from zoo.weights.table import find_weights, is_weights_id, weights_of

if TYPE_CHECKING:
    from zoo.model.network import Network
    from zoo.weights.checkpoint import Checkpoint

CHECKPOINT_SUFFIX = ".safetensors"
CHECKPOINT_NAME = f"checkpoint{CHECKPOINT_SUFFIX}"  # in a run folder
ROW_SUFFIX = ".toml"


def run_folder(variant: str, out: Path | None = None) -> Path:
    """Where `zoo train` writes and later commands look: runs/MODEL."""
    return out or Path("runs") / variant


def checkpoint_path(model: str, expected: str = MODEL) -> Path | None:
    """The checkpoint file that MODEL stands for; None where it has only published weights, or none at all.

    A path is taken as it is; a run folder means the checkpoint in it; an id or a row file means
    runs/ID/checkpoint.safetensors. The id of published weights never means a run. `expected` is for the error: what
    would have been taken.

    Raises:
        UnknownNameError: neither a file nor a known id.
        DataError: a row file that is not one.
    """
    check_name(model)
    given = _given_checkpoint(model)
    if given or is_weights_id(model):
        return given
    if not _is_listed(model) and Path(model).suffix != ROW_SUFFIX:
        of_own_row = run_folder(model) / CHECKPOINT_NAME  # the id of a row file that need not be there any more
        if of_own_row.is_file():
            return of_own_row
    of_run = run_folder(_find_row(model, expected).id) / CHECKPOINT_NAME
    return of_run if of_run.is_file() else None


def find_model_variant(model: str, channels: int | None = None) -> Variant:
    """The row of MODEL: in a checkpoint's header, in the table, in a row file, or of published weights.

    Args:
        channels: for pictures of so many planes instead of its own.

    Raises:
        UnknownNameError: neither a file nor a known id.
        CheckpointError, DataError: a file that is not a checkpoint or a row of ours; or as `check_adaptable`.
    """
    variant = _find_variant(model)
    if channels is None:
        return variant
    if has_weights(model):
        check_adaptable(variant, channels, model)
    return variant.with_channels(channels)


def _find_variant(model: str) -> Variant:
    check_name(model)
    given = _given_checkpoint(model)
    if given:
        from zoo.weights.checkpoint import read_card

        return read_card(given).variant
    if is_weights_id(model):
        row = find_weights(model)
        return replace(find_variant(row.variant), batch_norm_eps=ORIGINS[row.origin].eps_of(row.variant))
    return _find_row(model)


def has_weights(model: str) -> bool:
    """Whether MODEL names weights to begin from, a checkpoint's or published ones, and not a row alone; loads nothing.

    Whether they are there is another question: `load_model` answers it.
    """
    return Path(model).suffix != ROW_SUFFIX and not any(model in (row.id, row.name) for row in VARIANTS)


def _given_checkpoint(model: str) -> Path | None:
    """The checkpoint that MODEL names by its path, or by that of its run folder."""
    path = Path(model)
    if path.suffix == CHECKPOINT_SUFFIX:
        return path
    in_folder = path / CHECKPOINT_NAME
    return in_folder if in_folder.is_file() else None


def check_name(model: str) -> None:
    """Refuse an empty name, which would mean the current folder, and an address, which names no model."""
    if not model.strip():
        raise UnknownNameError(
            "The model's name is empty.", "Is the variable set? `zoo list` shows the names there are."
        )
    if "://" in model:
        raise UnknownNameError(
            "The model's name is an address; expected an id, a checkpoint, a run folder or a row file.",
            "Addresses of pictures go to --data. `zoo list` shows the ids, `zoo pull` fetches published weights.",
        )


def find_listed(model: str, expected: str = LISTED) -> Variant:
    """A network of the zoo, by its id or its long name.

    Raises:
        UnknownNameError: there is none; says what was given instead.
    """
    check_name(model)
    if not _is_listed(model):
        raise no_model(model, expected)
    return find_variant(model)


def find_published(model: str) -> Weights:
    """Published weights: by their id, or the most accurate ones of a network of the zoo.

    Raises:
        UnknownNameError: there are none.
    """
    return find_weights(model if is_weights_id(model) else find_listed(model).id)


def _is_listed(model: str) -> bool:
    return any(model in (row.id, row.name) for row in VARIANTS)


def _find_row(model: str, expected: str = MODEL) -> Variant:
    if Path(model).suffix != ROW_SUFFIX:
        return find_listed(model, expected)
    from zoo.model.row_files import check_own_id, load_row

    row = load_row(Path(model))
    check_own_id(Path(model), row.id)
    return row


def load_model(model: str) -> tuple[Network, Checkpoint, str]:
    """Load MODEL with trained weights: its network in evaluation mode, its card, and where the weights came from.

    For an id, in this order: the checkpoint of its run, published weights that were pulled, published weights of an
    installed package.

    Raises:
        CheckpointError: nothing is trained and nothing published. Weights are never random.
        UnknownNameError, MissingCapabilityError: as `checkpoint_path` and `load_published`.
    """
    from zoo.weights.bring_in import load_published
    from zoo.weights.checkpoint import load_checkpoint

    path = checkpoint_path(model)
    if path:
        return *load_checkpoint(path), str(path)
    row = _published(model)
    return *load_published(row), row.id


def weights_file(model: str) -> Path | None:
    """The file that `load_model` reads the weights of MODEL from; None where they are not on this machine.

    Raises:
        CheckpointError, UnknownNameError: as `load_model`.
    """
    return checkpoint_path(model) or file_of(_published(model))


def _published(model: str) -> Weights:
    """The published weights that MODEL stands for: those of its id, else those that were pulled, else a package's."""
    if is_weights_id(model):
        return find_weights(model)
    variant = _find_row(model)
    rows = sorted(weights_of(variant.id), key=lambda row: bool(row.package))
    there = [row for row in rows if file_of(row)]
    packaged = [row for row in rows if row.package]
    if there or packaged:
        return (there or packaged)[0]
    missing = run_folder(variant.id) / CHECKPOINT_NAME
    fetch = f"`zoo pull {variant.id}` fetches published ones, " if rows else ""
    raise CheckpointError(
        f"{variant.id} has no trained weights: there is no {missing}.",
        f"{fetch}`zoo train {model}` makes one; or pass the path of a checkpoint.",
    )
