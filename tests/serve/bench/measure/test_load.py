"""The client of `zoo bench serve` against a real server."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from serve.bench.measure.load import Target, closed_loop, is_whole, open_loop, post
from serve.bench.measure.serving import bench_serve, find_target
from serve.bench.options import ServeBenchOptions
from zoo.errors import ZooError

Start = Callable[..., Any]


@pytest.fixture
def serving(start_server: Start) -> Any:
    """A real server of a fake engine."""
    return start_server()


@pytest.fixture
def target(serving: Any, fake: Any) -> Target:
    """A request with a picture, and where to send it."""
    return Target("ours", "127.0.0.1", serving.port, post("x", "/predict", fake.png(3), "image/png"))


def test_a_closed_loop_asks_again_and_again(serving: Any, target: Target) -> None:
    row = asyncio.run(closed_loop(target, clients=3, duration_s=0.3))
    assert (row.loop, row.clients, row.lost, row.refusals) == ("closed", 3, 0, None)
    assert row.summary is not None and row.good_per_s > 0 and row.after_ms > 0
    # Each client asks once more than is counted, in the part of the loop that warms up, and there is one at the end.
    assert serving.metric("zoo_pictures_total") > row.summary.n


def test_an_open_loop_offers_its_rate(serving: Any, target: Target) -> None:
    row = asyncio.run(open_loop(target, rate=100.0, duration_s=0.5))
    assert (row.loop, row.offered_per_s, row.lost) == ("open", 100.0, 0)
    assert row.summary is not None
    asked = serving.metric("zoo_pictures_total") - 1
    assert 20 <= asked <= 90  # 50 are expected; a Poisson process of a fixed seed


def test_refusals_are_counted_apart(serving: Any, target: Target) -> None:
    serving.service.stop_accepting()
    row = asyncio.run(open_loop(target, rate=50.0, duration_s=0.3))
    assert row.summary is None and row.refusals is not None and row.good_per_s == 0


@pytest.mark.parametrize(
    "answer",
    [
        b"HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\n[33]",
        b"HTTP/1.1 503 Busy\r\nContent-Length: 0\r\n\r\n",
        # a chunk whose data look like a last chunk, and the last one
        b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n4\r\n[33,\r\n7\r\n\r\n0\r\n\r\n\r\n0\r\n\r\n",
        b"HTTP/1.1 500 No\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
    ],
)
def test_an_answer_is_whole_with_its_last_byte(answer: bytes) -> None:
    assert [is_whole(bytearray(answer[:n])) for n in range(len(answer) + 1)] == [False] * len(answer) + [True]


def test_a_server_that_hangs_up_has_lost_its_requests() -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        target = Target("gone", "127.0.0.1", listener.getsockname()[1], post("x", "/", b"", "image/png"))

        async def hang_up(reader: Any, writer: Any) -> None:
            writer.transport.abort()

        async def measure() -> None:
            async with await asyncio.start_server(hang_up, sock=listener):
                await closed_loop(target, clients=1, duration_s=0.1)

        with pytest.raises(ZooError, match="answered none"):
            asyncio.run(measure())


def test_a_whole_measurement_has_every_load(serving: Any, fake: Any, tmp_path: Path) -> None:
    picture = tmp_path / "a.png"
    picture.write_bytes(fake.png(7))
    said: list[str] = []
    options = ServeBenchOptions(
        servers=(f"ours=http://127.0.0.1:{serving.port}",),
        clients=(1, 2),
        overload=(2.0,),
        duration_s=0.2,
        picture=picture,
    )
    result = bench_serve(options, say=said.append)
    assert (result.kind, result.name) == ("serve", "ours")
    assert [row["loop"] for row in result.data["rows"]] == ["closed"] * 2 + ["open"] * 6
    assert result.data["rows"][-1]["capacity_share"] == 2.0
    assert len(said) == 8 and "2 clients" in said[1]


@pytest.mark.parametrize("server", ["127.0.0.1:8080", "ours=", "ftp://x", "https://127.0.0.1"])
def test_what_is_no_address_is_refused(server: str) -> None:
    with pytest.raises(ZooError, match="no address"):
        find_target(server, b"", ServeBenchOptions(servers=(server,)))


def test_nobody_listens_is_said(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    with pytest.raises(ZooError, match="Nobody listens"):
        bench_serve(ServeBenchOptions(servers=(f"http://127.0.0.1:{port}",), duration_s=0.1))


def test_a_picture_that_is_not_there_is_said(tmp_path: Path) -> None:
    options = ServeBenchOptions(servers=("http://127.0.0.1:1",), picture=tmp_path / "none.jpg")
    with pytest.raises(ZooError, match="cannot be read"):
        bench_serve(options)
