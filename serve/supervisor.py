"""Owns the watch over a server's process: what a signal killed is started again on the same port; it serves nothing.

The supervisor claims the address and forks the worker before anything heavy is imported. Until a worker listens, and
after one was killed, it answers every connection itself, with 503, so that nobody waits in vain.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import socket
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from types import FrameType

from serve.address import bind
from zoo.errors import MissingCapabilityError
from zoo.files import json_text
from zoo.stopping import STOPPING

# Seconds before a worker is started again: doubled with each one that was killed within `STEADY_S`.
FIRST_PAUSE_S, LAST_PAUSE_S, STEADY_S = 0.5, 30.0, 60.0
# How long a client that is told 503 may take for its request; more than its head is not waited for.
HEAD_TIMEOUT_S, HEAD_BYTES = 2.0, 65_536
BACKLOG = 2048


@dataclass(frozen=True)
class Worker:
    """What the process that serves has from its supervisor: a socket that listens, and whom to tell that it does."""

    listener: socket.socket
    tell_listening: Callable[[], None]


def supervise(host: str, port: int, say: Callable[[str], None], *, plain: bool) -> Worker:
    """Return in a process of its own, which serves; the one that called watches it and never returns.

    Args:
        host, port: as `bind`.
        say: shows one line to a person.
        plain: clients speak HTTP without TLS, so that one can be told 503.

    Raises:
        MissingCapabilityError: the system has no fork. ZooError: as `bind`.
        SystemExit: in the supervisor: the worker ended by itself, with this exit code, or was told to.
    """
    if not hasattr(os, "fork"):
        raise MissingCapabilityError(
            "--supervised needs a system with fork: Linux or macOS.", "Let a service manager start the server again."
        )
    return Supervisor(bind(host, port), say, plain=plain).run()


class Supervisor:
    """One worker at a time. `run` returns in each of them."""

    def __init__(self, listener: socket.socket, say: Callable[[str], None], *, plain: bool) -> None:
        self._listener = listener
        self._say = say
        self._plain = plain
        self._worker = 0
        self._is_stopping = False
        self._usual = {number: signal.getsignal(number) for number in STOPPING}
        # Nobody writes into it. A worker reads its end, and so hears of the supervisor's, however that comes.
        self._alive_in, self._alive_out = os.pipe()

    def run(self) -> Worker:
        """Start a worker, and again whenever a signal killed it."""
        pause_s = FIRST_PAUSE_S
        for number in STOPPING:
            signal.signal(number, self._pass_on)
        while True:
            began_s = time.monotonic()
            begun = self._fork()
            if begun is not None:
                return begun
            code = os.waitstatus_to_exitcode(os.waitpid(self._worker, 0)[1])
            self._worker = 0
            if self._is_stopping or code >= 0:
                raise SystemExit(code if code >= 0 else 128 - code)
            pause_s = FIRST_PAUSE_S if time.monotonic() - began_s > STEADY_S else min(LAST_PAUSE_S, pause_s * 2)
            self._say(f"The server's process was ended by {signal.Signals(-code).name}; it is started again.")
            asyncio.run(self._refuse(pause_s))
            if self._is_stopping:
                raise SystemExit(0)

    def _fork(self) -> Worker | None:
        """In the worker what it needs; None in the supervisor, once the worker listens or has ended."""
        listening_in, listening_out = os.pipe()
        # A signal between the fork and the next two lines would find the wrong handler, or no worker.
        signal.pthread_sigmask(signal.SIG_BLOCK, STOPPING)
        worker = os.fork()
        if worker:
            self._worker = worker
            os.close(listening_out)
            signal.pthread_sigmask(signal.SIG_UNBLOCK, STOPPING)
            asyncio.run(self._refuse(None, listening_in))
            os.close(listening_in)
            return None
        for number, handler in self._usual.items():
            signal.signal(number, handler)
        os.setpgid(0, 0)  # a terminal's Ctrl-C reaches the supervisor alone, which passes it on: once
        signal.pthread_sigmask(signal.SIG_UNBLOCK, STOPPING)
        os.close(listening_in)
        os.close(self._alive_out)
        threading.Thread(target=self._end_with_supervisor, name="supervised", daemon=True).start()

        def tell_listening() -> None:
            os.write(listening_out, b"1")
            os.close(listening_out)

        return Worker(self._listener, tell_listening)

    def _end_with_supervisor(self) -> None:
        """In a worker: drain and end when the supervisor is gone, killed perhaps."""
        os.read(self._alive_in, 1)
        os.kill(os.getpid(), signal.SIGTERM)

    def _pass_on(self, number: int, frame: FrameType | None) -> None:
        self._is_stopping = True
        if self._worker:
            with contextlib.suppress(ProcessLookupError):
                os.kill(self._worker, number)

    async def _refuse(self, seconds: float | None, until_told: int | None = None) -> None:
        """Answer everybody with 503 for so long, or until something, or the end, can be read from `until_told`."""
        told = asyncio.Event()
        loop = asyncio.get_running_loop()
        if until_told is not None:
            loop.add_reader(until_told, told.set)
        # Its own copy: the server closes it, and the workers go on listening on theirs.
        server = await asyncio.start_server(self._answer, sock=self._listener.dup(), backlog=BACKLOG)
        end_s = None if seconds is None else loop.time() + seconds
        try:
            while not told.is_set() and (end_s is None or loop.time() < end_s) and not (end_s and self._is_stopping):
                with contextlib.suppress(TimeoutError):
                    await asyncio.wait_for(told.wait(), 0.1 if end_s else None)
        finally:
            if until_told is not None:
                loop.remove_reader(until_told)
            server.close()

    async def _answer(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        said = {"error": "The server is starting.", "hint": "Send the request again after Retry-After seconds."}
        body = json_text(said, indent=None).encode()
        head = (
            "HTTP/1.1 503 Service Unavailable\r\nContent-Type: application/json\r\nRetry-After: 1\r\n"
            f"Connection: close\r\nContent-Length: {len(body)}\r\n\r\n"
        )
        with contextlib.suppress(OSError, TimeoutError, asyncio.IncompleteReadError, asyncio.LimitOverrunError):
            async with asyncio.timeout(HEAD_TIMEOUT_S):
                if self._plain:
                    await reader.readuntil(b"\r\n\r\n")
                    writer.write(head.encode() + body)
                    await writer.drain()
        with contextlib.suppress(OSError):
            writer.close()
            await writer.wait_closed()
