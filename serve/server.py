"""Owns a server's life: socket, engine, warm-up, signals, drain, in that order; `serve.web.app` answers."""

from __future__ import annotations

import asyncio
import errno
import faulthandler
import os
import signal
import socket
from collections.abc import Callable
from concurrent.futures import Future
from types import FrameType

import uvicorn
from starlette.applications import Starlette

from serve.core.service import Limits, Service
from serve.core.slot import Engine, Slot
from serve.engine import open_engine
from serve.options import ServeOptions
from serve.web.app import create_app
from serve.web.examples import has_examples
from serve.web.listener import ConnectionLimits, Doors
from zoo import __version__
from zoo.errors import ArtifactError, ZooError
from zoo.heap import keep_freed_memory
from zoo.machine import usable_processors
from zoo.model.spec import RGB

# Load balancers keep idle connections for about a minute. A server that closes first makes them send in vain.
KEEP_ALIVE_S = 75
# How long an exit waits for a thread that is inside a runner, and for a process whose threads do not let it end.
FORCED_EXIT_S, FORCED_END_S = 0.5, 5.0
# Pictures and batches are made in memory that was used before; of larger blocks, which bombs need, none is kept.
BLOCKS_KEPT_BYTES = 32 * 2**20
# Connections at most; and open files that are not connections: libraries, the engine, logs.
MAX_CONNECTIONS, OTHER_FILES = 10_000, 128


class DrainingServer(uvicorn.Server):
    """uvicorn that leaves, then drains, at the first signal and ends at once at the second; it then returns.

    After SIGTERM it takes everything for `shutdown_delay_s` more; a person who presses Ctrl-C does not wait for that.
    `on_leave` is called once, on the event loop, at the first signal with the seconds of that delay, `on_drain` when it
    is over, `on_give_up` when a second signal cut the drain short.
    """

    def __init__(
        self,
        config: uvicorn.Config,
        *,
        on_leave: Callable[[float], None],
        on_drain: Callable[[], None],
        on_give_up: Callable[[], None],
        shutdown_delay_s: float = 0.0,
    ) -> None:
        super().__init__(config)
        self._on_leave = on_leave
        self._on_drain = on_drain
        self._on_give_up = on_give_up
        self._shutdown_delay_s = shutdown_delay_s
        self._is_leaving = False

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        """Handle a signal. uvicorn's own version would raise the signal again at the end."""
        if self._is_leaving:
            self.force_exit = self.should_exit = True
            return
        self._is_leaving = True
        # A signal may interrupt a write to stderr, so printing waits for the loop's next turn.
        asyncio.get_running_loop().call_soon_threadsafe(
            self.leave, self._shutdown_delay_s if sig == signal.SIGTERM else 0.0
        )

    def leave(self, delay_s: float) -> None:
        """Say that the server stops, and stop after the delay."""
        self._on_leave(delay_s)
        asyncio.get_running_loop().call_later(delay_s, setattr, self, "should_exit", True)

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        """Drain. uvicorn's own version leaves the application's lifespan hanging after a second signal."""
        self._on_drain()  # in one turn of the loop with the end of listening: whoever was accepted is answered
        await super().shutdown(sockets)
        if self.force_exit:
            self._on_give_up()
            await self.lifespan.shutdown()


def serve_engine(options: ServeOptions, say: Callable[[str], None]) -> None:
    """Serve until a signal comes and everything under way is answered; `say` shows one line to a person.

    Raises:
        ZooError: the address is taken; the engine cannot be opened or fails its warm-up; the drain limit passed.
        KeyboardInterrupt: a second signal cut the drain short.
    """
    keep_freed_memory(BLOCKS_KEPT_BYTES)
    with bind(options.host, options.port) as listener:
        say(f"Loading {options.engine} …")
        slot = Slot(open_engine(options, say))
        try:
            service, server = _assemble(options, slot, say)

            def on_warm(warmed: Future[float]) -> None:
                if warmed.exception() is None and service.leaving:
                    return  # told to stop before it was warm: there is no address to show any more
                if warmed.exception() is None:
                    for line in describe_server(slot.engine, listener, options.host, warmed.result()):
                        say(line)
                else:
                    server.should_exit = True

            slot.engine.batcher.warmed.add_done_callback(on_warm)
            server.run(sockets=[listener])
        finally:
            if not slot.engine.close(FORCED_EXIT_S):
                # A library may wait for its thread at the end of the process, and that one never comes back.
                faulthandler.dump_traceback_later(FORCED_END_S, exit=True)
        _judge(service, server, options)


def _assemble(options: ServeOptions, slot: Slot, say: Callable[[str], None]) -> tuple[Service, DrainingServer]:
    batcher, decode_threads = slot.engine.batcher, usable_processors()
    limits = Limits(
        max_body_bytes=round(options.max_body_mb * 1e6),
        timeout_s=options.timeout_ms / 1000.0,
        # A full queue, full batches, and for each thread one picture being decoded and one being read.
        max_in_flight=batcher.queue_capacity + batcher.max_batch_size * batcher.instances + 2 * decode_threads,
        decode_threads=decode_threads,
        drain_s=options.drain_seconds,
        max_wait_s=options.max_wait_ms / 1000.0,
        pictures=options.pictures,
    )
    app = create_app(slot, limits)
    service: Service = app.state.service
    doors = Doors(
        ConnectionLimits(
            max_connections=options.max_connections or min(MAX_CONNECTIONS, may_open(MAX_CONNECTIONS + OTHER_FILES)),
            body_timeout_s=limits.timeout_s,
        )
    )

    def on_leave(delay_s: float) -> None:
        service.leave()
        doors.is_leaving = True
        if delay_s:
            say(f"Not ready any more; stopping in {delay_s:g} s. A second signal stops at once.")

    def on_drain() -> None:
        service.stop_accepting()
        under_way = _count(service.in_flight, "request")
        say(f"Draining {under_way}, {limits.drain_s:g} s at most; Ctrl-C again stops at once.")

    server = DrainingServer(
        listener_config(app, doors, limits),
        on_leave=on_leave,
        on_drain=on_drain,
        on_give_up=service.give_up,
        shutdown_delay_s=options.shutdown_delay_s,
    )
    return service, server


