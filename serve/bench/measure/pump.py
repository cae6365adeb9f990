"""Owns a client that costs little: connections that ask again at the very moment they are answered; HTTP/1.1 and gRPC.

Where the server is fast, the client is what is measured: `load.py` spends a future, a task and a timer on each request,
a client of gRPC ten times that. Here an answer's last byte sends the next request. Both share the machine with the
server, so what either spent of the processor is counted.
"""

from __future__ import annotations

import asyncio
import os
import struct
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import cast

from serve.bench.measure.load import LENGTH
from zoo.errors import ZooError
from zoo.results import Summary, summarize
from zoo.rows import Count, NotNegative, Row, Text

# Requests of the first moments are not counted: connections are opened and memory is taken then.
SETTLE_S = 0.5
# RFC 9113: section 3.4 (preface), 4.1 (frames), 6.9 (windows).
PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
DATA, HEADERS, SETTINGS, PING, GOAWAY, WINDOW_UPDATE = 0, 1, 4, 6, 7, 8
END_STREAM, END_HEADERS, ACK = 1, 4, 1
FIRST_WINDOW, LARGEST_WINDOW = 65_535, 2**31 - 1
FRAME_BYTES = 16_384
_TICKS = os.sysconf("SC_CLK_TCK") if hasattr(os, "sysconf") else 100


@dataclass(frozen=True, kw_only=True)
class PumpRow(Row):
    """What came of a load: answers a second, their times, and what server and client spent on each.

    `wrong` is answers that were none: another status than 200, or 0 of gRPC.
    """

    name: Text
    clients: Count
    per_s: NotNegative
    wrong: NotNegative
    summary: Summary
    server_cpu_us: NotNegative
    client_cpu_us: NotNegative


Noted = Callable[[bool, float], None]
"""Hears whether an answer was right, and its seconds."""


class HttpPump(asyncio.Protocol):
    """One request at a time by HTTP/1.1."""

    def __init__(self, request: bytes, noted: Noted) -> None:
        self._request, self._noted = request, noted
        self._heard = bytearray()
        self._sent_s = 0.0

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Begin."""
        self._transport = cast(asyncio.Transport, transport)
        self._ask()

    def _ask(self) -> None:
        self._sent_s = time.perf_counter()
        self._transport.write(self._request)

    def data_received(self, data: bytes) -> None:
        """Wait for a whole answer, then ask again."""
        self._heard += data
        end = self._heard.find(b"\r\n\r\n")
        length = LENGTH.search(self._heard, 0, end + 2) if end >= 0 else None
        if length is None or len(self._heard) < end + 4 + int(length[1]):
            return
        self._noted(self._heard.startswith(b"HTTP/1.1 200"), time.perf_counter() - self._sent_s)
        self._heard.clear()
        self._ask()

    def stop(self) -> None:
        """Close it."""
        self._transport.abort()


def _literal(name: bytes, value: bytes) -> bytes:
    """A header that no table knows: RFC 7541, section 6.2.2, without Huffman's code; shorter than 127 bytes each."""
    return bytes((0, len(name))) + name + bytes((len(value),)) + value


def frame(kind: int, flags: int, stream: int, payload: bytes) -> bytes:
    """A frame of HTTP/2."""
    return struct.pack(">I", len(payload))[1:] + bytes((kind, flags)) + struct.pack(">I", stream) + payload


