"""Owns fetching published weights; which there are, where they are kept, and loading them are its neighbours'.

A file is written beside its place as `….part`, is compared with the published SHA-256, and only then gets its name. The
next download continues where one was cut off.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from urllib3.exceptions import HTTPError

from zoo.errors import DownloadError, ZooError
from zoo.files import sha256_of
from zoo.http import Response, fetch
from zoo.rows import Row
from zoo.weights.cache import CACHE_VARIABLE, cache_folder, cache_path, check_published, file_of, missing_weights
from zoo.weights.spec import Weights

# Somebody waits for it, and learns after seconds that a server is away.
PULL_ATTEMPTS = 3
CHUNK_BYTES = 1 << 20
# Told after every chunk: bytes there so far, and bytes in all where the server says.
OnBytes = Callable[[int, int | None], None]


@dataclass(frozen=True, kw_only=True)
class Pulled(Row):
    """Published weights that are on this machine: their file, its whole SHA-256, and whether it had to be fetched."""

    path: Path
    sha256: str
    fetched: bool


def pull(row: Weights, on_bytes: OnBytes = lambda done, total: None) -> Pulled:
    """Fetch published weights into the cache, unless they are there and whole.

    Raises:
        MissingCapabilityError, CheckpointError: they come with a package, which is not installed, or has another file.
        ZooError: the cache cannot be written.
        DownloadError: unreachable, refused, cut off, or not the published file. Nothing half is left in place.
    """
    there = file_of(row)
    if there:
        sha256 = sha256_of(there)
        if row.package:
            check_published(row, there, sha256)
        if sha256.startswith(row.sha256_prefix):
            return Pulled(path=there, sha256=sha256, fetched=False)
    elif row.package:
        raise missing_weights(row)
    path = cache_path(row)
    return Pulled(path=path, sha256=download(row.url, path, row.sha256_prefix, on_bytes), fetched=True)


def download(url: str, path: Path, sha256_prefix: str, on_bytes: OnBytes = lambda done, total: None) -> str:
    """Fetch `url` to `path`, from where an earlier download was cut off, and return its SHA-256.

    Raises:
        ZooError: `path` cannot be written.
        DownloadError: as `pull`.
    """
    part = path.with_name(f"{path.name}.part")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        _fetch_rest(url, part, on_bytes)
        sha256 = sha256_of(part)
        if not sha256.startswith(sha256_prefix):
            part.unlink()
            raise DownloadError(
                f"{url} is not the published file: its SHA-256 begins with {sha256[: len(sha256_prefix)]}, "
                f"published is {sha256_prefix}.",
                "Nothing was kept. Something on the way changes downloads, or the file was replaced.",
            )
        part.replace(path)
    except OSError as error:
        raise ZooError(
            f"Cannot write {path}: {error.strerror}.", f"Choose another place with {CACHE_VARIABLE}."
        ) from error
    return sha256


def _fetch_rest(url: str, part: Path, on_bytes: OnBytes) -> None:
    """Append to `part` what it lacks of `url`."""
    done = part.stat().st_size if part.is_file() else 0
    name = url.rpartition("/")[2]
    elsewhere = (
        f"Fetch it on another machine and put it into {cache_folder() / 'weights'} as {name}; it is checked there too."
    )

    def take(response: Response) -> None:
        if response.status == 416 and done:
            return  # the server has nothing after what is there: it is whole, or of another file
        if response.status not in (200, 206):
            raise DownloadError(f"{url} answers {response.status} {response.reason}.", elsewhere)
        _append(response, url, part, done if response.status == 206 else 0, on_bytes)

    try:
        fetch(url, take, headers={"Range": f"bytes={done}-"} if done else None, attempts=PULL_ATTEMPTS)
    except DownloadError as error:
        raise DownloadError(error.problem, error.hint or elsewhere) from error


def _append(response: Response, url: str, part: Path, done: int, on_bytes: OnBytes) -> None:
    """Write an answer behind the first `done` bytes of `part`."""
    left = response.length_remaining
    total = None if left is None else done + left
    with part.open("ab" if done else "wb") as file:
        on_bytes(done, total)
        try:
            while chunk := response.read(CHUNK_BYTES, decode_content=False):
                file.write(chunk)
                done += len(chunk)
                on_bytes(done, total)
        except HTTPError as error:
            of = "" if total is None else f" of {total:,}"
            raise DownloadError(
                f"{url} was cut off after {done:,}{of} bytes.", "The same command continues there."
            ) from error
