"""Owns the spans of HTTP's requests: what of a request goes into its span; `serve.tracing` makes it."""

from __future__ import annotations

import time
from collections.abc import Mapping
from typing import Any

from starlette.datastructures import Headers
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from serve.tracing import Tracing
from serve.web.access import taken_of


class TraceMiddleware:
    """ASGI middleware: a span for every request; `paths` leads from a route's endpoint to its path."""

    def __init__(self, app: ASGIApp, *, tracing: Tracing, paths: Mapping[Any, str]) -> None:
        self.app = app
        self.tracing = tracing
        self.paths = paths

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one request."""
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        began_s, status = time.monotonic(), 500

        async def send_noting_status(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
            await send(message)

        try:
            await self.app(scope, receive, send_noting_status)
        finally:
            route, taken = self.paths.get(scope.get("endpoint"), "other"), taken_of(scope)
            self.tracing.record(
                f"{scope['method']} {route}",
                Headers(scope=scope),
                took_s=time.monotonic() - began_s,
                attributes={
                    "http.request.method": scope["method"],
                    "http.route": route,
                    "http.response.status_code": status,
                },
                timings_ms=taken.fields() if taken else {},
                failed=status >= 500,
            )
