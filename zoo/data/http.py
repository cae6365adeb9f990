"""Owns files of a data set on a web server: whole, or a range of one; what the bytes mean is its neighbours'.

What a server does is never a picture's fault: what keeps failing, or is not what was published, is a `DataError`. It
stops a run, where broken pictures would be counted by the million.
"""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from threading import Event
from urllib.parse import quote, urlsplit, urlunsplit

from zoo.errors import DataError, DownloadError
from zoo.http import ATTEMPTS, Response, fetch, read_exactly

AUTHORIZATION_VARIABLE = "ZOO_DATA_AUTHORIZATION"
# Requests under way at once while a batch is read: at 20 ms a request one after the other are 50 pictures a second.
PARALLEL = 8
OPENING_ATTEMPTS = 2  # a mistyped name is told soon
EXPECTED = "Expected there: shards.json and the files it names, as `zoo data pack` or `zoo data index` wrote them."
GOES_ON = "Check the address and the network. Once it answers, `zoo train … --resume` goes on from the last state."
NEEDS_RANGES = "Serve the shards by a server that supports Range requests, such as nginx or an object store."
_CONTENT_RANGE = re.compile(r"bytes (\d+)-(\d+)/(\d+|\*)")


@dataclass(frozen=True)
class RemoteFile:
    """A file of a server, and how many bytes it must have."""

    url: str
    size_bytes: int

    def __str__(self) -> str:
        return self.url

    def read(self, offset: int, size: int, *, attempts: int = ATTEMPTS, unwanted: Event | None = None) -> bytes:
        """`size` bytes from `offset` on, by one Range request; it is repeated where that may help, as `fetch` does.

        Raises:
            DataError: the server cannot be reached or keeps failing, has no such file or one of another size, or
                answers with something else than the range.
        """
        if not size:
            return b""

        def take(response: Response) -> bytes:
            self._check(response, offset, size)
            return read_exactly(response, size)

        return _ask(self.url, take, {"Range": f"bytes={offset}-{offset + size - 1}"}, attempts, unwanted)

    def _check(self, response: Response, offset: int, size: int) -> None:
        """Refuse, before its body is read, an answer that is not this range of this file."""
        if response.status == 200:
            raise DataError(
                f"{self.url}: the server answers a request for {size:,} bytes with the whole file: it ignores Range.",
                NEEDS_RANGES,
            )
        said = response.headers.get("Content-Range", "")
        found = _CONTENT_RANGE.fullmatch(said)
        total = found[3] if found else said.rpartition("/")[2]
        if response.status == 416 or (found and total not in ("*", str(self.size_bytes))):
            raise DataError(
                f"{self.url} has {total or 'too few'} bytes, {self.size_bytes} are expected: it is another file.",
                "Copy all files to the server again, shards.json last.",
            )
        if response.status != 206 or not found or (int(found[1]), int(found[2])) != (offset, offset + size - 1):
            raise DataError(
                f"{self.url} answers a request for bytes {offset} to {offset + size - 1} with {response.status} and "
                f"{said or 'no Content-Range'}.",
                NEEDS_RANGES,
            )


@dataclass(frozen=True)
class RemoteFolder:
    """A folder of a server; `url` is as `parse_address` returns it."""

    url: str

    def __str__(self) -> str:
        return self.url

    def url_of(self, name: str) -> str:
        """Where a file of the folder is; `name` is its relative path."""
        return self.url + quote(name)

    def fetch(self, name: str, *, max_bytes: int) -> bytes:
        """A whole file of the folder.

        Raises:
            DataError: as `RemoteFile.read`, or it is larger than `max_bytes`.
        """
        url = self.url_of(name)

        def take(response: Response) -> bytes:
            if response.status != 200:
                raise DataError(f"{url} answers {response.status}.", EXPECTED)
            data = response.read(max_bytes + 1)
            if len(data) > max_bytes:
                raise DataError(f"{url} has more than the {max_bytes:,} bytes it can need.", EXPECTED)
            return data

        return _ask(url, take, {}, OPENING_ATTEMPTS)


def is_address(data: str) -> bool:
    """Whether `data` is written as an address, not as a path."""
    return "://" in data


def parse_address(data: str) -> str:
    """Return the address of a folder in the one spelling that is compared and recorded; it ends in a slash.

    Raises:
        DataError: not http or https, or it carries credentials. The message does not repeat them.
    """
    try:
        parts = urlsplit(data.strip())
        host, port = parts.hostname, parts.port
    except ValueError as error:
        raise DataError(
            "The host or the port in the address of --data cannot be read.",
            "Expected https://HOST/PATH/ or https://HOST:PORT/PATH/, with a port from 0 to 65535.",
        ) from error
    if "@" in parts.netloc or "?" in data or "#" in data:
        # They would be kept in checkpoints, pages and logs.
        raise DataError(
            f"The address of --data at {host} has a user name, password or query in it, which would be recorded.",
            f"Leave it out; {AUTHORIZATION_VARIABLE} is sent as the Authorization header.",
        )
    if parts.scheme not in ("http", "https"):
        raise DataError(
            f"The address of --data begins with {parts.scheme}://, which is not read.",
            "Expected https://HOST/PATH/, which object stores have too; a folder is given by its path.",
        )
    if not host or any(letter.isspace() for letter in parts.netloc):
        raise DataError(
            f"The address of --data names no host: between {parts.scheme}:// and the next slash stands "
            f"{'something with a space in it' if host else 'nothing'}.",
            f"Is a variable in it set? Expected {parts.scheme}://HOST/PATH/.",
        )
    named = f"[{host}]" if ":" in host else host
    where = named if port is None else f"{named}:{port}"
    return urlunsplit((parts.scheme, where, parts.path.rstrip("/") + "/", "", ""))


def authorization() -> str | None:
    """What the environment says to send as the Authorization header; None without.

    Raises:
        DataError: a header cannot carry it. The message does not repeat it.
    """
    value = os.environ.get(AUTHORIZATION_VARIABLE, "").strip()
    if not (value.isascii() and value.isprintable()):
        raise DataError(
            f"{AUTHORIZATION_VARIABLE} has characters that a header cannot carry.",
            "Expected one line such as `Bearer TOKEN` or `Basic BASE64`.",
        )
    return value or None


def check_files(files: Sequence[RemoteFile]) -> None:
    """Ask for the first byte of every file: each is there, has its size, and can be read in ranges.

    Raises:
        DataError: as `RemoteFile.read`, of the first that fails.
    """
    with ThreadPoolExecutor(PARALLEL) as pool:
        for _ in pool.map(lambda file: file.read(0, 1, attempts=OPENING_ATTEMPTS), files):
            pass


def _ask(
    url: str,
    take: Callable[[Response], bytes],
    headers: dict[str, str],
    attempts: int,
    unwanted: Event | None = None,
) -> bytes:
    """`fetch`, with the environment's authorization; what no answer of a data server should be is a `DataError`."""
    secret = authorization()

    def take_data(response: Response) -> bytes:
        if response.status in (401, 403):
            raise DataError(
                f"{url} answers {response.status}: it is private, or, at an object store, not there.",
                f"Set {AUTHORIZATION_VARIABLE} to the Authorization header the server wants. {EXPECTED}",
            )
        if response.status in (404, 410):
            raise DataError(f"{url} is not there: the server answers {response.status}.", EXPECTED)
        return take(response)

    sent = headers | ({"Authorization": secret} if secret else {})
    try:
        return fetch(url, take_data, headers=sent, attempts=attempts, unwanted=unwanted)
    except DownloadError as error:
        raise DataError(error.problem, GOES_ON) from error
