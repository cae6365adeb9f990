"""Owns how files are written (whole, or not at all) and what JSON may hold. It does not know what files are for."""

from __future__ import annotations

import errno
import hashlib
import json
import math
import os
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from functools import cache
from pathlib import Path
from tempfile import NamedTemporaryFile, TemporaryFile
from typing import Any

from zoo.errors import ZooError
from zoo.visible import json_escaped

# What the system says where a disk, a quota or a limit of file sizes is full.
FULL_DISK = frozenset((errno.ENOSPC, errno.EDQUOT, errno.EFBIG))


@contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """Yield a temporary path in the same folder; rename it to `path` on success, remove it on failure.

    Raises:
        ZooError: the folder cannot be made or written to, or the disk is full; an earlier file stays as it was.
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
    except OSError as error:
        kept = " The file that is there is the earlier one." if path.exists() else ""
        raise ZooError(
            f"Cannot write {path}: {error.strerror or error}.{kept}", "Make room, or choose another place with --out."
        ) from error
    finally:
        temporary.unlink(missing_ok=True)


@contextmanager
def writing_errors(*kinds: type[Exception]) -> Iterator[None]:
    """Turn a library's own errors of a failed write into an OSError, which `replacing` translates.

    Where the system's own error is among their causes, it is that one: torch says "unexpected pos 64 vs 0" after it.
    """
    try:
        yield
    except kinds as error:
        raise _system_error(error) or OSError(errno.EIO, str(error)) from error


def _system_error(error: BaseException | None) -> OSError | None:
    """The OSError that led to an error."""
    while error and not isinstance(error, OSError):
        error = error.__cause__ or error.__context__
    return error if isinstance(error, OSError) else None


def check_temporary_folder() -> None:
    """Check, before long work, that the system's folder for temporary files can be written to; torch needs it.

    Raises:
        ZooError: none can.
    """
    try:
        tempfile.gettempdir()
    except FileNotFoundError as error:
        raise ZooError(
            f"There is no place for temporary files: {error.strerror}.",
            "Make room in /tmp, or name a folder with room in TMPDIR.",
        ) from error


def replace_file(made: Path, path: Path) -> Path:
    """Rename `made` to `path`, replacing a file of that name; return `path`.

    Raises:
        ZooError: a folder is in the way, or the disk refuses.
    """
    try:
        return made.replace(path)
    except OSError as error:
        raise ZooError(
            f"Cannot write {path}: {error.strerror}.", "Move what is there, or choose another --out."
        ) from error


def existing_part(folder: Path) -> Path:
    """The folder, or the nearest one above it that is there."""
    return next(path for path in (folder, *folder.absolute().parents) if path.exists())


def check_folder(folder: Path, *, option: str = "--out") -> None:
    """Check, before long work, that a folder for its results can be written to or made. This leaves nothing behind.

    Raises:
        ZooError: it cannot.
    """
    place = existing_part(folder)
    try:
        with TemporaryFile(dir=place):  # rights are not all: /proc and a full disk refuse what they seem to allow
            pass
    except OSError as error:
        where = "" if place == folder else f": {place}"
        raise ZooError(
            f"Cannot write to {folder}{where}: {error.strerror}.", f"Choose another with {option}."
        ) from error


@contextmanager
def new_folders(folder: Path) -> Iterator[None]:
    """Make a folder and those above it; of these the block leaves none that is new and empty.

    Raises:
        OSError: it cannot be made.
    """
    new = [path for path in (folder, *folder.parents) if not path.exists()]
    try:
        folder.mkdir(parents=True, exist_ok=True)
        yield
    finally:
        for path in new:  # the innermost first; what is not empty stays
            with suppress(OSError):
                path.rmdir()


def write_bytes(path: Path, data: bytes) -> None:
    """Write `data` to `path` whole or not at all."""
    with replacing(path) as temporary:
        temporary.write_bytes(data)


def write_text(path: Path, text: str) -> None:
    """Write UTF-8 `text` to `path` whole or not at all. Bytes of file names that are no text are written as escapes."""
    write_bytes(path, text.encode(errors="backslashreplace"))


def write_json(path: Path, value: Any) -> None:
    """Write `value` as indented JSON with a final newline, whole or not at all.

    Raises:
        ZooError: as `json_text`, or the file cannot be written.
    """
    write_text(path, json_text(value) + "\n")


def json_text(value: Any, *, indent: int | None = 2) -> str:
    """Plain JSON types as JSON; on one line where `indent` is None.

    Raises:
        ZooError: a number is NaN or infinite: JSON has no word for them, and other languages refuse to read them.
    """
    try:
        text = _encoder(indent).encode(value)
    except ValueError:
        for place, number in _not_finite(value, ""):
            raise ZooError(
                f"{place or 'The value'} is {number}, and JSON has no such number.",
                "Something went wrong before: find out where the number comes from.",
            ) from None
        raise
    return json_escaped(text)


@cache
def _encoder(indent: int | None) -> json.JSONEncoder:
    """What `json.dumps` would make anew for each value."""
    return json.JSONEncoder(indent=indent, ensure_ascii=False, allow_nan=False)


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
    """A file's SHA-256 in lower-case hexadecimal; the file is never in memory as a whole."""
    with path.open("rb") as handle:
        return hashlib.file_digest(handle, "sha256").hexdigest()
