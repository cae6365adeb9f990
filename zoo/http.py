"""Owns fetching from web servers: connections, proxies, time limits, asking again; what is fetched is its callers'.

A request is repeated where the failure may pass: no connection, silence, an answer cut short, or one of
`PASSING_STATUSES`. A server that says `Retry-After` is left alone for as long as it asks.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from email.utils import parsedate_to_datetime
from functools import lru_cache
from random import SystemRandom
from threading import Event
from time import time
from typing import TypeVar
from urllib.parse import unquote, urlsplit
from urllib.request import getproxies, proxy_bypass

from urllib3 import BaseHTTPResponse, PoolManager, ProxyManager, Retry, Timeout, make_headers
from urllib3.exceptions import HTTPError, IncompleteRead, MaxRetryError
from urllib3.util import parse_url

from zoo import __version__
from zoo.errors import DownloadError

T = TypeVar("T")
Response = BaseHTTPResponse

# Six attempts with pauses of 1, 2, 4, 8 and 16 s, and up to a quarter more, outlast the restart of a server.
ATTEMPTS = 6
BACKOFF_S = 1.0
# A server that asks for a longer pause is not waited for: a person should decide that.
LONGEST_PAUSE_S = 120.0
TIMEOUT = Timeout(connect=10.0, read=30.0)  # seconds of silence, not of the whole answer
MAX_CONNECTIONS = 64  # kept open to one host
PASSING_STATUSES = (408, 425, 429, 500, 502, 503, 504)
# urllib3 follows redirects, and drops Authorization where they lead to another host; it repeats nothing else.
_REDIRECTS = Retry(total=None, connect=0, read=0, status=0, other=0, redirect=5)


def fetch(
    url: str,
    take: Callable[[Response], T],
    *,
    headers: Mapping[str, str] | None = None,
    attempts: int = ATTEMPTS,
    unwanted: Event | None = None,
) -> T:
    """GET `url` and return what `take` makes of the answer; ask again, after a pause, where the failure may pass.

    Args:
        take: gets every answer but those of `PASSING_STATUSES`. An error of its own ends the attempts; an error of
            urllib3, such as that of an answer cut short, does not.
        unwanted: once it is set, nobody waits for the answer, and no other attempt is made.

    Raises:
        DownloadError: without a hint; the last attempt failed, or the server asks for a pause of more than
            `LONGEST_PAUSE_S`.
    """
    sent = {"User-Agent": f"zoo/{__version__}", "Accept-Encoding": "identity", **(headers or {})}
    unwanted = unwanted or Event()
    for attempt in range(1, attempts + 1):
        asked_s = 0.0
        try:
            response = _connections(url).request(
                "GET", url, headers=sent, preload_content=False, retries=_REDIRECTS, timeout=TIMEOUT
            )
            try:
                if response.status not in PASSING_STATUSES:
                    return take(response)
                reason, asked_s = f"it answers {response.status}", _retry_after_s(response)
            finally:
                response.close()  # a connection whose answer was read to its end is kept all the same
        except MaxRetryError as error:
            reason = f"it cannot be reached: {error.reason or error}"
        except HTTPError as error:
            reason = str(error)
        if asked_s > LONGEST_PAUSE_S:
            reason += f" and asks for a pause of {asked_s:,.0f} s; at most {LONGEST_PAUSE_S:g} s are waited"
            break
        # Processes that failed together must not come back together.
        pause_s = max(BACKOFF_S * 2 ** (attempt - 1), asked_s) * SystemRandom().uniform(1.0, 1.25)
        if attempt == attempts or unwanted.wait(pause_s):
            break
    raise DownloadError(f"{url} cannot be read, {attempt} attempt{'s' if attempt > 1 else ''}: {reason}.")


def read_exactly(response: Response, size: int) -> bytes:
    """Read a body of `size` bytes to its end, so that the connection can be kept.

    Raises:
        IncompleteRead: it has fewer or more; `fetch` asks again.
    """
    data = response.read(size + 1, decode_content=False)
    if len(data) != size:
        raise IncompleteRead(len(data), size - len(data))
    return data


def _retry_after_s(response: Response) -> float:
    """Seconds that the server asks to wait, which it may give as a date; 0 without, or where they cannot be read."""
    said = response.headers.get("Retry-After", "").strip()
    try:
        return float(said) if said.isdigit() else max(0.0, parsedate_to_datetime(said).timestamp() - time())
    except (ValueError, OverflowError):
        return 0.0


def _connections(url: str) -> PoolManager:
    """This process's connections, through the proxy that the environment names for this host."""
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
    """The connections of one process: a child that used its parent's after a fork would read the parent's answers."""
    if proxy is None:
        return PoolManager(maxsize=MAX_CONNECTIONS)
    login = parse_url(proxy).auth
    headers = make_headers(proxy_basic_auth=unquote(login)) if login else None
    return ProxyManager(proxy, maxsize=MAX_CONNECTIONS, proxy_headers=headers)