class GrpcPump(asyncio.Protocol):
    """One unary call at a time by gRPC over HTTP/2: a stream each, its right answer ends in a frame of trailers."""

    def __init__(self, path: str, message: bytes, noted: Noted) -> None:
        self._noted = noted
        self._head = b"".join(
            _literal(name, value)
            for name, value in (
                (b":method", b"POST"), (b":scheme", b"http"), (b":path", path.encode()), (b":authority", b"bench"),
                (b"te", b"trailers"), (b"content-type", b"application/grpc"),
            )
        )  # fmt: skip
        self._body = b"\0" + struct.pack(">I", len(message)) + message
        if len(self._body) > FIRST_WINDOW:
            raise ZooError(f"A message of {len(message)} bytes does not fit a stream's first window.", "Send less.")
        self._heard = bytearray()
        self._stream, self._room, self._sent_s, self._frames, self._is_waiting = 1, FIRST_WINDOW, 0.0, 0, False

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Begin."""
        self._transport = cast(asyncio.Transport, transport)
        more = struct.pack(">I", LARGEST_WINDOW - FIRST_WINDOW)
        self._transport.write(PREFACE + frame(SETTINGS, 0, 0, b"") + frame(WINDOW_UPDATE, 0, 0, more))
        self._ask()

    def _ask(self) -> None:
        self._is_waiting = self._room < len(self._body)
        if self._is_waiting:  # for the server to open its window
            return
        self._room -= len(self._body)
        self._sent_s, self._frames = time.perf_counter(), 0
        pieces = [frame(HEADERS, END_HEADERS, self._stream, self._head)]
        for at in range(0, len(self._body), FRAME_BYTES):
            is_last = at + FRAME_BYTES >= len(self._body)
            pieces.append(frame(DATA, END_STREAM * is_last, self._stream, self._body[at : at + FRAME_BYTES]))
        self._transport.write(b"".join(pieces))

    def data_received(self, data: bytes) -> None:
        """Take frame after frame."""
        self._heard += data
        while len(self._heard) >= 9:
            length = int.from_bytes(self._heard[:3], "big")
            if len(self._heard) < 9 + length:
                return
            kind, flags = self._heard[3], self._heard[4]
            payload = bytes(self._heard[9 : 9 + length])
            del self._heard[: 9 + length]
            self._take(kind, flags, payload)

    def _take(self, kind: int, flags: int, payload: bytes) -> None:
        if kind == SETTINGS and not flags & ACK:
            self._transport.write(frame(SETTINGS, ACK, 0, b""))
        elif kind == PING and not flags & ACK:
            self._transport.write(frame(PING, ACK, 0, payload))
        elif kind == WINDOW_UPDATE:
            self._room = min(self._room + int.from_bytes(payload, "big"), LARGEST_WINDOW)
            if self._is_waiting:
                self._ask()
        elif kind == GOAWAY:
            self._transport.close()
        elif kind in (DATA, HEADERS):
            # A call that fails is answered by trailers alone: a right one by headers, a message, trailers.
            self._frames += kind == DATA
            if flags & END_STREAM:
                self._noted(self._frames > 0, time.perf_counter() - self._sent_s)
                self._stream += 2
                self._ask()

    def stop(self) -> None:
        """Close it."""
        self._transport.abort()


async def pump(
    name: str, make: Callable[[Noted], HttpPump | GrpcPump], *, port: int, clients: int, duration_s: float, server: int
) -> PumpRow:
    """Load a server on this machine.

    Args:
        name: what is asked.
        make: a new connection, which tells the function that it is given of every answer.
        port: on 127.0.0.1.
        clients: connections at once, each with one request under way.
        duration_s: what is counted, after `SETTLE_S`.
        server: its process, whose processor time is counted.

    Raises:
        ZooError: it answers nothing.
    """
    took_s: list[float] = []
    wrong = 0

    def note(is_right: bool, seconds: float) -> None:
        nonlocal wrong
        wrong += not is_right
        took_s.append(seconds)

    loop = asyncio.get_running_loop()
    pumps = [(await loop.create_connection(lambda: make(note), "127.0.0.1", port))[1] for _ in range(clients)]
    await asyncio.sleep(SETTLE_S)
    took_s.clear()
    began, spent_s, own_s = time.perf_counter(), cpu_s(server), time.process_time()
    await asyncio.sleep(duration_s)
    count, wall_s = len(took_s), time.perf_counter() - began
    spent_s, own_s = cpu_s(server) - spent_s, time.process_time() - own_s
    for one in pumps:
        one.stop()
    if not count:
        raise ZooError(f"{name}: no answer in {duration_s:g} s.", "Is the server's log telling why?")
    return PumpRow(
        name=name,
        clients=clients,
        per_s=count / wall_s,
        wrong=wrong,
        summary=summarize(1000.0 * seconds for seconds in took_s[:count]),
        server_cpu_us=1e6 * spent_s / count,
        client_cpu_us=1e6 * own_s / count,
    )


def cpu_s(process: int) -> float:
    """Seconds that a process has spent on a processor, its threads together, in steps of ten milliseconds (proc(5))."""
    fields = Path(f"/proc/{process}/stat").read_text(encoding="ascii").rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / _TICKS
