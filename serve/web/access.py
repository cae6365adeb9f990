"""Owns what every request gets whatever its route: an id, a count, and one line in the log; it answers nothing."""

from __future__ import annotations

import logging
import re
import time
from collections.abc import Mapping
from typing import Any
from uuid import uuid4

from starlette.datastructures import Headers, MutableHeaders
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from serve.core.metrics import Metrics

logger = logging.getLogger(__name__)

# Echoed into headers and the log, so neither line breaks nor novels.
REQUEST_ID = re.compile(r"[A-Za-z0-9._:-]{1,128}")


class AccessMiddleware:
    """ASGI middleware: echoes or makes `X-Request-Id`, counts answers, logs one line per request at INFO.

    Args:
        app: what it wraps.
        metrics: where answers are counted.
        paths: from a route's endpoint to its path, the only values the label may take besides "other".
    """

    def __init__(self, app: ASGIApp, *, metrics: Metrics, paths: Mapping[Any, str]) -> None:
        self.app = app
        self.metrics = metrics
        self.paths = paths

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one request."""
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        began_s = time.monotonic()
        given = Headers(scope=scope).get("x-request-id", "")
        request_id = given if REQUEST_ID.fullmatch(given) else uuid4().hex
        status = 500  # of a request whose handler raised something nobody expected

        async def send_with_id(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
                MutableHeaders(scope=message)["x-request-id"] = request_id
            await send(message)

        try:
            await self.app(scope, receive, send_with_id)
        finally:
            path = self.paths.get(scope.get("endpoint"), "other")  # the router leaves the endpoint in the scope
            self.metrics.requests.labels(path, str(status)).inc()
            if logger.isEnabledFor(logging.INFO):
                split = scope.get("state", {}).get("timing", "")
                took_ms = (time.monotonic() - began_s) * 1000.0
                # %r: the path is the client's, and a line break in it must not start a line of the log.
                logger.info(
                    "%s %r %d %.1f ms %s id=%s", scope["method"], scope["path"], status, took_ms, split, request_id
                )
