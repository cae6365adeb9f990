"""Owns what the protocol's routes have in common: JSON answers, and small bodies."""

from __future__ import annotations

import time
from typing import Any

from starlette.requests import Request
from starlette.responses import JSONResponse

from serve.web.intake import read_body
from serve.web.v2.wire import read_object
from zoo.files import json_text

# What asks for no inference is small, and comes soon.
SMALL_BODY_BYTES, SMALL_BODY_S = 65_536, 10.0


class Json(JSONResponse):
    """JSON as this project writes it everywhere."""

    def render(self, content: Any) -> bytes:
        """The body."""
        return json_text(content, indent=None).encode()


async def read_small(request: Request) -> dict[str, Any]:
    """A small JSON object; an empty body is an empty one.

    Raises:
        ProtocolError: it is none. Whatever `read_body` raises.
    """
    if request.headers.get("content-length", "0") == "0" and "transfer-encoding" not in request.headers:
        return {}
    body = await read_body(request, max_bytes=SMALL_BODY_BYTES, deadline_s=time.monotonic() + SMALL_BODY_S)
    return read_object(body)
