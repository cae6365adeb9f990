"""Owns a server's life: socket, engine, warm-up, signals, drain, in that order; `serve.web.app` answers."""

from __future__ import annotations

import asyncio
import faulthandler
import itertools
import os
import signal
import socket
from collections.abc import AsyncIterator, Callable
from concurrent.futures import Future
from contextlib import asynccontextmanager
from types import FrameType

import uvicorn
from starlette.applications import Starlette

from serve.address import LOOPBACK, bind, in_url, most_connections, reachable
from serve.core.batcher import Batcher
from serve.core.service import Limits, Service
from serve.core.slot import Engine, Slot
from serve.engine import open_engine
from serve.keys import Keyring, read_keys
from serve.models.models import Models, only
from serve.options import ServeOptions
from serve.repository.control import Repository
from serve.supervisor import Worker
from serve.tls import Tls
from serve.tracing import Tracing, open_tracing
from serve.web.app import Beside, app_of
from serve.web.examples import has_digits
from serve.web.listener import ConnectionLimits, Doors
from zoo import __version__
from zoo.errors import ArtifactError, MissingCapabilityError, ZooError
from zoo.heap import keep_freed_memory, look_for_cycles_less
from zoo.machine import usable_processors
from zoo.model.spec import RGB

# Load balancers keep idle connections for about a minute. A server that closes first makes them send in vain.
KEEP_ALIVE_S = 75
# How long an exit waits for a thread that is inside a runner, and for a process whose threads do not let it end.
FORCED_EXIT_S, FORCED_END_S = 0.5, 5.0
# Pictures and batches are made in memory that was used before; of larger blocks, which bombs need, none is kept.
BLOCKS_KEPT_BYTES = 32 * 2**20


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


Say = Callable[[str], None]


def serve_engine(
    options: ServeOptions,
    say: Say,
    open_them: Callable[[ServeOptions, Say], Models] | None = None,
    worker: Worker | None = None,
) -> None:
    """Serve until a signal comes and everything under way is answered.

    Args:
        options: what to serve, where, within which limits.
        say: shows one line to a person.
        open_them: makes the models, not started yet; by default `open_models`.
        worker: what this process has from its supervisor, if there is one.

    Raises:
        ZooError: the address is taken; the engine cannot be opened or fails its warm-up; the drain limit passed.
        KeyboardInterrupt: a second signal cut the drain short.
    """
    keys, tls = guards_of(options)
    tracing = open_tracing(options.otlp) if options.otlp else None
    keep_freed_memory(BLOCKS_KEPT_BYTES)
    look_for_cycles_less()
    with worker.listener if worker else bind(options.host, options.port) as listener:
        say(f"Loading {options.engine or options.models} …")
        models = (open_them or open_models)(options, say)
        models.regions.allowed = options.allow_shared_memory
        try:
            server = _assemble(options, models, keys, tls, tracing, say)

            def greet(warm_up_s: float) -> None:
                scheme, needs_key = "https" if tls else "http", bool(keys)
                if options.models:
                    say(describe_models(models))
                for line in describe_server(
                    models.default.engine, listener, options.host, warm_up_s, scheme=scheme, needs_key=needs_key
                ):
                    say(line)

            _when_warm(models, server, greet)
            if worker:
                worker.tell_listening()
            server.run(sockets=[listener])
        finally:
            closed = [served.engine.close(FORCED_EXIT_S) for served in models]
            if not all(closed):
                # A library may wait for its thread at the end of the process, and that one never comes back.
                faulthandler.dump_traceback_later(FORCED_END_S, exit=True)
            if tracing:
                tracing.close()
        _judge(models, server, options)


def _when_warm(models: Models, server: DrainingServer, greet: Callable[[float], None]) -> None:
    """Greet once every model is warm, with the seconds that took; end the server where one failed."""
    warm = itertools.count(1)

    def on_warm(warmed: Future[float]) -> None:
        if warmed.exception() is not None:
            server.should_exit = True
        elif next(warm) == len(models) and not models.default.service.leaving:
            # One that was told to stop before it was warm has no address to show any more.
            greet(warmed.result())

    for served in list(models):
        served.engine.batcher.warmed.add_done_callback(on_warm)


def open_models(options: ServeOptions, say: Callable[[str], None]) -> Models:
    """The one artifact, or all models of a folder; none is started. `say` is told what a measurement finds.

    Raises:
        ZooError: as `open_engine` and `Repository.open_all`.
    """
    if options.models is not None:
        return Repository(options.models, options, limits_of, say).open_all()
    engine = open_engine(options, say)
    return only(Service(Slot(engine), limits_of(options, engine.batcher)))


def limits_of(options: ServeOptions, batcher: Batcher) -> Limits:
    """What one request of a model may cost, and how many may be under way."""
    decode_threads = usable_processors()
    return Limits(
        max_body_bytes=round(options.max_body_mb * 1e6),
        timeout_s=options.timeout_ms / 1000.0,
        # A full queue, full batches, and for each thread one picture being decoded and one being read.
        max_in_flight=batcher.queue_capacity + batcher.max_batch_size * batcher.instances + 2 * decode_threads,
        decode_threads=decode_threads,
        drain_s=options.drain_seconds,
        max_wait_s=options.max_wait_ms / 1000.0,
        pictures=options.pictures,
        cache_bytes=round(options.cache_mb * 1e6),
    )


