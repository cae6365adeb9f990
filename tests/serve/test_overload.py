"""More requests than the engine can answer, by a real server: those taken are answered soon, the others at once."""

from __future__ import annotations

import socket
import threading
from collections import Counter
from collections.abc import Callable
from typing import Any

import httpx
import pytest

PATIENCE_S = 60.0
Start = Callable[..., Any]


def slow(fake: Any, batch_s: float) -> Any:
    """A runner that takes so long for a batch of any size."""
    pause = threading.Event()
    return fake(on_infer=lambda batch_size: pause.wait(batch_s) and None)


def test_a_request_that_would_wait_too_long_is_refused_at_once(start_server: Start, fake: Any) -> None:
    running = start_server(slow(fake, 0.05), max_batch_size=1, max_wait_s=0.12)
    running.runner.hold()
    first = running.post_later(fake.png(1))
    running.runner.entered.get(timeout=PATIENCE_S)
    waiting = [first]
    while running.service.expected_wait_s(running.service.slot.engine) <= 0.12:
        before = running.service.in_flight
        waiting.append(running.post_later(fake.png(2)))
        while running.service.in_flight == before or running.service.receiving:
            pass
    reply = running.post(b"its body is not even looked at")
    assert reply.status_code == 503
    assert "longer than 120 ms" in reply.json()["error"] and "--max-wait-ms" in reply.json()["hint"]
    assert int(reply.headers["retry-after"]) >= 1
    assert running.metric('zoo_rejected_total{reason="too_busy"}') == 1
    assert 3 <= len(waiting) <= 6  # 0.12 s are two or three batches, and one is under way
    running.runner.release()
    assert [answers.get(timeout=PATIENCE_S).status_code for answers in waiting] == [200] * len(waiting)
    assert running.post(fake.png(3)).status_code == 200


def test_what_fits_one_batch_is_taken_by_the_slowest_engine(start_server: Start, fake: Any) -> None:
    running = start_server(slow(fake, 0.3), max_batch_size=4, max_wait_s=0.001)
    waiting = [running.post_later(fake.png(byte)) for byte in (1, 2, 3, 4)]
    assert [answers.get(timeout=PATIENCE_S).status_code for answers in waiting] == [200] * 4


def test_three_times_as_many_clients_as_it_can_serve_leave_no_queue_behind(start_server: Start, fake: Any) -> None:
    running = start_server(slow(fake, 0.02), max_batch_size=2, max_wait_s=0.06)
    statuses: Counter[int] = Counter()
    longest_queue_ms: list[float] = []

    def ask() -> None:
        with httpx.Client(base_url=running.client.base_url, timeout=PATIENCE_S, trust_env=False) as client:
            for _ in range(12):
                reply = client.post("/predict", content=fake.png(1))
                statuses[reply.status_code] += 1
                if reply.status_code == 200:
                    longest_queue_ms.append(reply.json()["timings_ms"]["queue"])

    clients = [threading.Thread(target=ask) for _ in range(24)]
    for client in clients:
        client.start()
    for client in clients:
        client.join(PATIENCE_S)
    assert statuses[200] + statuses[503] == 24 * 12
    assert statuses[200] and statuses[503]
    assert running.service.in_flight == running.batcher.queued == 0
    assert running.metric("zoo_pictures_total") == statuses[200]
    assert running.post(fake.png(1)).status_code == 200


def test_without_a_limit_the_queue_alone_decides(start_server: Start, fake: Any) -> None:
    running = start_server(slow(fake, 0.05), max_batch_size=1, max_wait_s=None, queue_capacity=50)
    waiting = [running.post_later(fake.png(byte)) for byte in range(1, 21)]
    assert {answers.get(timeout=PATIENCE_S).status_code for answers in waiting} == {200}


def begin(port: int, length: int, body: bytes = b"") -> socket.socket:
    """Send a request up to some of its body; the server reads it once it says 100."""
    client = socket.create_connection(("127.0.0.1", port), PATIENCE_S)
    head = f"POST /predict HTTP/1.1\r\nHost: x\r\nExpect: 100-continue\r\nContent-Length: {length}\r\n\r\n"
    client.sendall(head.encode())
    assert client.recv(1000).startswith(b"HTTP/1.1 100 ")
    client.sendall(body)
    return client


def test_slow_clients_take_nobodys_place(start_server: Start, fake: Any) -> None:
    running = start_server(max_in_flight=3, max_batch_size=1, max_wait_s=0.05)
    body = fake.png(2)
    slow_ones = [begin(running.port, len(body), body[:9]) for _ in range(20)]
    assert running.service.receiving == 20
    assert [running.post(fake.png(1)).status_code for _ in range(3)] == [200] * 3
    for client in slow_ones:
        client.close()


def test_whoever_arrives_late_needs_a_place_as_one_that_comes_now(start_server: Start, fake: Any) -> None:
    running = start_server(max_in_flight=3, max_batch_size=1)
    body = fake.png(2)
    slow_ones = [begin(running.port, len(body)) for _ in range(8)]
    running.runner.hold()
    for client in slow_ones:
        client.sendall(body)
    while running.service.receiving or running.service.in_flight > 3:
        pass  # three have places, and the others are told at once
    running.runner.release()
    statuses = Counter(client.recv(1000).split()[1] for client in slow_ones)
    assert statuses == {b"200": 3, b"503": 5}
    for client in slow_ones:
        client.close()
    assert running.service.in_flight == running.service.receiving == 0


def test_bodies_that_are_still_coming_are_bounded_together(start_server: Start, fake: Any) -> None:
    running = start_server(max_in_flight=2, max_body_bytes=10_000)
    first, second = (begin(running.port, 10_000, b"x" * 9_000) for _ in range(2))
    with begin(running.port, 10_000, b"x" * 3_000) as third:
        assert third.recv(1000).startswith(b"HTTP/1.1 503 ")
    first.close()
    second.close()
    while running.service.receiving:
        pass
    assert running.post(fake.png(1)).status_code == 200


def test_an_engine_that_is_down_refuses_and_is_not_ready(start_server: Start, fake: Any) -> None:
    spare = fake()
    spare.warm_gate.clear()
    running = start_server(fake(), spare)

    def broken(pictures: Any) -> Any:
        raise RuntimeError("the device is gone")

    running.runner.infer = broken
    assert running.post(fake.png(1)).status_code == 500
    while running.batcher.working:
        pass
    for reply in (running.client.get("/readyz"), running.post(fake.png(2))):
        assert (reply.status_code, reply.headers["retry-after"]) == (503, "1")
        assert "opened again" in reply.json()["error"]
    assert running.client.get("/healthz").status_code == 200
    assert running.metric("zoo_ready") == 0
    spare.warm_gate.set()
    while not running.batcher.ready:
        pass
    assert running.post(fake.png(2)).json()["predictions"][0]["index"] == 2


def test_an_engine_that_hangs_fails_its_requests_and_is_replaced(start_server: Start, fake: Any) -> None:
    running = start_server(fake(), stuck_after_s=0.2, max_batch_size=1)
    running.runner.hold()
    reply = running.post(fake.png(1))
    assert reply.status_code == 500 and "did not come back" in reply.json()["error"]
    while not running.batcher.ready:
        pass
    assert running.post(fake.png(2)).status_code == 200
    running.runner.release()


def test_the_health_of_a_server_that_cannot_help_itself_is_a_503(
    start_server: Start, fake: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    running = start_server()
    monkeypatch.setattr(type(running.batcher), "is_lost", True)
    assert running.client.get("/healthz").status_code == 503
