"""Owns what is decided of a request before its path is looked at: its key, where it comes from; and common headers."""

from __future__ import annotations

from collections.abc import Awaitable, Callable

from starlette.datastructures import Headers, MutableHeaders
from starlette.requests import Request
from starlette.responses import Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from serve.core.failures import ForbiddenError, UnauthorizedError
from serve.keys import Keyring, role_for
from zoo.errors import ZooError

SECURITY_HEADERS = {
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
    # No page from elsewhere may show or read an answer; there is no CORS either.
    "Cross-Origin-Resource-Policy": "same-origin",
}
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


class GateMiddleware:
    """ASGI middleware: refuses what has no key or comes from a page elsewhere; `answer_error` says so."""

    def __init__(
        self, app: ASGIApp, *, keys: Keyring, answer_error: Callable[[Request, Exception], Awaitable[Response]]
    ) -> None:
        self.app = app
        self.keys = keys
        self.answer_error = answer_error

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one request."""
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return

        async def send_with_headers(message: Message) -> None:
            if message["type"] == "http.response.start":
                MutableHeaders(scope=message).update(SECURITY_HEADERS)
            await send(message)

        try:
            self._check(scope)
        except ZooError as error:
            response = await self.answer_error(Request(scope), error)
            # Its body is not read: what comes of it must not be taken for the next request.
            response.headers["Connection"] = "close"
            if isinstance(error, UnauthorizedError):
                response.headers["WWW-Authenticate"] = 'Basic realm="zoo", charset="UTF-8"'
            await response(scope, receive, send_with_headers)
            return
        await self.app(scope, receive, send_with_headers)

    def _check(self, scope: Scope) -> None:
        headers = Headers(scope=scope)
        if role := role_for(scope["path"]):
            holder = self.keys.check(headers, role, (scope.get("client") or ("",))[0])
            scope.setdefault("state", {})[HOLDER] = holder
        if scope["method"] not in READING and headers.get("sec-fetch-site") in ELSEWHERE:
            raise ForbiddenError(
                "Pages from elsewhere may not use this server.", "Ask it from a program, or from its own page."
            )