def listener_config(app: Starlette, doors: Doors, limits: Limits) -> uvicorn.Config:
    """How uvicorn listens: with our protocol, no log, no header of its own, and no WebSockets."""
    return uvicorn.Config(
        app,
        http=doors.protocol,  # type: ignore[arg-type]  # it only calls it
        ws="none",
        access_log=False,
        log_config=None,
        server_header=False,
        proxy_headers=False,
        timeout_keep_alive=KEEP_ALIVE_S,
        # uvicorn's type says whole seconds, but it only passes the value to asyncio.wait_for.
        timeout_graceful_shutdown=limits.drain_s,  # type: ignore[arg-type]
    )


def may_open(wanted: int) -> int:
    """Raise this process's limit of open files as far as it may and needs; how many connections fit in."""
    try:
        import resource
    except ImportError:  # Windows has no such limit
        return wanted - OTHER_FILES
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft != resource.RLIM_INFINITY and soft < wanted:
        soft = wanted if hard == resource.RLIM_INFINITY else min(wanted, hard)
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
    files = wanted if soft == resource.RLIM_INFINITY else min(soft, wanted)
    return max(1, files - OTHER_FILES)


def _judge(service: Service, server: DrainingServer, options: ServeOptions) -> None:
    """Return when everything was answered; else raise the reason."""
    batcher = service.slot.engine.batcher
    error = batcher.warmed.exception() if batcher.warmed.done() else None
    if isinstance(error, ZooError):
        raise error
    if error is not None:
        raise ArtifactError(
            f"{options.engine} failed its warm-up with batches up to {batcher.max_batch_size}: {error}",
            "A smaller --max-batch-size needs less memory.",
        ) from error
    if server.force_exit:
        raise KeyboardInterrupt
    if service.abandoned:
        raise ZooError(
            f"{_count(service.abandoned, 'request')} still unanswered after {options.drain_seconds:g} s.",
            "A larger --drain-seconds gives them longer.",
        )


def bind(host: str, port: int) -> socket.socket:
    """Claim the address before anything slow happens; port 0 takes a free one.

    Raises:
        ZooError: in use, not allowed, or not an address of this machine.
    """
    try:
        family, *_, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)[0]
    except socket.gaierror as error:
        raise ZooError(f"{host} is not an address: {error.strerror}.", "Use --host 127.0.0.1 or 0.0.0.0.") from error
    both = family == socket.AF_INET6 and socket.has_dualstack_ipv6()
    try:
        # It listens at once: while a socket is only bound, another server could still take the port.
        return socket.create_server(address, family=family, backlog=2048, dualstack_ipv6=both)
    except OSError as error:
        hint = {
            errno.EADDRINUSE: "Stop the other server, or choose another --port; --port 0 takes a free one.",
            errno.EACCES: "Ports below 1024 are reserved: choose a larger --port.",
            errno.EADDRNOTAVAIL: "Use an address of this machine: --host 127.0.0.1 or 0.0.0.0.",
        }.get(error.errno or 0, "Choose another --host or --port.")
        raise ZooError(f"Cannot listen on {host}:{port}: {os.strerror(error.errno or 0)}.", hint) from error


def describe_server(engine: Engine, listener: socket.socket, host: str, warm_up_s: float) -> list[str]:
    """The lines shown when the server is ready: what it serves, where, and a command to copy."""
    info, contract, batcher = engine.info, engine.contract, engine.batcher
    # 0.0.0.0 and :: mean every address; a person on this machine reaches them through the loopback.
    shown = {"0.0.0.0": "127.0.0.1", "::": "[::1]", "": "127.0.0.1"}.get(host, f"[{host}]" if ":" in host else host)
    url = f"http://{shown}:{listener.getsockname()[1]}"
    curl = "curl --data-binary @PICTURE.jpg"
    if has_examples(contract):
        curl = f"curl -s {url}/examples/7.png | curl --data-binary @-"
    planes = "" if contract.preprocessing.channels == RGB else f" of {contract.preprocessing.planes}"
    lines = [
        f"zoo {__version__} serves {contract.model} from {info.artifact}: "
        f"{len(contract.classes)} classes, pictures{planes} at {contract.preprocessing.image_size} px",
        f"{info.backend} on {info.device}{f', {info.precision}' if info.precision else ''}, "
        f"{_count(batcher.instances, 'instance')}, batches up to {batcher.max_batch_size}, "
        f"queue of {batcher.queue_capacity}, warm in {warm_up_s:.1f} s",
        "",
        f"  page     {url}/",
        f"  predict  {curl} {url}/predict",
        f"  metrics  {url}/metrics",
        "",
    ]
    if info.random_weights:
        lines.append("The weights are random: the predictions mean nothing, the latency is real.")
    if shown != host and host not in ("127.0.0.1", "localhost", "::1"):
        lines.append("Every address of this machine is served, and there is no authentication.")
    return [*lines, "Ctrl-C answers what is under way, then stops."]


def _count(number: int, noun: str) -> str:
    return f"{number} {noun}{'' if number == 1 else 's'}"