def guards_of(options: ServeOptions) -> tuple[Keyring, Tls | None]:
    """Who is let in, and by which encryption.

    Raises:
        ZooError: a file that cannot be used; or whoever reaches this machine could change what it serves.
    """
    most_connections(options.max_connections)
    keys = read_keys(options.api_keys, os.environ, options.rate_limit)
    tls = (
        Tls(options.tls_cert, options.tls_key, options.tls_client_ca) if options.tls_cert and options.tls_key else None
    )
    if tls:
        tls.check()
    if options.model_control and options.host not in LOOPBACK and not (keys or options.tls_client_ca):
        raise ZooError(
            f"--model-control on {options.host}: everybody who reaches it could load and unload models.",
            "Add --api-keys FILE with a key of the role manage, or leave --host out.",
        )
    return keys, tls


def _assemble(
    options: ServeOptions,
    models: Models,
    keys: Keyring,
    tls: Tls | None,
    tracing: Tracing | None,
    say: Callable[[str], None],
) -> DrainingServer:
    app = app_of(models, _beside(options, keys, tls, tracing, say), keys, tracing)

    doors = Doors(
        ConnectionLimits(
            max_connections=most_connections(options.max_connections),
            body_timeout_s=options.timeout_ms / 1000.0,
        )
    )

    def on_leave(delay_s: float) -> None:
        for served in models:
            served.service.leave()
        doors.is_leaving = True
        if delay_s:
            say(f"Not ready any more; stopping in {delay_s:g} s. A second signal stops at once.")

    def on_drain() -> None:
        for served in models:
            served.service.stop_accepting()
        under_way = _count(sum(served.service.in_flight for served in models), "request")
        say(f"Draining {under_way}, {options.drain_seconds:g} s at most; Ctrl-C again stops at once.")

    def on_give_up() -> None:
        for served in models:
            served.service.give_up()

    return DrainingServer(
        listener_config(app, doors, models.default.service.limits, tls),
        on_leave=on_leave,
        on_drain=on_drain,
        on_give_up=on_give_up,
        shutdown_delay_s=options.shutdown_delay_s,
    )


def listener_config(app: Starlette, doors: Doors, limits: Limits, tls: Tls | None = None) -> uvicorn.Config:
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
        **(tls.for_http() if tls else {}),
        # uvicorn's type says whole seconds, but it only passes the value to asyncio.wait_for.
        timeout_graceful_shutdown=limits.drain_s,  # type: ignore[arg-type]
    )


def _beside(
    options: ServeOptions, keys: Keyring, tls: Tls | None, tracing: Tracing | None, say: Callable[[str], None]
) -> Beside | None:
    """The gRPC server, where one is asked for.

    Raises:
        MissingCapabilityError: grpcio is not installed. ZooError: as `bind`.
    """
    if options.grpc_port is None:
        return None
    try:
        from serve.rpc.server import grpc_server
    except ImportError as error:
        raise MissingCapabilityError("gRPC needs the package grpcio.", "pip install 'zoo[grpc]'") from error
    # gRPC says of an address that it cannot have only that it cannot have it.
    bind(options.host, options.grpc_port, option="--grpc-port").close()
    address = in_url(options.host)

    @asynccontextmanager
    async def serve(models: Models) -> AsyncIterator[None]:
        limit = round(options.max_body_mb * 1e6)
        async with grpc_server(
            models,
            f"{address}:{options.grpc_port}",
            max_body_bytes=limit,
            drain_s=options.drain_seconds,
            keys=keys,
            credentials=tls.for_grpc() if tls else None,
            tracing=tracing,
        ) as port:
            say(f"gRPC is at {address}:{port}.")
            yield

    return serve


def _judge(models: Models, server: DrainingServer, options: ServeOptions) -> None:
    """Return when everything was answered; else raise the reason."""
    for served in models:
        artifact, batcher = served.engine.info.artifact, served.engine.batcher
        error = batcher.warmed.exception() if batcher.warmed.done() else None
        if isinstance(error, ZooError):
            raise error
        if error is not None:
            raise ArtifactError(
                f"{artifact} failed its warm-up with batches up to {batcher.max_batch_size}: {error}",
                "A smaller --max-batch-size needs less memory.",
            ) from error
    if server.force_exit:
        raise KeyboardInterrupt
    if abandoned := sum(served.service.abandoned for served in models):
        raise ZooError(
            f"{_count(abandoned, 'request')} still unanswered after {options.drain_seconds:g} s.",
            "A larger --drain-seconds gives them longer.",
        )


def describe_models(models: Models) -> str:
    """The line shown of several models: which, in which versions."""
    names = dict.fromkeys(served.name for served in models)
    listed = ", ".join(f"{name} ({', '.join(models.versions(name))})" for name in names)
    return f"Models: {listed}. The page shows {models.default.name}; /predict?model=NAME asks another one."


def describe_server(
    engine: Engine,
    listener: socket.socket,
    host: str,
    warm_up_s: float,
    *,
    scheme: str = "http",
    needs_key: bool = False,
) -> list[str]:
    """The lines shown when the server is ready: what it serves, where, and a command to copy."""
    info, contract, batcher = engine.info, engine.contract, engine.batcher
    url = f"{scheme}://{in_url(reachable(host))}:{listener.getsockname()[1]}"
    curl = "curl --data-binary @PICTURE.jpg"
    if needs_key:
        curl += " -H 'Authorization: Bearer KEY'"
    elif has_digits(contract) and scheme == "http":
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
    if reachable(host) != host and not needs_key:
        lines.append("Every address of this machine is served, and there is no authentication.")
    return [*lines, "Ctrl-C answers what is under way, then stops."]


def _count(number: int, noun: str) -> str:
    return f"{number} {noun}{'' if number == 1 else 's'}"
