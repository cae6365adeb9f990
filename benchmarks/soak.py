"""Holds `zoo serve` under everything clients do, for as long as asked: is its memory flat, and who is kept waiting?

    python benchmarks/soak.py tiny.onnx --minutes 30 -o benchmarks/soak.jsonl

It starts the server, opens 10,000 connections that say something once a minute and nothing else, and then lets clients
loose on it beside them: good ones, and ones that send what is malformed, huge or slow, or that vanish before their
answer. Meanwhile a request by a new connection is timed twice a second. The line of JSON it adds says how many requests
of each kind got which answer, the server's memory and open files every five seconds, and what that request took with
the connections idle and under the load. The exit code is 3 where memory grew, a good request was lost, or the server
did not end well. The .onnx: `zoo export tiny`, or any. Both ends may open as many files as `ulimit -Hn` says.
"""

from __future__ import annotations

import asyncio
import io
import json
import random
import resource
import signal
import socket
import statistics
import subprocess
import sys
import time
from collections import Counter, defaultdict
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import click
import numpy as np
from PIL import Image

from serve.bench.measure.serving import read_picture
from serve.options import ServeOptions
from serve.status import ask_status
from zoo import __version__
from zoo.errors import VerdictError, ZooError
from zoo.machine import environment
from zoo.results import summarize

START_S, PATIENCE_S, REST_S = 120.0, 30.0, 5.0
# How often an idle connection asks for its health: more often than the server's limit of 75 s.
IDLE_ASKS_S, SAMPLE_S, FRESH_EVERY_S = 45.0, 5.0, 0.5
OPENED_AT_ONCE, SPARE_FILES, SPARE_CONNECTIONS = 100, 500, 500
HEALTH = b"GET /healthz HTTP/1.1\r\nHost: soak\r\n\r\n"
# Growth between the second and the last quarter of the load; Triton's own test of memory growth allows 100 MB.
MOST_GROWTH_MB = 50.0


def post(body: bytes, path: str = "/predict", media_type: str = "image/jpeg", length: int | None = None) -> bytes:
    """A request's bytes; `length` is what it claims, where that is not the truth."""
    head = f"POST {path} HTTP/1.1\r\nHost: soak\r\nContent-Type: {media_type}\r\n"
    return f"{head}Content-Length: {len(body) if length is None else length}\r\n\r\n".encode() + body


