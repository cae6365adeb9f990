"""Owns reading files of a web server, whole or a range of them; what the bytes mean is others' business.

Nothing a server does is a picture's fault: what keeps failing, or is not what was published, is a `DataError`, which
stops a run instead of being counted as a million broken pictures.
"""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import lru_cache
from random import SystemRandom
from threading import Event
from urllib.parse import quote, unquote, urlsplit, urlunsplit
from urllib.request import getproxies, proxy_bypass

from urllib3 import BaseHTTPResponse, PoolManager, ProxyManager, Retry, Timeout, make_headers
from urllib3.exceptions import HTTPError, IncompleteRead, MaxRetryError
from urllib3.util import parse_url

from zoo import __version__
from zoo.errors import DataError

AUTHORIZATION_VARIABLE = "ZOO_DATA_AUTHORIZATION"
# Requests under way at once while a batch is read: at 20 ms a request one after the other are 50 pictures a second.
PARALLEL = 8
# Six attempts with pauses of 1, 2, 4, 8 and 16 s outlast the restart of a server; a mistyped name is told sooner.
ATTEMPTS, OPENING_ATTEMPTS = 6, 2
BACKOFF_S = 1.0
TIMEOUT = Timeout(connect=10.0, read=30.0)  # seconds of silence, not of the whole answer
MAX_CONNECTIONS = 64  # kept open to one host
PASSING_STATUSES = (408, 425, 429, 500, 502, 503, 504)
EXPECTED = "Expected there: shards.json and the files it names, as `zoo data pack` or `zoo data index` wrote them."
GOES_ON = "Check the address and the network. Once it answers, `zoo train … --resume` goes on from the last state."
# Only redirects are urllib3's to follow, and it drops Authorization where they lead to another host.
_REDIRECTS = Retry(total=None, connect=0, read=0, status=0, other=0, redirect=5)
_CONTENT_RANGE = re.compile(r"bytes (\d+)-(\d+)/(\d+|\*)")


