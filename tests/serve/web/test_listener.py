"""Connections that cost too much, by real sockets: endless heads, slow ones, silent ones, too many."""

from __future__ import annotations

import json
import socket
from collections.abc import Callable
from typing import Any

import pytest

from serve.web.listener import ConnectionLimits, Lingering

PATIENCE_S = 60.0
Start = Callable[..., Any]


def connect(running: Any, said: bytes = b"") -> socket.socket:
    client = socket.create_connection(("127.0.0.1", running.port), PATIENCE_S)
    client.sendall(said)
    return client


def read_all(client: socket.socket) -> bytes:
    """Everything up to the end of the connection."""
    heard = b""
    while True:
        try:
            part = client.recv(65536)
        except ConnectionResetError:
            return heard
        if not part:
            return heard
        heard += part


def answer_of(client: socket.socket) -> tuple[int, dict[str, str]]:
    """Status and body of the one answer before the connection ends."""
    heard = read_all(client)
    head, _, body = heard.partition(b"\r\n\r\n")
    assert b"connection: close" in head.lower()
    return int(head.split()[1]), json.loads(body)


def limits(**changes: Any) -> ConnectionLimits:
    return ConnectionLimits(**{"max_connections": 100} | changes)


def test_a_head_without_end_is_a_431(start_server: Start) -> None:
    running = start_server(connections=limits(max_header_bytes=4096))
    with connect(running, b"POST /predict HTTP/1.1\r\nX: ") as client, pytest.raises(OSError):
        while True:  # closed by the server, whatever goes on coming
            client.sendall(b"a" * 65536)
    with connect(running, b"POST /predict HTTP/1.1\r\nX: " + b"a" * 5000) as client:
        status, said = answer_of(client)
    assert status == 431
    assert said["error"] == "The head of the request is larger than 4 KiB." and said["hint"]
    assert running.client.get("/healthz").status_code == 200


def test_a_large_head_that_comes_in_one_piece_is_a_431(start_server: Start) -> None:
    running = start_server(connections=limits(max_header_bytes=4096))
    many = b"".join(b"X-%d: y\r\n" % number for number in range(1000))
    with connect(running, b"GET /healthz HTTP/1.1\r\nHost: x\r\n" + many + b"\r\n") as client:
        assert answer_of(client)[0] == 431


def test_a_head_of_almost_the_limit_is_read(start_server: Start) -> None:
    running = start_server(connections=limits(max_header_bytes=4096))
    reply = running.client.get("/healthz", headers={"x-long": "a" * 3500})
    assert reply.status_code == 200
    assert running.client.get("/healthz", headers={"x-long": "a" * 3500}).status_code == 200  # on the same connection


def test_a_head_that_does_not_end_in_time_is_a_408(start_server: Start) -> None:
    running = start_server(connections=limits(header_timeout_s=0.05))
    with connect(running, b"GET /healthz HTT") as client:
        status, said = answer_of(client)
    assert (status, said["error"]) == (408, "The head of the request did not come within 0.05 s.")


def test_a_second_head_has_a_limit_of_its_own(start_server: Start) -> None:
    running = start_server(connections=limits(header_timeout_s=0.05))
    with connect(running, b"GET /healthz HTTP/1.1\r\nHost: x\r\n\r\n") as client:
        assert client.recv(65536).startswith(b"HTTP/1.1 200 ")
        client.sendall(b"GET /hea")
        assert answer_of(client)[0] == 408


def test_a_connection_that_says_nothing_is_closed(start_server: Start) -> None:
    running = start_server(connections=limits(header_timeout_s=0.05))
    with connect(running) as client:
        assert read_all(client) == b""


def test_a_body_nobody_reads_has_a_limit_too(start_server: Start) -> None:
    running = start_server(connections=limits(body_timeout_s=0.05))
    with connect(running, b"GET /healthz HTTP/1.1\r\nHost: x\r\nContent-Length: 1000\r\n\r\n") as client:
        assert read_all(client).startswith(b"HTTP/1.1 200 ")


def test_where_there_are_too_many_connections_the_one_idle_longest_goes(start_server: Start) -> None:
    running = start_server(connections=limits(max_connections=4))
    silent = []
    for number in range(4):
        silent.append(connect(running))
        while running.doors.count < number + 1:
            pass
    with connect(running, b"GET /healthz HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n") as newest:
        assert read_all(newest).startswith(b"HTTP/1.1 200 ")
    assert read_all(silent[0]) == b""
    silent[1].sendall(b"GET /healthz HTTP/1.1\r\nHost: x\r\n\r\n")
    assert silent[1].recv(65536).startswith(b"HTTP/1.1 200 ")
    for client in silent:
        client.close()


