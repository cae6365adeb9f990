"""Triton's perf_analyzer, unchanged, over HTTP and gRPC, with tensors in bytes, JSON and shared memory, in streams.

It is found on the path or by the command in PERF_ANALYZER; PyPI's wheel needs glibc 2.38, and what pip installs on
older systems is an empty placeholder.
"""

from __future__ import annotations

import asyncio
import os
import queue
import shlex
import shutil
import subprocess
import threading
from collections.abc import Iterator
from typing import Any

import pytest

pytest.importorskip("grpc", reason="pip install 'zoo[grpc]'")

from serve.rpc.server import grpc_server

COMMAND = shlex.split(os.environ.get("PERF_ANALYZER", "perf_analyzer"))
pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(shutil.which(COMMAND[0]) is None, reason="no perf_analyzer: PERF_ANALYZER is its command"),
]


@pytest.fixture(scope="module")
def ports(server: Any) -> Iterator[dict[str, int]]:
    """HTTP's and gRPC's, of one server."""
    models = server.server.config.app.state.models
    models.regions.allowed = True
    started: queue.Queue[Any] = queue.Queue()

    async def serve() -> None:
        stop = asyncio.Event()
        async with grpc_server(models, "127.0.0.1:0", max_body_bytes=1_000_000, drain_s=1.0) as port:
            started.put((port, asyncio.get_running_loop(), stop))
            await stop.wait()

    thread = threading.Thread(target=lambda: asyncio.run(serve()))
    thread.start()
    port, loop, stop = started.get(timeout=60)
    yield {"http": server.port, "grpc": port}
    loop.call_soon_threadsafe(stop.set)
    thread.join(60)


@pytest.mark.parametrize(
    ("protocol", "options"),
    [
        ("http", ""),
        ("http", "--input-tensor-format=json --output-tensor-format=json"),
        ("http", "--async -b 4"),
        ("http", "--shared-memory=system"),
        ("grpc", ""),
        ("grpc", "--async --streaming"),
        ("grpc", "--shared-memory=system"),
    ],
)
def test_it_measures_and_reads_the_servers_own_statistics(ports: dict[str, int], protocol: str, options: str) -> None:
    window = "--measurement-interval 500 --stability-percentage 999 -r 3 --concurrency-range 2"
    done = subprocess.run(
        [
            *COMMAND,
            "-m",
            "fake",
            "-i",
            protocol,
            "-u",
            f"127.0.0.1:{ports[protocol]}",
            *window.split(),
            *options.split(),
        ],
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    for part in ("Inference count: ", "queue ", "compute infer ", "throughput: "):
        assert part in done.stdout, done.stdout
    assert "Unable" not in done.stdout + done.stderr
