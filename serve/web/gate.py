"""Owns what is decided of a request before its path is looked at: its key, where it comes from; and common headers."""

from __future__ import annotations

from collections.abc import Mapping

from starlette.types import Scope

from serve.core.failures import ForbiddenError
from serve.keys import Keyring, role_for

# As they go onto the wire.
SECURITY_HEADERS = (
    (b"x-content-type-options", b"nosniff"),
    (b"referrer-policy", b"no-referrer"),
    # No page from elsewhere may show or read an answer; there is no CORS either.
    (b"cross-origin-resource-policy", b"same-origin"),
)
# What a browser says of a request that a page from elsewhere makes. Programs say nothing.
ELSEWHERE = ("cross-site", "same-site")
# Where a request's scope says whose key it came with.
HOLDER = "holder"
# They change nothing, and a link from elsewhere to the page is one of them.
READING = ("GET", "HEAD", "OPTIONS")


def holder_of(scope: Scope) -> bytes:
    """Whose key a request came with; nothing where there are no keys."""
    holder: bytes = scope.get("state", {}).get(HOLDER, b"")
    return holder


class Gate:
    """Refuses what has no key or comes from a page elsewhere, and says in the scope whose key it was."""

    def __init__(self, keys: Keyring) -> None:
        self._keys = keys
        self._is_open = keys.is_open

    def check(self, scope: Scope, headers: Mapping[str, str]) -> None:
        """Let a request in.

        Raises:
            UnauthorizedError, ForbiddenError, RateLimitedError: it is not.
        """
        if not self._is_open and (role := role_for(scope["path"])):
            holder = self._keys.check(headers, role, (scope.get("client") or ("",))[0])
            scope.setdefault("state", {})[HOLDER] = holder
        if scope["method"] not in READING and headers.get("sec-fetch-site") in ELSEWHERE:
            raise ForbiddenError(
                "Pages from elsewhere may not use this server.", "Ask it from a program, or from its own page."
            )