def test_a_thousand_silent_connections_keep_nobody_out(start_server: Start, fake: Any) -> None:
    running = start_server(connections=limits(max_connections=50))
    silent = [connect(running) for _ in range(400)]
    assert running.post(fake.png(3)).status_code == 200
    assert running.doors.count <= 51
    assert running.doors.turned_away >= 350
    for client in silent:
        client.close()


def test_connections_with_requests_under_way_are_not_closed_for_new_ones(start_server: Start, fake: Any) -> None:
    running = start_server(connections=limits(max_connections=2), max_batch_size=1)
    running.runner.hold()
    waiting = []
    for byte in (1, 2):
        body = fake.png(byte)
        head = b"POST /predict HTTP/1.1\r\nHost: x\r\nConnection: close\r\nContent-Length: %d\r\n\r\n" % len(body)
        waiting.append(connect(running, head + body))
        while running.service.in_flight < byte:
            pass
    with connect(running) as third:
        status, said = answer_of(third)
    assert (status, said["error"]) == (503, "The server has as many connections as it takes.")
    running.runner.release()
    for client in waiting:
        assert read_all(client).startswith(b"HTTP/1.1 200 ")
        client.close()


def test_what_is_no_http_is_a_400_in_json(start_server: Start) -> None:
    with connect(start_server(), b"\x16\x03\x01 hello\r\n\r\n") as client:
        status, said = answer_of(client)
    assert status == 400 and set(said) == {"error", "hint"}


def test_an_answer_before_the_body_has_come_reaches_a_client_that_goes_on_sending(start_server: Start) -> None:
    """Closed at once, the connection would be reset, and the answer lost with what the client had still to send."""
    running = start_server(max_body_bytes=1000)
    total = 4_000_000
    with connect(running, b"POST /predict HTTP/1.1\r\nHost: x\r\nContent-Length: %d\r\n\r\n" % total) as client:
        client.sendall(b"x" * (total // 2))
        status, said = answer_of(client)
    assert (status, said["error"]) == (413, "The body is larger than 0.001 MB.")


@pytest.mark.parametrize(
    "head", [b"GET /healthz HTTP/1.1\r\nHost: x\r\n\r\n", b"GET /nothing HTTP/1.1\r\nHost: x\r\n\r\n"]
)
def test_requests_one_after_another_in_one_piece_are_all_answered(start_server: Start, head: bytes) -> None:
    last = head.replace(b"Host", b"Connection: close\r\nHost")
    with connect(start_server(), head * 3 + last) as client:
        assert read_all(client).count(b"HTTP/1.1 ") == 4


def test_a_server_that_is_about_to_stop_closes_connections_after_their_answer(start_server: Start, fake: Any) -> None:
    running = start_server()
    running.service.leave()
    running.doors.is_leaving = True
    reply = running.post(fake.png(1))
    assert (reply.status_code, reply.headers["connection"]) == (200, "close")
    ready = running.client.get("/readyz")
    assert (ready.status_code, ready.json()["error"]) == (503, "The server is about to shut down.")
    assert running.post(fake.png(2)).status_code == 200


def test_an_answer_goes_out_in_one_piece(start_server: Start, fake: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    pieces: list[int] = []
    send = Lingering._send

    def send_and_count(self: Lingering, data: bytes) -> None:
        pieces.append(len([part for part in (self._head, data) if part]))
        send(self, data)

    monkeypatch.setattr(Lingering, "_send", send_and_count)
    running = start_server()
    assert running.client.get("/info").json()["model"] == "fake"
    assert pieces == [2]


@pytest.mark.parametrize("method", ["HEAD", "GET"])
def test_an_answer_without_a_body_is_sent(start_server: Start, method: str) -> None:
    running = start_server()
    for path in ("/healthz", "/v2/health/live", "/healthz"):  # the second one is empty
        reply = running.client.request(method, path)
        assert reply.status_code == 200
        assert bool(reply.content) == (method == "GET" and path == "/healthz")


def test_a_client_that_asks_first_is_told_to_go_on(start_server: Start, fake: Any) -> None:
    picture = fake.png(3)
    said = (
        b"POST /predict HTTP/1.1\r\nHost: x\r\nExpect: 100-continue\r\nConnection: close\r\nContent-Length: %d\r\n\r\n"
    )
    with connect(start_server(), said % len(picture)) as client:
        assert client.recv(65536) == b"HTTP/1.1 100 Continue\r\n\r\n"
        client.sendall(picture)
        assert answer_of(client)[0] == 200
