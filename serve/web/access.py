"""Owns what every request gets on any route: an id, a count, and one line in the log; it answers nothing."""

from __future__ import annotations

import logging
import re
import time
from collections.abc import Mapping
from typing import Any
from uuid import uuid4

from prometheus_client import Counter
from starlette.datastructures import Headers, MutableHeaders
from starlette.types import ASGIApp, Message, Receive, Scope, Send

logger = logging.getLogger(__name__)

# Under it a record of the log has its request's fields; `serve.log` writes them as JSON.
ACCESS = "access"
# It is repeated in headers and in the log, so it holds no line breaks and is short.
REQUEST_ID = re.compile(r"[A-Za-z0-9._:-]{1,128}")


class AccessMiddleware:
    """ASGI middleware: echoes or makes `X-Request-Id`, counts answers, logs one line per request at INFO.

    `paths` leads from a route's endpoint to its path: with "other", the only values a metric's label may have.
    """

    def __init__(self, app: ASGIApp, *, requests: Counter, paths: Mapping[Any, str]) -> None:
        self.app = app
        self.requests = requests
        self.paths = paths

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one request."""
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        began_s, path = time.monotonic(), scope["path"]
        if path.endswith(
            "/"
        ):  # /predict/ is /predict: nobody is redirected, and no address is made of a client's words
            scope["path"] = path.rstrip("/") or "/"
        given = Headers(scope=scope).get("x-request-id", "")
        request_id = given if REQUEST_ID.fullmatch(given) else uuid4().hex
        status = 500  # unless an answer begins: its handler raised something unexpected

        async def send_with_id(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
                MutableHeaders(scope=message)["x-request-id"] = request_id
            await send(message)

        try:
            await self.app(scope, receive, send_with_id)
        finally:
            route = self.paths.get(scope.get("endpoint"), "other")  # the router leaves the endpoint in the scope
            self.requests.labels(route, str(status)).inc()
            if logger.isEnabledFor(logging.INFO):
                split = scope.get("state", {}).get("timing", "")
                took_ms = (time.monotonic() - began_s) * 1000.0
                # %r: the path is the client's, and a line break in it must not start a line of the log.
                logger.info(
                    "%s %r %d %.1f ms %s id=%s",
                    scope["method"],
                    path,
                    status,
                    took_ms,
                    split,
                    request_id,
                    extra={
                        ACCESS: {
                            "method": scope["method"],
                            "path": path,
                            "status": status,
                            "took_ms": round(took_ms, 3),
                            **scope.get("state", {}).get("timings_ms", {}),
                            "client": (scope.get("client") or ("",))[0],
                            "id": request_id,
                        }
                    },
                )