@dataclass(frozen=True)
class RemoteFile:
    """A file of a server, and how many bytes it must have."""

    url: str
    size_bytes: int

    def __str__(self) -> str:
        return self.url

    def read(self, offset: int, size: int, *, attempts: int = ATTEMPTS, unwanted: Event | None = None) -> bytes:
        """`size` bytes from `offset` on, by one Range request, repeated where that may help, until they are `unwanted`.

        Raises:
            DataError: the server cannot be reached or keeps failing, has no such file or one of another size, or
                answers with something else than the range.
        """
        if not size:
            return b""

        def take(response: BaseHTTPResponse) -> bytes:
            self._check(response, offset, size)
            data = response.read(size + 1, decode_content=False)  # to the end, so that the connection is kept
            if len(data) != size:
                raise IncompleteRead(len(data), size - len(data))
            return data

        return _ask(self.url, {"Range": f"bytes={offset}-{offset + size - 1}"}, take, attempts, unwanted)

    def _check(self, response: BaseHTTPResponse, offset: int, size: int) -> None:
        """Refuse, before its body is read, an answer that is not this range of this file."""
        if response.status == 200:
            raise DataError(
                f"{self.url}: the server answers a request for {size:,} bytes with the whole file: it ignores Range.",
                "Serve the shards by a server that supports Range requests, such as nginx or an object store.",
            )
        found = _CONTENT_RANGE.fullmatch(response.headers.get("Content-Range", ""))
        total = found[3] if found else response.headers.get("Content-Range", "").rpartition("/")[2]
        if response.status == 416 or (found and total not in ("*", str(self.size_bytes))):
            raise DataError(
                f"{self.url} has {total or 'too few'} bytes, {self.size_bytes} are expected: it is another file.",
                "Copy all files to the server again, shards.json last.",
            )
        if response.status != 206 or not found or (int(found[1]), int(found[2])) != (offset, offset + size - 1):
            raise DataError(
                f"{self.url} answers a request for bytes {offset} to {offset + size - 1} with {response.status} and "
                f"{response.headers.get('Content-Range', 'no Content-Range')}.",
                "Serve the shards by a server that supports Range requests, such as nginx or an object store.",
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

        def take(response: BaseHTTPResponse) -> bytes:
            if response.status != 200:
                raise DataError(f"{url} answers {response.status}.", EXPECTED)
            data = response.read(max_bytes + 1)
            if len(data) > max_bytes:
                raise DataError(f"{url} has more than the {max_bytes:,} bytes it can need.", EXPECTED)
            return data

        return _ask(url, {}, take, OPENING_ATTEMPTS)


def is_address(data: str) -> bool:
    """Whether `data` is written as an address, not as a path."""
    return "://" in data


def parse_address(data: str) -> str:
    """Write the address of a folder in the one way it is compared and recorded in; it ends in a slash.

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
        # Both would be kept in checkpoints, pages and logs.
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
        DataError: no header can carry it. The message does not repeat it.
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
    headers: dict[str, str],
    take: Callable[[BaseHTTPResponse], bytes],
    attempts: int,
    unwanted: Event | None = None,
) -> bytes:
    """GET `url` and let `take` read the answer; again after a pause where the failure may pass."""
    unwanted = unwanted or Event()
    secret = authorization()
    headers = {"User-Agent": f"zoo/{__version__}", "Accept-Encoding": "identity"} | headers
    if secret:
        headers["Authorization"] = secret
    reason = ""
    for attempt in range(attempts):
        # Workers that failed together must not come back together.
        if attempt and unwanted.wait(BACKOFF_S * 2 ** (attempt - 1) * SystemRandom().uniform(0.75, 1.25)):
            attempts = attempt
            break
        try:
            response = _connections(url).request(
                "GET", url, headers=headers, preload_content=False, retries=_REDIRECTS, timeout=TIMEOUT
            )
            try:
                if response.status not in PASSING_STATUSES:
                    _refuse_errors(url, response)
                    return take(response)
                reason = f"it answers {response.status}"
            finally:
                response.close()  # a connection whose answer was read to its end is kept all the same
        except HTTPError as error:
            reason = str(error.reason if isinstance(error, MaxRetryError) and error.reason else error)
    raise DataError(f"{url} cannot be read, {attempts} attempts: {reason}.", GOES_ON)


def _refuse_errors(url: str, response: BaseHTTPResponse) -> None:
    if response.status in (401, 403):
        raise DataError(
            f"{url} answers {response.status}: it is private, or, at an object store, not there.",
            f"Set {AUTHORIZATION_VARIABLE} to the Authorization header the server wants. {EXPECTED}",
        )
    if response.status in (404, 410):
        raise DataError(f"{url} is not there: the server answers {response.status}.", EXPECTED)


def _connections(url: str) -> PoolManager:
    """This process's connections, through the proxy the environment names for this host."""
    parts = urlsplit(url)
    host = parts.hostname or ""
    # NO_PROXY may name a host with its port.
    is_direct = proxy_bypass(host) or (parts.port and proxy_bypass(f"{host}:{parts.port}"))
    proxy = None if is_direct else getproxies().get(parts.scheme)
    if proxy and "://" not in proxy:
        proxy = f"http://{proxy}"  # as curl reads HOST:PORT
    return _pool(os.getpid(), proxy)


@lru_cache(maxsize=4)
def _pool(process: int, proxy: str | None) -> PoolManager:
    """Connections of one process: after a fork, a child that went on with its parent's would read its answers."""
    if proxy is None:
        return PoolManager(maxsize=MAX_CONNECTIONS)
    login = parse_url(proxy).auth
    headers = make_headers(proxy_basic_auth=unquote(login)) if login else None
    return ProxyManager(proxy, maxsize=MAX_CONNECTIONS, proxy_headers=headers)
