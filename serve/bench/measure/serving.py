"""Owns the questions put to a server: what it does for 1, 8 and 32 clients, up to which load it keeps up, and beyond.

The loads are `serve.bench.measure.load`'s; what a server must be told to start is its owner's.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path
from typing import Annotated
from urllib.parse import urlsplit

from serve.bench.measure.load import LoadRow, Target, closed_loop, open_loop, post
from serve.bench.options import ServeBenchOptions
from zoo.errors import ZooError
from zoo.machine import processor_name
from zoo.results import Result, Subject, measured_on
from zoo.rows import Count, Row, Some, Text

# Open loops, as shares of the best rate of the closed ones; overload comes after them.
SHARES = (0.25, 0.5, 0.75, 0.9, 1.0)
CLIENTS = (1, 8, 32)
OVERLOAD = (2.0, 3.0)
# A result of more servers is not called by the names of all.
MOST_NAMED = 2
# The names that benchmarks/servers.py gives to our servers, and to decoding and inference without one.
NO_SERVER = {"zoo": "no server", "zoo, quick pictures": "no server, quick pictures"}
# Up to the knee a server answers all but one request in a hundred, and its p99 is at most so many times that of the
# lightest load.
ANSWERED, STEEP = 0.99, 3.0


@dataclass(frozen=True, kw_only=True)
class ServeData(Row):
    """Every load of every server; `picture` is what each request carried. Servers ran one after another."""

    rows: Annotated[tuple[LoadRow, ...], Some()]
    picture: Text
    picture_bytes: Count
    versions: tuple[str, ...] = ()

    @property
    def servers(self) -> list[str]:
        """Their names, in the order measured."""
        return list(dict.fromkeys(row.server for row in self.rows))

    def closed(self, server: str) -> list[LoadRow]:
        """Its closed loops, by the number of clients."""
        rows = [row for row in self.rows if row.server == server and row.loop == "closed"]
        return sorted(rows, key=lambda row: row.clients or 0)

    def opened(self, server: str) -> list[LoadRow]:
        """Its open loops, by the load offered."""
        rows = [row for row in self.rows if row.server == server and row.loop == "open"]
        return sorted(rows, key=lambda row: row.offered_per_s or 0.0)

    def best_per_s(self, server: str) -> float:
        """Requests per second in the best closed loop; 0 without one."""
        return max((row.good_per_s for row in self.closed(server)), default=0.0)

    def knee(self, server: str) -> LoadRow | None:
        """The highest load up to which it kept up with every one: see `ANSWERED` and `STEEP`."""
        found = None
        rows = self.opened(server)
        for row in rows:
            if row.summary is None or rows[0].summary is None:
                break
            answered = row.summary.n / (row.summary.n + row.lost + (row.refusals.n if row.refusals else 0))
            if answered < ANSWERED or row.summary.p99_ms > STEEP * rows[0].summary.p99_ms:
                break
            found = row
        return found


def bench_serve(options: ServeBenchOptions, *, say: Callable[[str], None] = lambda line: None) -> Result:
    """Measure servers that run already, one after another.

    Args:
        options: its servers are addresses, with a name in front where the host's is not enough: `zoo=http://…`.
        say: is told each load's outcome in one line.

    Raises:
        ZooError: an address that is none, nobody listens there, or it answers nothing.
    """
    body, picture = read_picture(options.picture)
    rows: list[LoadRow] = []
    for server in options.servers:
        target = find_target(server, body, options)
        rows += measure_server(target, options, say=say)
    return serve_result(rows, options, picture=picture, picture_bytes=len(body))


def serve_result(
    rows: Sequence[LoadRow],
    options: ServeBenchOptions,
    *,
    picture: str,
    picture_bytes: int,
    versions: Sequence[str] = (),
) -> Result:
    """What is kept of rows, of one server or several."""
    data = ServeData(rows=tuple(rows), picture=picture, picture_bytes=picture_bytes, versions=tuple(versions))
    first, *others = data.servers
    few = len(others) <= MOST_NAMED
    subjects = [Subject(name=name) for name in (data.servers if few else [f"{first} beside {len(others)} others"])]
    return Result(
        kind="serve",
        name=" vs ".join(subject.name for subject in subjects),
        environment=measured_on(processor_name()),
        settings={
            "subjects": [subject.to_dict() for subject in subjects],
            "clients": list(options.clients or CLIENTS),
            "shares": list(SHARES),
            "overload": list(options.overload or OVERLOAD),
            "duration_s": options.duration_s,
            "client": "one process on the same machine, HTTP/1.1 with kept connections",
        },
        data=data.to_dict(),
    )


def measure_server(
    target: Target, options: ServeBenchOptions, *, say: Callable[[str], None] = lambda line: None
) -> list[LoadRow]:
    """All loads of one server: closed loops, then open ones at shares of the best of them, overload last.

    Raises:
        ZooError: nobody listens, or the first request gets another answer than 200.
    """
    return asyncio.run(_measure(target, options, say))


async def _measure(target: Target, options: ServeBenchOptions, say: Callable[[str], None]) -> list[LoadRow]:
    try:
        status, _ = await target.ask_once()
    except OSError as error:
        raise ZooError(
            f"Nobody listens at {target.host}:{target.port}.", "Start the server first: zoo serve s.onnx"
        ) from error
    if status != 200:
        raise ZooError(f"{target.name} answers the first request with {status}, not 200.", "See its log.")
    rows = []
    for clients in options.clients or CLIENTS:
        rows.append(await closed_loop(target, clients=clients, duration_s=options.duration_s))
        say(describe(rows[-1]))
    best_per_s = max(row.good_per_s for row in rows)
    if not best_per_s:
        raise ZooError(f"{target.name} answered nothing in time.", "A longer --duration-s may show more.")
    for share in (*SHARES, *(options.overload or OVERLOAD)):
        row = await open_loop(target, rate=share * best_per_s, duration_s=options.duration_s)
        rows.append(replace(row, capacity_share=share))
        say(describe(rows[-1]))
    return rows


def describe(row: LoadRow) -> str:
    """One line of progress."""
    load = f"{row.clients} clients" if row.loop == "closed" else f"{row.offered_per_s:.0f}/s offered"
    times = f"p50 {row.summary.p50_ms:.1f} ms, {row.summary.tail}" if row.summary else "none in time"
    return f"{row.server}, {load}: {row.good_per_s:.0f}/s answered, {row.refused_per_s:.0f}/s refused, {times}"


def find_target(server: str, body: bytes, options: ServeBenchOptions) -> Target:
    """The server of `NAME=URL` or `URL`.

    Raises:
        ZooError: it is no http address.
    """
    name, separator, address = server.partition("=")
    url = urlsplit(address if separator else server)
    if url.scheme != "http" or not url.hostname:
        raise ZooError(f"{server!r} is no address of a server.", "Example: zoo bench serve http://127.0.0.1:8080")
    path = url.path if url.path not in ("", "/") else options.path
    request = post(url.netloc, path, body, "image/jpeg")
    return Target(name if separator else url.netloc, url.hostname, url.port or 80, request)


def read_picture(path: Path | None) -> tuple[bytes, str]:
    """A picture's bytes and its name; by default scikit-learn's photograph, 640 × 427 pixels.

    Raises:
        ZooError: it cannot be read.
    """
    if path is None:
        return _photograph(), "china.jpg, 640×427"
    try:
        return path.read_bytes(), path.name
    except OSError as error:
        raise ZooError(f"{path} cannot be read: {error.strerror}.", "Name a picture's file.") from error


@cache
def _photograph() -> bytes:
    import sklearn.datasets

    return Path(sklearn.datasets.__file__).with_name("images").joinpath("china.jpg").read_bytes()
