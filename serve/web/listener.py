"""Owns connections: how many, how long a head and a body may take, how large a head may be; it answers no request.

uvicorn has none of these limits, and neither has any other server for ASGI: docs/adr/0010-listener.md. So its protocol
is subclassed here, where it hears of bytes, heads and bodies, and nothing of it is written anew.
"""

from __future__ import annotations

import asyncio
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass
from http import HTTPStatus
from typing import Annotated, Any, Literal

from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol, RequestResponseCycle

from zoo.files import json_text
from zoo.rows import Count, Positive, Row, Within

# Under it a request finds what its connection knows, in `scope["extensions"]`: `tell_when_gone(callback)` has its
# client's leaving told, `is_whole()` says whether its body is here: then reading it takes no time.
CONNECTION = "zoo.connection"
SWEEP_S = 1.0
# A client that is still sending would not read an answer if its connection were closed at once.
LINGER_S = 2.0


@dataclass(frozen=True, kw_only=True)
class ConnectionLimits(Row):
    """What one connection may cost, and how many there may be.

    `max_header_bytes` is of a whole head, first line included: nginx takes 32 KiB, Node.js 16 KiB. `header_timeout_s`
    is from the first byte, or the connection, to the end of the head, `body_timeout_s` from there to the body's end.
    """

    max_connections: Count
    max_header_bytes: Annotated[int, Within(1024, 2**20)] = 64 * 1024
    header_timeout_s: Positive = 10.0
    body_timeout_s: Positive = 10.0


class Doors:
    """All connections of one server. `is_leaving`: each is closed after its next answer."""

    def __init__(self, limits: ConnectionLimits) -> None:
        self.limits = limits
        self.is_leaving = False
        self.count = 0
        self.turned_away = 0
        self._idle: OrderedDict[BoundedProtocol, None] = OrderedDict()
        self._waiting: dict[BoundedProtocol, None] = {}
        self._sweep: asyncio.TimerHandle | None = None

    def protocol(self, **given: Any) -> BoundedProtocol:
        """What uvicorn calls for each connection."""
        return BoundedProtocol(self, **given)

    def enter(self, one: BoundedProtocol) -> bool:
        """Let a connection in; where there are too many, the one that has been idle longest goes. False: none is."""
        self.count += 1
        is_room = self.count <= self.limits.max_connections
        if not is_room and self._idle:
            oldest, _ = self._idle.popitem(last=False)
            self.turned_away += 1
            oldest.transport.abort()
            is_room = True
        return is_room

    def leave(self, one: BoundedProtocol) -> None:
        """Forget a connection."""
        self.count -= 1
        self._idle.pop(one, None)
        self._waiting.pop(one, None)

    def note_idle(self, one: BoundedProtocol) -> None:
        """It has nothing under way."""
        self._idle[one] = None
        self._idle.move_to_end(one)

    def note_busy(self, one: BoundedProtocol) -> None:
        """The head of its request is there."""
        self._idle.pop(one, None)

    def note_waiting(self, one: BoundedProtocol, is_waiting: bool) -> None:
        """Whether its client has still to send something, within a limit of time."""
        if not is_waiting:
            self._waiting.pop(one, None)
            return
        self._waiting[one] = None
        if self._sweep is None:
            self._sweep = one.loop.call_later(SWEEP_S, self._close_late, one.loop)

    def _close_late(self, loop: asyncio.AbstractEventLoop) -> None:
        """Close those whose time is up. Once a second for all: a timer for each request would cost more."""
        now_s = loop.time()
        for one in list(self._waiting):
            one.close_if_late(now_s)
        self._sweep = loop.call_later(SWEEP_S, self._close_late, loop) if self._waiting else None