@dataclass
class Soak:
    """The server's port and process, the picture that good clients send, and what came of everything."""

    port: int
    pid: int
    picture: bytes
    model: str
    random: random.Random = field(default_factory=lambda: random.Random(0))
    answers: defaultdict[str, Counter[str]] = field(default_factory=lambda: defaultdict(Counter))
    fresh_ms: dict[str, list[float]] = field(default_factory=lambda: {"idle": [], "load": []})
    memory: list[dict[str, float]] = field(default_factory=list)
    idle: int = 0

    async def ask(self, request: bytes, timeout_s: float = PATIENCE_S) -> str:
        """Send a request by a new connection: the status, "closed" or "silence"."""
        try:
            async with asyncio.timeout(timeout_s):
                reader, writer = await asyncio.open_connection("127.0.0.1", self.port)
                try:
                    writer.write(request)
                    return await read_answer(reader)
                finally:
                    writer.close()
        except TimeoutError:
            return "silence"
        except (OSError, EOFError, ValueError):
            return "closed"

    # --- the clients: each makes one request of its kind and says what came -----

    async def good(self) -> str:
        """A photograph."""
        return await self.ask(post(self.picture))

    async def malformed(self) -> str:
        """What is no picture, no tensor, no JSON, no form or no HTTP."""
        cut = self.picture[: self.random.randrange(1, len(self.picture))]
        nan = np.full((1, 3, 8, 8), np.nan, np.float32).tobytes()
        infer = f"/v2/models/{self.model}/infer"
        return await self.ask(
            self.random.choice(
                [
                    post(cut),
                    post(self.random.randbytes(2000)),
                    post(b"hello", media_type="text/plain"),
                    post(b"{" * 5000, infer, "application/json"),
                    post(nan, infer, "application/octet-stream"),
                    post(b"--x\r\n\r\n", media_type="multipart/form-data; boundary=y"),
                    b"GET /" + self.random.randbytes(200) + b"\r\n\r\n",
                    b"GET /info HTTP/1.1\r\nHost: soak\r\nX: " + b"a" * 200_000 + b"\r\n\r\n",
                ]
            )
        )

    async def huge(self) -> str:
        """49 megapixels in 100 KB, or a body above the limit."""
        if self.random.random() < 0.5:
            return await self.ask(post(BOMB), 2 * PATIENCE_S)
        return await self.ask(post(b"x" * 100_000, length=10**9))

    async def slow(self) -> str:
        """A head, or a body, that comes byte by byte until the server has had enough."""
        whole = post(self.picture)
        text = whole if self.random.random() < 0.5 else whole[:20]
        try:
            reader, writer = await asyncio.open_connection("127.0.0.1", self.port)
            answer = asyncio.ensure_future(read_answer(reader))
            try:
                writer.write(text[:-200] if len(text) > 1000 else text[:1])
                for byte in text[-200:]:
                    await asyncio.wait([answer], timeout=0.5)
                    if answer.done():
                        return answer.result()
                    writer.write(bytes([byte]))
                return await asyncio.wait_for(answer, PATIENCE_S)
            finally:
                answer.cancel()
                writer.close()
        except TimeoutError:
            return "silence"
        except (OSError, EOFError, ValueError):
            return "closed"

    async def vanishing(self) -> str:
        """A good request whose client is gone before the answer, by a reset every other time."""
        try:
            _, writer = await asyncio.open_connection("127.0.0.1", self.port)
            whole = post(self.picture)
            writer.write(whole[: self.random.randrange(1, len(whole) + 1)])
            await writer.drain()
            await asyncio.sleep(self.random.random() * 0.05)
            if self.random.random() < 0.5:
                writer.transport.abort()
            else:
                writer.close()
        except OSError:
            return "closed"
        return "gone"

    async def repeat(self, kind: str, pause_s: float) -> None:
        """Requests of a kind, one after another, counted by what came of them."""
        client: Callable[[], Awaitable[str]] = getattr(self, kind)
        while True:
            self.answers[kind][await client()] += 1
            await asyncio.sleep(pause_s)

    # --- what is watched meanwhile -----

    async def stay(self) -> None:
        """A connection that asks for the server's health now and then, and comes back when it is closed."""
        while True:
            try:
                reader, writer = await asyncio.open_connection("127.0.0.1", self.port)
                self.idle += 1
                try:
                    while True:
                        writer.write(HEALTH)
                        self.answers["idle"][await read_answer(reader)] += 1
                        await asyncio.sleep(IDLE_ASKS_S * (0.5 + self.random.random()))
                finally:
                    self.idle -= 1
                    writer.close()
            except (OSError, EOFError, ValueError):
                self.answers["idle"]["closed"] += 1
                await asyncio.sleep(1.0)

    async def watch(self, phase: str) -> None:
        """Time a good request by a new connection, over and over."""
        while True:
            began_s = time.perf_counter()
            answer = await self.good()
            self.answers[f"fresh, {phase}"][answer] += 1
            if answer == "200":
                self.fresh_ms[phase].append((time.perf_counter() - began_s) * 1000.0)
            await asyncio.sleep(FRESH_EVERY_S)

    async def note_memory(self) -> None:
        """The server's memory and open files, every few seconds."""
        began_s = time.monotonic()
        while True:
            self.memory.append({"s": round(time.monotonic() - began_s, 1), **held_by(self.pid), "idle": self.idle})
            await asyncio.sleep(SAMPLE_S)


async def read_answer(reader: asyncio.StreamReader) -> str:
    """Read one answer whole; its status."""
    head = await reader.readuntil(b"\r\n\r\n")
    lines = head.decode("latin-1").split("\r\n")
    lengths = [line.partition(":")[2] for line in lines if line.lower().startswith("content-length")]
    await reader.readexactly(int(lengths[0]) if lengths else 0)
    return lines[0].split()[1]


def held_by(pid: int) -> dict[str, float]:
    """Memory and open files of a process, as Linux tells them."""
    fields = dict(line.split(":", 1) for line in Path(f"/proc/{pid}/status").read_text().splitlines() if ":" in line)
    return {
        "rss_mb": round(int(fields["VmRSS"].split()[0]) / 1024, 1),
        "files": sum(1 for _ in Path(f"/proc/{pid}/fd").iterdir()),
        "threads": int(fields["Threads"]),
    }


def bomb() -> bytes:
    """7000 × 7000 pixels in some 100 KB."""
    buffer = io.BytesIO()
    Image.new("RGB", (7000, 7000), (10, 200, 90)).save(buffer, "JPEG", quality=30)
    return buffer.getvalue()


BOMB = b""  # made once, when it is needed

# How many clients of each kind there are, and how long each rests between two requests.
LOAD = {"good": (4, 0.02), "malformed": (4, 0.05), "huge": (2, 0.5), "slow": (20, 0.0), "vanishing": (4, 0.02)}


async def soak(state: Soak, connections: int, seconds: float) -> dict[str, Any]:
    """The connections alone, then the load beside them: memory before, with them, and at the end."""
    before = held_by(state.pid)
    stayed = []
    for number in range(connections):
        stayed.append(asyncio.ensure_future(state.stay()))
        if number % OPENED_AT_ONCE == 0:
            await asyncio.sleep(0.05)
    end_s = time.monotonic() + START_S
    while state.idle < connections and time.monotonic() < end_s:
        await asyncio.sleep(0.1)
    opened = state.idle
    await run_for(min(30.0, seconds / 4), [state.watch("idle")])
    with_idle = held_by(state.pid)
    clients = [state.repeat(kind, pause_s) for kind, (count, pause_s) in LOAD.items() for _ in range(count)]
    await run_for(seconds, [*clients, state.watch("load"), state.note_memory()])
    await stop(stayed)
    await asyncio.sleep(REST_S)
    return {"connections": opened, "before": before, "with_idle": with_idle, "after": held_by(state.pid)}


