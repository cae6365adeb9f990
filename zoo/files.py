"""Owns how files reach the disk (whole, or not at all) and what JSON may hold; it knows nothing of their contents."""

from __future__ import annotations

import hashlib
import json
import math
import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from tempfile import NamedTemporaryFile
from typing import Any

from zoo.errors import ZooError


@contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """Yield a temporary path in the same folder; rename it over `path` on success, remove it on failure.

    Raises:
        ZooError: the folder cannot be made or written to.
    """
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with NamedTemporaryFile(dir=path.parent, prefix=f".{path.name}.", suffix=path.suffix, delete=False) as handle:
            temporary = Path(handle.name)
    except OSError as error:
        raise ZooError(f"Cannot write {path}: {error.strerror}.", "Choose another place with --out.") from error
    try:
        yield temporary
        umask = os.umask(0)
        os.umask(umask)
        temporary.chmod(0o666 & ~umask)  # NamedTemporaryFile makes private files; results are for sharing
        replace_file(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)


def replace_file(made: Path, path: Path) -> Path:
    """Rename `made` to `path`, over a file of that name; returns `path`.

    Raises:
        ZooError: a folder is in the way, or the disk refuses.
    """
    try:
        return made.replace(path)
    except OSError as error:
        raise ZooError(
            f"Cannot write {path}: {error.strerror}.", "Move what is there, or choose another --out."
        ) from error


def check_folder(folder: Path) -> None:
    """See that a folder for results can be written to or made, before the work whose results go there; makes nothing.

    Raises:
        ZooError: it cannot.
    """
    place = next(path for path in (folder, *folder.absolute().parents) if path.exists())
    if not place.is_dir() or not os.access(place, os.W_OK | os.X_OK):
        raise ZooError(f"Cannot write to {folder}: {place} is no folder or not yours.", "Choose another with --out.")


def write_bytes(path: Path, data: bytes) -> None:
    """Write `data` to `path` whole or not at all."""
    with replacing(path) as temporary:
        temporary.write_bytes(data)


def write_text(path: Path, text: str) -> None:
    """Write UTF-8 `text` to `path` whole or not at all."""
    write_bytes(path, text.encode())


def write_json(path: Path, value: Any) -> None:
    """Write `value` as indented JSON with a final newline, whole or not at all.

    Raises:
        ZooError: as `json_text`, or the file cannot be written.
    """
    write_text(path, json_text(value) + "\n")


def json_text(value: Any, *, indent: int | None = 2) -> str:
    """Plain JSON types as JSON; on one line where `indent` is None.

    Raises:
        ZooError: a number is NaN or infinite: JSON has none of these, and other languages refuse to read them.
    """
    for place, number in _not_finite(value, ""):
        raise ZooError(
            f"{place or 'The value'} is {number}, and JSON has no such number.",
            "Something before this went wrong: look for where the number comes from.",
        )
    return json.dumps(value, indent=indent, ensure_ascii=False, allow_nan=False)


def _not_finite(value: Any, place: str) -> Iterator[tuple[str, float]]:
    """The numbers inside `value` that are not finite, and where they stand: “rows[1].loss”."""
    if isinstance(value, float) and not math.isfinite(value):
        yield place, value
    elif isinstance(value, Mapping):
        for key, member in value.items():
            yield from _not_finite(member, f"{place}.{key}" if place else str(key))
    elif isinstance(value, list | tuple):
        for index, member in enumerate(value):
            yield from _not_finite(member, f"{place}[{index}]")


def sha256_of(path: Path) -> str:
    """Hash a file without reading it into memory at once; lower-case hexadecimal."""
    with path.open("rb") as handle:
        return hashlib.file_digest(handle, "sha256").hexdigest()
