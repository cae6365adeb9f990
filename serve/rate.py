"""Owns how often one client may ask: a token bucket each, of so many clients at most; it knows no protocol."""

from __future__ import annotations

import time
from collections import OrderedDict
from collections.abc import Callable, Hashable
from threading import Lock
from typing import NamedTuple

from serve.core.failures import RateLimitedError

# Clients that are remembered; whoever was not seen for longest is forgotten first, and begins with a full bucket again.
MOST_CLIENTS = 10_000


class _Bucket(NamedTuple):
    tokens: float
    filled_s: float


class RateLimit:
    """So many requests a second for each client, and a second's worth of them at once.

    Args:
        per_second: of one client; below 1 a request every so many seconds.
        clock: seconds; tests put their own here.
    """

    def __init__(self, per_second: float, clock: Callable[[], float] = time.monotonic) -> None:
        self.per_second = per_second
        self._most = max(1.0, per_second)
        self._clock = clock
        self._buckets: OrderedDict[Hashable, _Bucket] = OrderedDict()
        self._lock = Lock()  # HTTP and gRPC may ask from several threads

    def take(self, client: Hashable) -> None:
        """Count a request of a client.

        Raises:
            RateLimitedError: it has asked too often; says when it may ask again.
        """
        now = self._clock()
        with self._lock:
            tokens, filled_s = self._buckets.pop(client, _Bucket(self._most, now))
            tokens = min(self._most, tokens + (now - filled_s) * self.per_second)
            allowed = tokens >= 1.0
            self._buckets[client] = _Bucket(tokens - allowed, now)
            if len(self._buckets) > MOST_CLIENTS:
                self._buckets.popitem(last=False)
        if not allowed:
            raise RateLimitedError(
                f"More than {self.per_second:g} requests a second.",
                "Ask less often; a request may hold several pictures.",
                (1.0 - tokens) / self.per_second,
            )
