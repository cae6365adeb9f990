"""The client that costs little, against real servers: HTTP by uvicorn, gRPC by grpcio."""

from __future__ import annotations

import asyncio
import os
import socket
import sys
import threading
from collections.abc import Callable
from typing import Any

import pytest

from serve.bench.measure.load import post
from serve.bench.measure.pump import GrpcPump, HttpPump, PumpRow, pump
from zoo.errors import ZooError

PATIENCE_S = 60.0
Start = Callable[..., Any]

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="a process's time is read from /proc")


def load(make: Any, port: int, clients: int = 2) -> PumpRow:
    return asyncio.run(pump("this", make, port=port, clients=clients, duration_s=0.3, server=os.getpid()))


def test_http_is_asked_again_and_again(start_server: Start, fake: Any) -> None:
    running = start_server()
    request = post("x", "/predict", fake.png(3), "image/png")
    row = load(lambda noted: HttpPump(request, noted), running.port)
    assert (row.name, row.clients, row.wrong) == ("this", 2, 0)
    assert row.per_s > 0 and row.summary.n > 0
    assert running.metric('zoo_requests_total{path="/predict",status="200"}') >= row.summary.n


def test_refusals_are_wrong(start_server: Start) -> None:
    request = post("x", "/predict", b"no picture", "image/png")
    row = load(lambda noted: HttpPump(request, noted), start_server().port)
    assert row.wrong >= row.summary.n > 0


def test_grpc_is_asked_again_and_again(start_server: Start, fake: Any) -> None:
    pytest.importorskip("grpc")
    from serve.models.models import only
    from serve.rpc.schema import message_class
    from serve.rpc.server import grpc_server

    running = start_server()
    models, stop, ready = only(running.service), threading.Event(), threading.Event()
    ports: list[int] = []

    async def serve() -> None:
        async with grpc_server(models, "127.0.0.1:0", max_body_bytes=10**6, drain_s=1.0) as port:
            ports.append(port)
            ready.set()
            while not stop.is_set():
                await asyncio.sleep(0.01)

    running.service._inbox = None  # the answers go to the loop of gRPC from here on
    thread = threading.Thread(target=lambda: asyncio.run(serve()))
    thread.start()
    assert ready.wait(PATIENCE_S)
    asked = message_class("ModelInferRequest")(model_name="fake")
    asked.inputs.add(name="pictures", datatype="UINT8", shape=[1, 8, 8, 3])
    asked.raw_input_contents.append(bytes([7]) * 192)
    path = "/inference.GRPCInferenceService/ModelInfer"
    row = load(lambda noted: GrpcPump(path, asked.SerializeToString(), noted), ports[0])
    assert row.wrong == 0 and row.summary.n > 0
    asked.model_name = "other"
    wrong = load(lambda noted: GrpcPump(path, asked.SerializeToString(), noted), ports[0])
    assert wrong.wrong >= wrong.summary.n > 0
    stop.set()
    thread.join(PATIENCE_S)


def test_a_message_beyond_the_first_window_is_refused() -> None:
    with pytest.raises(ZooError, match="window"):
        GrpcPump("/x", bytes(70_000), lambda is_right, seconds: None)


def test_a_server_that_says_nothing_is_told() -> None:
    with socket.create_server(("127.0.0.1", 0)) as silent, pytest.raises(ZooError, match="no answer"):
        load(lambda noted: HttpPump(b"GET / HTTP/1.1\r\n\r\n", noted), silent.getsockname()[1], clients=1)
