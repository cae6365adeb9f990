"""`zoo serve --status`: what a running server is said to be, and what is said where none can be asked."""

from __future__ import annotations

import json
import socket
import threading
from collections.abc import Callable
from typing import Any

import pytest

Zoo = Callable[..., Any]


def test_a_server_is_told_as_a_table_and_as_json(start_server: Callable[..., Any], fake: Any, zoo: Zoo) -> None:
    running = start_server()
    for byte in (1, 2, 3):
        assert running.post(fake.png(byte)).status_code == 200
    assert running.post(b"no picture").status_code == 400
    where = ("serve", "--status", "--port", running.port)
    answer = zoo(*where, "--json")
    found = json.loads(answer.out)
    assert (answer.code, answer.err) == (0, "")
    assert found["ready"] and found["url"] == f"http://127.0.0.1:{running.port}"
    assert found["answers"]["400"] == 1 and found["answers"]["200"] >= 3
    assert found["refused"] == {"broken_picture": 1}
    assert found["in_flight"] == 0 and found["memory_bytes"] > 10_000_000
    (model,) = found["models"]
    told = {name: model[name] for name in ("name", "version", "ready", "requests", "failed", "pictures", "queued")}
    assert told == {
        "name": "fake", "version": "1", "ready": True, "requests": 3, "failed": 1, "pictures": 3, "queued": 0
    }  # fmt: skip
    assert model["engine"] == "fake.onnx, fake 1.0, CPU, fp32"
    assert (model["instances"], model["queue_capacity"]) == (1, 64)
    assert [stage["name"] for stage in model["latency"]] == ["decode", "queue", "compute", "encode"]
    assert 0 < sum(stage["mean_ms"] for stage in model["latency"]) <= model["total_ms"]
    shown = zoo(*where)
    assert shown.code == 0
    for words in (
        found["url"],
        "ready",
        " × 200, 1 × 400",
        "1 × broken_picture",
        "0 of 64",
        "compute, ms",
        "fake.onnx",
    ):
        assert words in shown.out, shown.out


def test_a_server_that_is_not_ready_is_exit_code_1(start_server: Callable[..., Any], fake: Any, zoo: Zoo) -> None:
    runner = fake()
    runner.warm_gate.clear()
    running = start_server(runner, wait_until_warm=False)
    answer = zoo("serve", "--status", "--port", running.port, "--json")
    found = json.loads(answer.out)
    assert (answer.code, found["ready"], found["reason"]) == (1, False, "The engine is warming up.")
    assert (found["models"][0]["ready"], found["models"][0]["total_ms"]) == (False, None)
    assert "is not ready" in answer.err and "Traceback" not in answer.err
    shown = zoo("serve", "--status", "--port", running.port)
    assert shown.code == 1 and "not ready: The engine is warming up." in shown.out


def test_where_nobody_listens_it_says_so(zoo: Zoo) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
    answer = zoo("serve", "--status", "--port", port, "--json")
    assert (answer.code, answer.out) == (1, "")
    assert f"Nobody answers at http://127.0.0.1:{port}: Connection refused." in answer.err and "--port" in answer.err


@pytest.mark.parametrize(
    ("said", "asked"),
    [(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\nConnection: close\r\n\r\nhi", 2), (b"220 mail ready\r\n", 1)],
)
def test_another_server_is_told_from_ours(zoo: Zoo, said: bytes, asked: int) -> None:
    def serve(listener: socket.socket) -> None:
        for _ in range(asked):
            with listener.accept()[0] as client:
                client.recv(1000)
                client.sendall(said)

    with socket.create_server(("127.0.0.1", 0)) as listener:
        thread = threading.Thread(target=serve, args=(listener,))
        thread.start()
        answer = zoo("serve", "--status", "--port", listener.getsockname()[1])
        thread.join()
    assert (answer.code, answer.out) == (1, "")
    assert "server" in answer.err or "Nobody answers" in answer.err
    assert "Traceback" not in answer.err


def test_json_without_status_is_a_wrong_call(zoo: Zoo) -> None:
    answer = zoo("serve", "s.onnx", "--json")
    assert answer.code == 2 and "--json has no effect without --status" in answer.err


def test_the_address_may_come_from_the_environment(
    start_server: Callable[..., Any], zoo: Zoo, monkeypatch: pytest.MonkeyPatch
) -> None:
    running = start_server()
    monkeypatch.setenv("ZOO_SERVE_PORT", str(running.port))
    monkeypatch.setenv("ZOO_SERVE_HOST", "0.0.0.0")
    assert zoo("serve", "--status").code == 0
