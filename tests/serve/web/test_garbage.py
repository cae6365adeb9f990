"""What a request leaves behind is freed at once: Python's garbage collector finds nothing of it."""

from __future__ import annotations

import gc
import json
import socket
from collections.abc import Callable, Iterator
from typing import Any

import pytest

PATIENCE_S = 60.0
REQUESTS = 20
PIXELS = bytes([7]) * 192
HEAD = json.dumps(
    {
        "inputs": [
            {"name": "pictures", "shape": [1, 8, 8, 3], "datatype": "UINT8", "parameters": {"binary_data_size": 192}}
        ]
    }
).encode()


@pytest.fixture
def no_collector() -> Iterator[None]:
    """Nothing is collected but by the test."""
    gc.collect()
    gc.disable()
    yield
    gc.enable()


def post(path: str, body: bytes, *headers: str) -> bytes:
    lines = [f"POST {path} HTTP/1.1", "Host: x", f"Content-Length: {len(body)}", *headers]
    return "\r\n".join(lines).encode() + b"\r\n\r\n" + body


def asks(client: socket.socket, request: bytes) -> bytes:
    """One answer, by a client that leaves nothing to the collector itself."""
    client.sendall(request)
    heard = b""
    while True:
        head, _, body = heard.partition(b"\r\n\r\n")
        length = head.lower().partition(b"content-length: ")[2].partition(b"\r\n")[0]
        if length and len(body) >= int(length):
            return heard
        heard += client.recv(65536)


@pytest.mark.parametrize(
    ("kind", "status"), [("tensors", 200), ("a picture", 200), ("no picture", 400), ("no route", 404)]
)
def test_a_request_leaves_nothing_to_the_garbage_collector(
    start_server: Callable[..., Any], fake: Any, no_collector: None, kind: str, status: int
) -> None:
    request = {
        "tensors": post("/v2/models/fake/infer", HEAD + PIXELS, f"Inference-Header-Content-Length: {len(HEAD)}"),
        "a picture": post("/predict", fake.png(7)),
        "no picture": post("/predict", b"hello"),
        "no route": post("/nothing", b"hello"),
    }[kind]
    running = start_server()
    with socket.create_connection(("127.0.0.1", running.port), PATIENCE_S) as client:
        asks(client, request)
        gc.collect()
        for _ in range(REQUESTS):
            assert asks(client, request).startswith(f"HTTP/1.1 {status} ".encode())
        assert gc.collect() < REQUESTS
