"""Shared by the repository's tests: a real server of models in a thread."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator

import httpx
import pytest
import uvicorn

from serve.address import bind
from serve.models.models import Models
from serve.web.app import app_of

PATIENCE_S = 60.0


@pytest.fixture
def serve_models() -> Iterator[Callable[[Models], httpx.Client]]:
    """Starts a server of models and waits until they are warm; its client."""
    running: list[tuple[uvicorn.Server, threading.Thread, httpx.Client]] = []

    def start(models: Models) -> httpx.Client:
        listener = bind("127.0.0.1", 0)
        server = uvicorn.Server(uvicorn.Config(app_of(models), access_log=False, log_config=None))
        thread = threading.Thread(target=server.run, kwargs={"sockets": [listener]})
        client = httpx.Client(
            base_url=f"http://127.0.0.1:{listener.getsockname()[1]}", timeout=PATIENCE_S, trust_env=False
        )
        running.append((server, thread, client))
        thread.start()
        for served in list(models):
            served.engine.batcher.warmed.result(PATIENCE_S)
        return client

    yield start
    for server, thread, client in running:
        server.should_exit = True
        client.close()
        thread.join(PATIENCE_S)
        assert not thread.is_alive()
