"""Owns which pictures a command line names: files, folders, patterns, addresses, standard input; it decodes none."""

from __future__ import annotations

import glob
import sys
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import urlsplit

from zoo.data.decode import picture_suffixes
from zoo.data.folder import picture_files
from zoo.data.http import OPENING_ATTEMPTS, is_address
from zoo.errors import BrokenPictureError, DataError, DownloadError, ZooError
from zoo.http import Response, fetch
from zoo.visible import visible

STDIN = "-"
# A picture of 50 Mpx, the most that is decoded, has 20 to 100 MB as a file; whatever sends more sends something else.
MAX_BYTES = 100_000_000
# Of one picture from its address, once the server answers: 100 MB at 14 Mbit/s.
MAX_SECONDS = 60.0
_CHUNK_BYTES = 1 << 16
_TYPED = "Expected a file, a folder, a pattern such as 'photos/*.jpg', an address, or - for standard input."


@dataclass(frozen=True)
class Named:
    """One picture as it was named, or the error that stands in its place."""

    name: str
    error: BrokenPictureError | None = None

    def stored(self) -> Path | bytes:
        """Its file, or its bytes where they come from elsewhere.

        Raises:
            BrokenPictureError: there is none, it cannot be fetched, or it is too large.
        """
        if self.error:
            raise self.error
        if self.name == STDIN:
            return _read_stdin()
        if is_address(self.name):
            return fetch_picture(self.name)
        path = Path(self.name)
        if path.exists() and not path.is_file():  # a pipe, such as that of <(…): pictures are read back and forth
            with path.open("rb") as pipe:
                return _not_above(pipe.read(MAX_BYTES + 1), self.name)
        return path


def find_pictures(names: Sequence[str | Path]) -> tuple[tuple[Named, ...], tuple[str, ...]]:
    """Find what is named, in order: of a folder and of a pattern all pictures, of sub-folders too.

    Returns:
        The pictures, and what was left out of folders and patterns because it is none, a line each. What cannot be
        found or read has a place among the pictures, with its error, so that it costs no other its answer.

    Raises:
        DataError: standard input is named twice.
    """
    if sum(str(name) == STDIN for name in names) > 1:
        raise DataError("Standard input is named twice.", "It holds one picture: name - once.")
    left_out: Counter[str] = Counter()
    found: list[Named] = []
    for name in map(str, names):
        try:
            found += _expand(name, left_out)
        except ZooError as error:
            found.append(Named(name, BrokenPictureError(error.problem, error.hint)))
        except OSError as error:  # a name that no system takes
            found.append(Named(name, BrokenPictureError(f"{visible(name)} cannot be read: {error.strerror}.")))
    return tuple(found), tuple(f"{count} {what}" for what, count in left_out.items())


def _expand(name: str, left_out: Counter[str]) -> Iterator[Named]:
    path = Path(name)
    if name == STDIN or is_address(name) or (path.exists() and not path.is_dir()):
        yield Named(name)
    elif path.is_dir():
        yield from _some(name, [file for file, _ in picture_files(path, left_out)], "has no pictures")
    elif glob.has_magic(name):
        matches = [Path(match) for match in sorted(glob.glob(name, recursive=True))]  # noqa: PTH207 - Path.glob takes no absolute one
        if "**" in name:  # it goes into folders itself
            matches = [match for match in matches if not match.is_dir()]
        yield from _some(name, [file for match in matches for file in _of_match(match, left_out)], "matches no picture")
    else:
        raise BrokenPictureError(f"There is no file {visible(name)}.", _TYPED)


def _of_match(match: Path, left_out: Counter[str]) -> list[Path]:
    if match.is_dir():
        return [file for file, _ in picture_files(match, left_out)]
    if match.suffix.lower() in picture_suffixes():
        return [match]
    left_out[f"{visible(match.suffix.lower()) or 'other'} files, which are no pictures"] += 1
    return []


def _some(name: str, files: Sequence[Path], problem: str) -> Iterator[Named]:
    if not files:
        raise BrokenPictureError(f"{visible(name)} {problem}.", _TYPED)
    yield from (Named(str(file)) for file in files)


def fetch_picture(url: str) -> bytes:
    """GET a picture's bytes: at most `MAX_BYTES`, and `MAX_SECONDS` once the server answers.

    Raises:
        BrokenPictureError: no address that can be asked, an answer that is not 200, too large or too slow.
    """
    _check_address(url)

    def take(response: Response) -> bytes:
        if response.status != 200:
            raise BrokenPictureError(f"{url} answers {response.status}.", "Check the address.")
        kind = response.headers.get("Content-Type", "")
        if kind.startswith("text/"):
            raise BrokenPictureError(f"{url} is {kind}, no picture.", "Pass the address of the picture itself.")
        data, began = bytearray(), time.monotonic()
        while chunk := response.read(_CHUNK_BYTES, decode_content=False):
            data += chunk
            _check_size(len(data), url)
            if time.monotonic() - began > MAX_SECONDS:
                raise BrokenPictureError(f"{url} had not arrived after {MAX_SECONDS:g} s.", "Fetch it to a file first.")
        return bytes(data)

    try:
        return fetch(url, take, attempts=OPENING_ATTEMPTS)
    except DownloadError as error:
        raise BrokenPictureError(error.problem, "Check the address and the network.") from error


def _check_address(url: str) -> None:
    try:
        parts = urlsplit(url)
        usable = parts.scheme in ("http", "https") and bool(parts.hostname) and parts.port != 0
    except ValueError:  # a port that is no number, a bracket that is not closed
        usable = False
    if not usable or any(letter.isspace() for letter in url):
        raise BrokenPictureError(f"{visible(url)} is no address that can be asked.", "Expected https://HOST/PATH.")


def _read_stdin() -> bytes:
    if sys.stdin.isatty():
        raise BrokenPictureError("- is standard input, and nothing is sent to it.", "Pipe a picture into the command.")
    data = _not_above(sys.stdin.buffer.read(MAX_BYTES + 1), "Standard input")
    if not data:
        raise BrokenPictureError("Standard input is empty.", "Did the command before it write a picture?")
    return data


def _not_above(data: bytes, name: str) -> bytes:
    _check_size(len(data), name)
    return data


def _check_size(num_bytes: int, name: str) -> None:
    if num_bytes > MAX_BYTES:
        raise BrokenPictureError(f"{name} has more than the {MAX_BYTES:,} bytes that are read.", "Is it a picture?")
