"""The one HTTP client, against a real server in this process: when it asks again, how long it waits, what it says."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from email.utils import formatdate
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest

from zoo import __version__, http
from zoo.errors import DownloadError
from zoo.http import Response, fetch, read_exactly

BODY = b"all of it"


class Server(ThreadingHTTPServer):
    """Answers with `troubles` in turn, then with BODY: a status and its Retry-After, or "cut", half of BODY."""

    daemon_threads = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.troubles: list[tuple[int, str | None] | str] = []
        self.agents: list[str | None] = []

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_port}/file"


class Handler(BaseHTTPRequestHandler):
    server: Server

    def do_GET(self) -> None:
        self.server.agents.append(self.headers.get("User-Agent"))
        trouble = self.server.troubles.pop(0) if self.server.troubles else None
        if isinstance(trouble, tuple):
            status, retry_after = trouble
            self.send_response(status)
            if retry_after is not None:
                self.send_header("Retry-After", retry_after)
            self.send_header("Content-Length", "0")
            self.end_headers()
            return
        self.send_response(200)
        self.send_header("Content-Length", str(len(BODY)))
        self.end_headers()
        self.wfile.write(BODY[:4] if trouble == "cut" else BODY)

    def log_message(self, format: str, *args: object) -> None:
        """Say nothing."""


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch) -> Iterator[Server]:
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    with Server() as running:
        thread = threading.Thread(target=running.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        yield running
        http._pool.cache_clear()
        running.shutdown()
        thread.join()


class Pauses(threading.Event):
    """Keeps how long it would have been waited, and does not wait."""

    def __init__(self) -> None:
        super().__init__()
        self.asked_s: list[float] = []

    def wait(self, timeout: float | None = None) -> bool:
        self.asked_s.append(timeout or 0.0)
        return self.is_set()


def get(server: Server, pauses: threading.Event, **settings: int) -> bytes:
    return fetch(server.url, lambda response: read_exactly(response, len(BODY)), unwanted=pauses, **settings)


def test_a_server_is_asked_again_after_longer_and_longer_pauses(server: Server) -> None:
    server.troubles = [(503, None), (500, None), "cut", (504, "soon")]
    pauses = Pauses()
    assert get(server, pauses) == BODY
    for pause, least in zip(pauses.asked_s, (1, 2, 4, 8), strict=True):
        assert least <= pause <= 1.25 * least
    assert server.agents == [f"zoo/{__version__}"] * 5


@pytest.mark.parametrize("status", [429, 503])
def test_retry_after_in_seconds_is_the_least_pause(server: Server, status: int) -> None:
    server.troubles = [(status, "7"), (status, " 0 ")]
    pauses = Pauses()
    assert get(server, pauses) == BODY
    assert 7 <= pauses.asked_s[0] <= 1.25 * 7
    assert 2 <= pauses.asked_s[1] <= 1.25 * 2


def test_retry_after_may_be_a_date(server: Server) -> None:
    server.troubles = [(503, formatdate(time.time() + 30, usegmt=True)), (503, formatdate(0, usegmt=True))]
    pauses = Pauses()
    assert get(server, pauses) == BODY
    assert 20 < pauses.asked_s[0] <= 1.25 * 30
    assert 2 <= pauses.asked_s[1] <= 1.25 * 2  # a date that is over asks for nothing


@pytest.mark.parametrize(
    "asked",
    ["3600", formatdate(time.time() + 4000, usegmt=True), "9" * 400],
    ids=["seconds", "a date", "a number without end"],
)
def test_a_server_that_asks_for_an_hour_is_not_waited_for(server: Server, asked: str) -> None:
    server.troubles = [(503, asked)]
    pauses = Pauses()
    with pytest.raises(DownloadError, match=r"1 attempt: it answers 503 and asks for a pause of .* at most 120 s are"):
        get(server, pauses)
    assert pauses.asked_s == []
    assert len(server.agents) == 1


def test_the_last_attempt_says_what_went_wrong(server: Server) -> None:
    server.troubles = ["cut"] * 9
    pauses = Pauses()
    with pytest.raises(DownloadError, match=r"file cannot be read, 3 attempts: IncompleteRead\(4 bytes read, 5 more"):
        get(server, pauses, attempts=3)
    assert len(pauses.asked_s) == 2  # none after the last
    assert len(server.agents) == 3


def test_nobody_waits_for_what_is_unwanted(server: Server) -> None:
    server.troubles = [(503, None)] * 9
    pauses = Pauses()
    pauses.set()
    with pytest.raises(DownloadError, match="1 attempt: it answers 503"):
        get(server, pauses)


def test_an_error_of_the_caller_ends_the_attempts(server: Server) -> None:
    def take(response: Response) -> bytes:
        raise KeyError(response.status)

    with pytest.raises(KeyError, match="200"):
        fetch(server.url, take)
    assert len(server.agents) == 1
