"""Owns the load on a server: requests in closed and open loops, by one client process, and what came of each.

In a closed loop each client waits for its answer before it asks again, as a batch job does: the server sets the pace.
In an open loop requests come at random times at a given rate, as those of many people do, whether or not the server
keeps up; a request's time is counted from when it was due, so a client that is late hides nothing (the "coordinated
omission" of closed loops).
"""

from __future__ import annotations

import asyncio
import random
import re
import time
from collections import deque
from dataclasses import dataclass
from typing import Annotated, Literal, cast

from zoo.errors import ZooError
from zoo.results import Summary, summarize
from zoo.rows import Count, NotNegative, Positive, Row, Text, Within

LENGTH = re.compile(rb"\r\ncontent-length: *(\d+)", re.IGNORECASE)
CHUNKED = re.compile(rb"\r\ntransfer-encoding: *chunked", re.IGNORECASE)
# A request without an answer for so long has failed, as it has for most clients' defaults.
PATIENCE_S = 10.0
# A client that is refused waits for a moment, as Retry-After asks it to; one that asks again at once only keeps the
# server from its work.
REFUSED_PAUSE_S = 0.1
# Samples of the first part of a loop are not counted: connections are opened and queues fill then.
WARM_UP_SHARE = 0.15


@dataclass(frozen=True, slots=True)
class Sample:
    """One request: when it was due, in seconds since the loop's beginning, what it took, and its status; 0 is none."""

    due_s: float
    took_s: float
    status: int


@dataclass(frozen=True, kw_only=True)
class LoadRow(Row):
    """What a server did under one load; `summary` is of the requests it answered with 200, `refusals` of the others.

    `offered_per_s` is None in a closed loop. `lost` got no answer within `PATIENCE_S`. `after_ms` is one request
    on an idle server, right after the loop. `capacity_share` is the rate offered as a share of the closed loop's best.
    """

    server: Text
    loop: Literal["closed", "open"]
    clients: Count | None = None
    offered_per_s: Positive | None = None
    capacity_share: Positive | None = None
    duration_s: Positive
    good_per_s: NotNegative
    refused_per_s: NotNegative
    lost: Annotated[int, Within(0)]
    summary: Summary | None
    refusals: Summary | None
    after_ms: NotNegative


def is_whole(heard: bytearray) -> bool:
    """Whether an answer has come to its end, by its length or its last chunk (RFC 9112, section 6); no trailers."""
    end = heard.find(b"\r\n\r\n")
    if end < 0:
        return False
    if (length := LENGTH.search(heard, 0, end + 2)) is not None:
        return len(heard) >= end + 4 + int(length[1])
    if CHUNKED.search(heard, 0, end + 2) is None:
        return False
    start = end + 4
    while (line := heard.find(b"\r\n", start)) >= 0:
        size = int(heard[start:line].partition(b";")[0], 16)
        start = line + 2 + size + 2
        if size == 0:
            return len(heard) >= start
    return False