class BoundedProtocol(HttpToolsProtocol):
    """uvicorn's protocol of one connection, with limits."""

    def __init__(self, doors: Doors, **given: Any) -> None:
        super().__init__(**given)
        self._doors = doors
        self._limits = doors.limits
        self._stage: Literal["head", "body", "answer", "linger"] = "head"
        self._since_s = 0.0
        self._head_bytes = 0
        self._piece_bytes = 0
        self._on_gone: Callable[[], None] | None = None
        self._extensions: dict[str, dict[Any, Any]] = {
            CONNECTION: {"tell_when_gone": self._set_on_gone, "is_whole": self._is_whole}
        }

    # --- what the transport says -----

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """Let it in, or turn it away."""
        super().connection_made(transport)
        if not self._doors.enter(self):
            self._refuse(503, "The server has as many connections as it takes.", "Try again in a second.")
            return
        self._doors.note_idle(self)
        self._begin("head")

    def connection_lost(self, exc: Exception | None) -> None:
        """Tell whoever works for this client."""
        self._doors.leave(self)
        self._extensions = {}  # it leads back here
        super().connection_lost(exc)
        if self._on_gone is not None:
            self._on_gone()

    def data_received(self, data: bytes) -> None:
        """Count the bytes of a head before the parser keeps them."""
        if self._stage == "linger" or self.transport.is_closing():
            return
        was_head, self._piece_bytes = self._stage == "head", len(data)
        super().data_received(data)
        if self._stage == "head":
            # Of a piece that ends another request only some bytes are this head's: it has begun, more is not known.
            self._head_bytes += len(data) if was_head else 1
            if self._head_bytes > self._limits.max_header_bytes:
                self._refuse_head()

    # --- what the parser says -----

    def on_message_begin(self) -> None:
        """A request's first byte is there."""
        super().on_message_begin()
        self._on_gone = None
        self.scope["extensions"] = self._extensions
        if self._stage != "head":
            self._begin("head")

    def on_headers_complete(self) -> None:
        """Start the request, unless its head is too large."""
        most = self._limits.max_header_bytes
        # One that came whole in a piece below the limit is below it too.
        if (self._head_bytes or self._piece_bytes > most) and _size_of(self.headers) > most:
            self._refuse_head()
            return
        self._doors.note_busy(self)
        self._begin("body")
        super().on_headers_complete()
        if self._doors.is_leaving:
            self.cycle.keep_alive = False
        self.cycle.transport = Lingering(self)  # type: ignore[assignment]

    def on_body(self, body: bytes) -> None:
        """Keep what somebody reads."""
        if self._stage != "linger" and self.cycle is not None:
            super().on_body(body)

    def on_message_complete(self) -> None:
        """The request is there in full."""
        if self._stage in ("linger", "head") or self.cycle is None:
            return
        super().on_message_complete()
        self._begin("answer")
        if self.cycle.response_complete:
            self._doors.note_idle(self)

    def on_response_complete(self) -> None:
        """Its answer has been given."""
        super().on_response_complete()
        if self._stage == "answer" and not self.pipeline:
            self._doors.note_idle(self)

    # --- limits -----

    def close_if_late(self, now_s: float) -> None:
        """Close it when its client has taken too long for what it has to send."""
        waited_s = now_s - self._since_s
        if self._stage == "head" and waited_s > self._limits.header_timeout_s:
            if self._head_bytes:
                limit = f"{self._limits.header_timeout_s:g} s"
                self._refuse(408, f"The head of the request did not come within {limit}.", "Send it again.")
            else:
                self.transport.close()  # it never asked for anything
        # Whoever reads the body answers 408 by itself, a moment before.
        elif waited_s > {"body": self._limits.body_timeout_s + SWEEP_S, "linger": LINGER_S}.get(self._stage, waited_s):
            self.transport.abort()

    def close_gently(self) -> None:
        """Close it after what has been written; a client that is still sending gets the time to read its answer."""
        if self._stage != "body" or self.transport.is_closing() or not self.transport.can_write_eof():
            self.transport.close()
            return
        self.transport.write_eof()
        self.flow.resume_reading()
        self._begin("linger")

    def send_400_response(self, msg: str) -> None:
        """Answer what is no HTTP."""
        self._refuse(400, msg, "The connection is closed.")

    def _refuse_head(self) -> None:
        self._refuse(
            431,
            f"The head of the request is larger than {self._limits.max_header_bytes // 1024} KiB.",
            "Send fewer or shorter headers; a picture belongs into the body.",
        )

    def _refuse(self, status: int, problem: str, hint: str) -> None:
        body = json_text({"error": problem, "hint": hint}, indent=None).encode()
        head = (
            f"HTTP/1.1 {status} {HTTPStatus(status).phrase}\r\ncontent-type: application/json\r\n"
            f"content-length: {len(body)}\r\nconnection: close\r\n{'retry-after: 1' if status == 503 else ''}"
        )
        self.transport.write(head.rstrip().encode() + b"\r\n\r\n" + body)
        self._stage = "body"
        if status == 503:
            self.transport.close()  # there is no room for it to linger in
        else:
            self.close_gently()

    def _begin(self, stage: Literal["head", "body", "answer", "linger"]) -> None:
        self._stage, self._since_s, self._head_bytes = stage, self.loop.time(), 0
        self._doors.note_waiting(self, stage != "answer")

    def _is_whole(self) -> bool:
        """Whether the newest request of this connection is here in full, and so is each before it."""
        return self._stage == "answer"

    def _set_on_gone(self, callback: Callable[[], None]) -> None:
        self._on_gone = callback


def _size_of(headers: list[tuple[bytes, bytes]]) -> int:
    return sum(len(name) + len(value) + 4 for name, value in headers)


class Lingering:
    """A transport as a request sees it: closing it does not cut off the answer, and an answer goes out in one piece.

    uvicorn writes an answer's head and then its body, each by a call of the system that wakes the client. The head
    waits here for the body.
    """

    __slots__ = ("_cycle", "_head", "_protocol")

    def __init__(self, protocol: BoundedProtocol) -> None:
        self._protocol, self._head = protocol, b""
        # It leads back here: cut once it is not needed, or every request would wait for the garbage collector.
        self._cycle: RequestResponseCycle | None = protocol.cycle

    def is_closing(self) -> bool:
        """Whether nothing is sent any more."""
        return self._protocol.transport.is_closing()

    def write(self, data: bytes) -> None:
        """Send it, but hold an answer's head."""
        if self._head:
            self._send(data)
        elif self._cycle is None or not self._cycle.response_started:  # the rest of a body; 100 Continue
            self._protocol.transport.write(data)
        else:
            is_all = self._cycle.scope["method"] == "HEAD"
            self._head, self._cycle = data, None
            if is_all:
                self._send(b"")

    def _send(self, data: bytes) -> None:
        self._protocol.transport.writelines([self._head, data])
        self._head = b""

    def close(self) -> None:
        """Close the connection, gently."""
        if self._head:
            self._send(b"")
        self._protocol.close_gently()
