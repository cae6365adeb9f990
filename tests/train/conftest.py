"""Shared by the tests of training."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from urllib.parse import unquote, urlsplit

import pytest

from train.record import RunRecord
from train.run import Epoch, Run
from zoo.data import http as remote


class Killed(BaseException):
    """Stands for a kill."""


@pytest.fixture
def killed_after(monkeypatch: pytest.MonkeyPatch) -> Callable[[int], AbstractContextManager[None]]:
    """`with killed_after(3): train_model(…)`: the run dies once its third epoch is recorded."""

    @contextmanager
    def dying(last: int) -> Iterator[None]:
        on_epoch = RunRecord.on_epoch

        def die(self: RunRecord, run: Run, epoch: Epoch) -> None:
            on_epoch(self, run, epoch)
            if epoch.epoch == last:
                raise Killed

        with monkeypatch.context() as patch, pytest.raises(Killed):
            patch.setattr(RunRecord, "on_epoch", die)
            yield

    return dying


class ShardServer(ThreadingHTTPServer):
    """Serves a folder with ranges. `trouble(path, number of the request)` says what goes wrong, None for nothing:

    a status to answer with; "silent", no answer comes; "drop", the connection ends within the body; "whole", Range is
    ignored; "grown", the file has another size; "elsewhere", another range is sent.
    """

    daemon_threads = True

    def __init__(self, root: Path) -> None:
        super().__init__(("127.0.0.1", 0), ShardHandler)
        self.root = root
        self.trouble: Callable[[str, int], int | str | None] = lambda path, number: None
        self.asked: list[tuple[str, str | None]] = []
        self.authorizations: set[str | None] = set()
        self.connections = 0
        self.closing = threading.Event()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_port}/shards/"

    def ranges(self) -> list[tuple[str, str]]:
        """Requests for pictures, sorted; opening asks for the first byte of every shard."""
        return sorted((path, asked) for path, asked in self.asked if asked and asked != "bytes=0-0")


class ShardHandler(BaseHTTPRequestHandler):
    server: ShardServer
    protocol_version = "HTTP/1.1"

    def setup(self) -> None:
        super().setup()
        self.server.connections += 1

    def do_GET(self) -> None:
        asked = self.headers.get("Range")
        self.server.authorizations.add(self.headers.get("Authorization"))
        self.server.asked.append((self.path, asked))
        path = self.server.root / unquote(urlsplit(self.path).path).removeprefix("/shards/")
        trouble = self.server.trouble(self.path, len(self.server.asked))
        if trouble == "silent":
            self.server.closing.wait()
            self.close_connection = True
            return None
        if isinstance(trouble, int) or not path.is_file():
            return self.send_error(trouble if isinstance(trouble, int) else 404)
        content = path.read_bytes()
        first, last = 0, len(content) - 1
        if asked and trouble != "whole":
            first, last = map(int, asked.removeprefix("bytes=").split("-"))
            first, last = (first + 1, last + 1) if trouble == "elsewhere" else (first, last)
        body = content[first : last + 1]
        self.send_response(206 if asked and trouble != "whole" else 200)
        if asked and trouble != "whole":
            self.send_header("Content-Range", f"bytes {first}-{last}/{len(content) + (trouble == 'grown')}")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body[: len(body) // 2] if trouble == "drop" else body)
        self.close_connection = self.close_connection or trouble == "drop"
        return None

    def log_message(self, format: str, *args: object) -> None:
        """Say nothing."""


@contextmanager
def serving(root: Path) -> Iterator[ShardServer]:
    """A server of a folder while the block runs."""
    with ShardServer(root) as running:
        thread = threading.Thread(target=running.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        try:
            yield running
        finally:
            running.closing.set()
            remote._pool.cache_clear()  # its connections end, and with them the server's threads
            running.shutdown()
            thread.join()


@pytest.fixture
def serve_folder(monkeypatch: pytest.MonkeyPatch) -> Callable[[Path], AbstractContextManager[ShardServer]]:
    """`with serve_folder(path) as server`: a web server of this process; failures are tried again without a pause."""
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    monkeypatch.delenv(remote.AUTHORIZATION_VARIABLE, raising=False)
    monkeypatch.setattr(remote, "BACKOFF_S", 0.0)
    return serving