class Connection(asyncio.Protocol):
    """One connection of HTTP/1.1, one request at a time."""

    def __init__(self) -> None:
        self.transport: asyncio.Transport | None = None
        self._heard = bytearray()
        self._answer: asyncio.Future[int] | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Keep the transport."""
        self.transport = cast(asyncio.Transport, transport)  # uvloop's is registered as none

    def connection_lost(self, exc: Exception | None) -> None:
        """Whoever waits gets none."""
        self.transport = None
        self._finish(0)

    def data_received(self, data: bytes) -> None:
        """Wait for a whole answer."""
        self._heard += data
        if is_whole(self._heard):
            status = int(self._heard[9:12])
            self._heard.clear()
            self._finish(status)

    def ask(self, request: bytes) -> asyncio.Future[int]:
        """Send; the future gets the status, 0 when the connection is lost."""
        self._answer = asyncio.get_running_loop().create_future()
        if self.transport is None or self.transport.is_closing():
            self._finish(0)
            return self._answer
        self.transport.write(request)
        return self._answer

    def _finish(self, status: int) -> None:
        if self._answer is not None and not self._answer.done():
            self._answer.set_result(status)


@dataclass(frozen=True)
class Target:
    """A server, and the one request that is sent to it again and again."""

    name: str
    host: str
    port: int
    request: bytes

    async def connect(self) -> Connection:
        """Open a connection.

        Raises:
            OSError: nobody listens.
        """
        _, connection = await asyncio.get_running_loop().create_connection(Connection, self.host, self.port)
        return connection

    async def ask_once(self) -> tuple[int, float]:
        """Status and seconds of one request on a connection of its own."""
        began_s = time.perf_counter()
        connection = await self.connect()
        try:
            status = await asyncio.wait_for(connection.ask(self.request), PATIENCE_S)
        except TimeoutError:
            status = 0
        finally:
            if connection.transport is not None:
                connection.transport.close()
        return status, time.perf_counter() - began_s


def post(host: str, path: str, body: bytes, content_type: str) -> bytes:
    """The bytes of a request."""
    head = (
        f"POST {path} HTTP/1.1\r\nHost: {host}\r\nContent-Type: {content_type}\r\nContent-Length: {len(body)}\r\n\r\n"
    )
    return head.encode() + body


async def closed_loop(target: Target, *, clients: int, duration_s: float) -> LoadRow:
    """So many clients, each asking again as soon as it has its answer, and a moment later where it was refused."""
    samples: list[Sample] = []
    began_s = time.perf_counter()

    async def client() -> None:
        connection = await target.connect()
        while (due_s := time.perf_counter() - began_s) < duration_s:
            if connection.transport is None:
                connection = await target.connect()
            status = await _answer(connection, target.request)
            samples.append(Sample(due_s, time.perf_counter() - began_s - due_s, status))
            if status not in (0, 200):
                await asyncio.sleep(REFUSED_PAUSE_S)
        if connection.transport is not None:
            connection.transport.close()

    await asyncio.gather(*(client() for _ in range(clients)))
    return await _row(target, samples, duration_s, loop="closed", clients=clients)


async def open_loop(target: Target, *, rate: float, duration_s: float, seed: int = 0) -> LoadRow:
    """Requests that come at random (a Poisson process of `rate` a second), on as many connections as that needs."""
    samples: list[Sample] = []
    free: deque[Connection] = deque()
    draw, due_s, tasks = random.Random(seed), 0.0, set()
    began_s = time.perf_counter()

    async def one(due_s: float) -> None:
        connection = free.pop() if free else None
        try:
            if connection is None or connection.transport is None:
                connection = await target.connect()
            status = await _answer(connection, target.request)
        except OSError:
            samples.append(Sample(due_s, time.perf_counter() - began_s - due_s, 0))
            return
        samples.append(Sample(due_s, time.perf_counter() - began_s - due_s, status))
        if connection.transport is not None and not connection.transport.is_closing():
            free.append(connection)

    while (due_s := due_s + draw.expovariate(rate)) < duration_s:
        if (wait_s := due_s - (time.perf_counter() - began_s)) > 0.0:
            await asyncio.sleep(wait_s)
        # A timer of the loop may be up to a millisecond early.
        task = asyncio.ensure_future(one(min(due_s, time.perf_counter() - began_s)))
        tasks.add(task)
        task.add_done_callback(tasks.discard)
    await asyncio.gather(*tasks)
    for connection in free:
        if connection.transport is not None:
            connection.transport.close()
    return await _row(target, samples, duration_s, loop="open", offered_per_s=rate)


async def _answer(connection: Connection, request: bytes) -> int:
    try:
        return await asyncio.wait_for(connection.ask(request), PATIENCE_S)
    except TimeoutError:
        if connection.transport is not None:
            connection.transport.abort()
        return 0


async def _row(
    target: Target,
    samples: list[Sample],
    duration_s: float,
    *,
    loop: Literal["closed", "open"],
    clients: int | None = None,
    offered_per_s: float | None = None,
) -> LoadRow:
    """Sum up, and ask once more of the idle server.

    Raises:
        ZooError: it answered nothing at all.
    """
    _, after_s = await target.ask_once()
    start_s = WARM_UP_SHARE * duration_s
    counted = [sample for sample in samples if sample.due_s >= start_s]
    good = [sample for sample in counted if sample.status == 200]
    refused = [sample for sample in counted if sample.status not in (0, 200)]
    if not good and not refused:
        raise ZooError(f"{target.name} answered none of {len(samples)} requests.", "Is it the right address?")
    # Answers per second while the load lasted: what came after it would count for nobody's second.
    in_time = sum(start_s <= sample.due_s + sample.took_s < duration_s for sample in samples if sample.status == 200)
    return LoadRow(
        server=target.name,
        loop=loop,
        clients=clients,
        offered_per_s=offered_per_s,
        duration_s=duration_s,
        good_per_s=in_time / (duration_s - start_s),
        refused_per_s=len(refused) / (duration_s - start_s),
        lost=sum(sample.status == 0 for sample in counted),
        summary=summarize(1000.0 * sample.took_s for sample in good) if good else None,
        refusals=summarize(1000.0 * sample.took_s for sample in refused) if refused else None,
        after_ms=1000.0 * after_s,
    )