async def run_for(seconds: float, works: list[Any]) -> None:
    """Let coroutines work for so long. One that fails ends everything."""
    tasks = [asyncio.ensure_future(work) for work in works]
    try:
        done, _ = await asyncio.wait(tasks, timeout=seconds, return_when=asyncio.FIRST_EXCEPTION)
        for task in done:
            task.result()
    finally:
        await stop(tasks)


async def stop(tasks: list[asyncio.Future[Any]]) -> None:
    """Cancel tasks and wait for their ends."""
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)


def start_server(model: Path, port: int, connections: int) -> tuple[subprocess.Popen[bytes], str]:
    """`zoo serve` once it is ready, and its model's name.

    Raises:
        ZooError: it does not become ready.
    """
    command = [sys.executable, "-m", "zoo", "serve", str(model), "--port", str(port)]
    process = subprocess.Popen([*command, "--max-connections", str(connections + SPARE_CONNECTIONS)])
    end_s = time.monotonic() + START_S
    while process.poll() is None and time.monotonic() < end_s:
        try:
            status = ask_status(ServeOptions(status=True, port=port))
            if status.ready:
                return process, status.models[0].name
        except ZooError:  # nobody listens yet
            pass
        time.sleep(0.5)
    process.kill()
    raise ZooError("The server does not become ready.", f"Try it: {' '.join(command)}")


def growth_mb(memory: list[dict[str, float]]) -> float:
    """How much more is held in the last quarter than in the second one, by their medians."""
    quarter = max(1, len(memory) // 4)
    early, late = memory[quarter : 2 * quarter] or memory[:1], memory[-quarter:]
    return statistics.median(row["rss_mb"] for row in late) - statistics.median(row["rss_mb"] for row in early)


def verdict(state: Soak, exit_code: int) -> list[str]:
    """What is wrong; nothing where all is well."""
    lost = {what: n for what, n in state.answers["good"].items() if what not in ("200", "503")}
    found = [f"{n} good requests ended in {what}" for what, n in lost.items()]
    if (grown := growth_mb(state.memory)) > MOST_GROWTH_MB:
        found.append(f"memory grew by {grown:.0f} MB")
    if not state.fresh_ms["load"]:
        found.append("no fresh request was answered under the load")
    if exit_code:
        found.append(f"SIGTERM ended the server with {exit_code}")
    return found


@click.command()
@click.argument("model", type=click.Path(exists=True, path_type=Path))
@click.option("--minutes", default=30.0)
@click.option("--connections", default=10_000)
@click.option("-o", "--out", type=click.Path(path_type=Path))
def main(model: Path, minutes: float, connections: int, out: Path | None) -> None:
    """Run, and add a line to a file."""
    global BOMB
    BOMB = bomb()
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if hard != resource.RLIM_INFINITY:
        connections = min(connections, hard - SPARE_FILES - SPARE_CONNECTIONS)
        resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    process, name = start_server(model, port, connections)
    try:
        state = Soak(port=port, pid=process.pid, picture=read_picture(None)[0], model=name)
        held = asyncio.run(soak(state, connections, minutes * 60.0))
        told = ask_status(ServeOptions(status=True, port=port))
        process.send_signal(signal.SIGTERM)
        exit_code = process.wait(PATIENCE_S)
    finally:
        process.kill()
    wrong = verdict(state, exit_code)
    line = {
        "version": __version__,
        "model": model.name,
        "minutes": minutes,
        "n": sum(sum(counts.values()) for counts in state.answers.values()),
        "verdict": wrong or "all is well",
        "growth_mb": round(growth_mb(state.memory), 1),
        **held,
        "fresh": {phase: summarize(times).to_dict() if times else None for phase, times in state.fresh_ms.items()},
        "answers": {kind: dict(sorted(counts.items())) for kind, counts in sorted(state.answers.items())},
        "refused": dict(told.refused),
        "clients": {kind: count for kind, (count, _) in LOAD.items()},
        "memory": state.memory,
        "environment": environment(),
    }
    click.echo(json.dumps({key: value for key, value in line.items() if key != "memory"}, indent=2))
    if out:
        with out.open("a", encoding="utf-8") as file:
            file.write(json.dumps(line) + "\n")
    if wrong:
        error = VerdictError(f"The server did not stand it: {'; '.join(wrong)}.")
        click.echo(f"Error: {error}", err=True)
        sys.exit(error.exit_code)


if __name__ == "__main__":
    main()
