"""What servers for ASGI do with connections that cost too much: the figures of docs/adr/0010-listener.md.

    python benchmarks/listeners.py > benchmarks/listeners.txt

It needs granian and hypercorn (pip install granian hypercorn), and starts one server after another, each in a process
of its own with at most 256 open files: about two minutes on two cores. Ours is uvicorn with serve/web/listener.py.
"""

from __future__ import annotations

import http.client
import math
import os
import platform
import resource
import socket
import subprocess
import sys
import threading
import time
from importlib.metadata import version
from pathlib import Path

FILES, SILENT, HEAD_MB, PATIENCE_S, WAIT_S = 256, 400, 12, 5.0, 13.0
REQUESTS, BODY_BYTES = 1000, 51_000


async def app(scope, receive, send):  # type: ignore[no-untyped-def]
    """Read the body, answer two bytes."""
    if scope["type"] == "lifespan":
        while (await receive())["type"] != "lifespan.shutdown":
            await send({"type": "lifespan.startup.complete"})
        await send({"type": "lifespan.shutdown.complete"})
        return
    while (await receive()).get("more_body"):
        pass
    await send({"type": "http.response.start", "status": 200, "headers": [(b"content-length", b"2")]})
    await send({"type": "http.response.body", "body": b"ok"})


def serve(name: str, port: int) -> None:
    """Run one server in this process, for good."""
    resource.setrlimit(resource.RLIMIT_NOFILE, (FILES, FILES))
    if name == "granian":
        from granian import Granian
        from granian.constants import Interfaces

        Granian(f"{__file__}:app", port=port, interface=Interfaces.ASGI, log_enabled=False).serve()
    elif name == "hypercorn":
        import asyncio

        from hypercorn.asyncio import serve as run
        from hypercorn.config import Config

        config = Config()
        config.bind, config.errorlog = [f"127.0.0.1:{port}"], None
        asyncio.run(run(app, config))
    else:
        import uvicorn

        given = {}
        if name == "ours":
            from serve.web.listener import ConnectionLimits, Doors

            given = {"http": Doors(ConnectionLimits(max_connections=FILES - 128)).protocol}
        uvicorn.run(app, port=port, log_level="critical", access_log=False, ws="none", **given)


def ask(port: int) -> float:
    """Seconds of one small request on a connection of its own; NaN where there is no answer in time."""
    began_s = time.perf_counter()
    try:
        connection = http.client.HTTPConnection("127.0.0.1", port, timeout=PATIENCE_S)
        connection.request("GET", "/")
        connection.getresponse().read()
        connection.close()
    except OSError:
        return float("nan")
    return time.perf_counter() - began_s


def memory_mb(pid: int) -> float:
    """Resident memory of a process and its children."""
    pids = [pid, *map(int, Path(f"/proc/{pid}/task/{pid}/children").read_text().split())]
    pages = sum(int(Path(f"/proc/{each}/statm").read_text().split()[1]) for each in pids)
    return pages * os.sysconf("SC_PAGE_SIZE") / 1e6


def endless_head(port: int, pid: int) -> tuple[float, float, float]:
    """MB of a head that were taken, MB of memory it cost, and the longest request of others meanwhile (s)."""
    before_mb, sent, longest_s, is_over = memory_mb(pid), 0, 0.0, threading.Event()

    def others() -> None:
        nonlocal longest_s
        while not is_over.is_set():
            took_s = ask(port)
            longest_s = max(longest_s, PATIENCE_S if math.isnan(took_s) else took_s)

    thread = threading.Thread(target=others)
    thread.start()
    with socket.create_connection(("127.0.0.1", port), PATIENCE_S) as client:
        client.sendall(b"GET / HTTP/1.1\r\nX: ")
        try:
            while sent < HEAD_MB * 1e6:
                client.sendall(b"a" * 65536)
                sent += 65536
        except OSError:
            pass
        cost_mb = memory_mb(pid) - before_mb
    is_over.set()
    thread.join()
    return sent / 1e6, cost_mb, longest_s


def still_open(port: int, said: bytes) -> bool:
    """Whether a connection that stops in the middle is still there after `WAIT_S`."""
    with socket.create_connection(("127.0.0.1", port)) as client:
        client.sendall(said)
        client.settimeout(WAIT_S)
        try:
            while client.recv(4096):
                pass
        except TimeoutError:
            return True
        except OSError:
            pass
    return False


def requests_per_s(port: int) -> float:
    """Requests with a body of 51 kB by one client on one connection."""
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=60)
    body = bytes(BODY_BYTES)
    began_s = time.perf_counter()
    for _ in range(REQUESTS):
        connection.request("POST", "/", body)
        connection.getresponse().read()
    return REQUESTS / (time.perf_counter() - began_s)


def main() -> None:
    """Measure all and print a table."""
    print(
        f"Python {platform.python_version()}, uvicorn {version('uvicorn')}, granian {version('granian')}, "
        f"hypercorn {version('hypercorn')}; {FILES} open files, {os.cpu_count()} cores, other work beside it"
    )
    print(
        "server     req/s 51 kB | endless head: MB taken, MB of memory, others' longest s | "
        "half a head, half a body open after 13 s | after 400 silent connections: fresh request s"
    )
    for number, name in enumerate(("uvicorn", "granian", "hypercorn", "ours")):
        port = 18700 + number
        process = subprocess.Popen([sys.executable, __file__, name, str(port)])
        while math.isnan(ask(port)):
            time.sleep(0.1)
        rate = requests_per_s(port)
        taken_mb, cost_mb, longest_s = endless_head(port, process.pid)
        head, body = (
            still_open(port, b"GET / HT"),
            still_open(port, b"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 9\r\n\r\nx"),
        )
        silent = [socket.create_connection(("127.0.0.1", port)) for _ in range(SILENT)]
        fresh_s = ask(port)
        costs = f"{taken_mb:6.1f} {cost_mb:8.1f} {longest_s:8.3f}"
        print(f"{name:10} {rate:11.0f} | {costs} | {head!s:5} {body!s:5} | {fresh_s:.3f}", flush=True)
        for client in silent:
            client.close()
        process.kill()
        process.wait()


if __name__ == "__main__":
    if len(sys.argv) > 1:
        serve(sys.argv[1], int(sys.argv[2]))
    else:
        main()
