"""Owns a server's life: socket, engine, warm-up, signals, drain, in that order; `serve.web.app` answers."""

from __future__ import annotations

import asyncio
import errno
import itertools
import os
import socket
from collections.abc import AsyncIterator, Callable
from concurrent.futures import Future
from contextlib import asynccontextmanager
from types import FrameType

import uvicorn

from serve.core.batcher import Batcher
from serve.core.service import Limits, Service
from serve.core.slot import Engine, Slot
from serve.engine import open_engine
from serve.keys import Keyring, read_keys
from serve.models.models import Models, only
from serve.options import ServeOptions
from serve.repository.control import Repository
from serve.tls import Tls
from serve.tracing import Tracing, open_tracing
from serve.web.app import Beside, app_of
from serve.web.examples import has_digits
from zoo import __version__
from zoo.errors import ArtifactError, MissingCapabilityError, ZooError
from zoo.machine import usable_processors
from zoo.model.spec import RGB

# Load balancers keep idle connections for about a minute. A server that closes first makes them send in vain.
KEEP_ALIVE_S = 75
LOOPBACK = ("127.0.0.1", "localhost", "::1")
# How long an exit waits for a batch under way after the second signal.
FORCED_EXIT_S = 2.0


class DrainingServer(uvicorn.Server):
    """uvicorn that drains at the first signal and ends at once at the second; it then returns instead of raising.

    `on_stop` is called once, on the event loop, at the first signal; `on_give_up` when a second cut the drain short.
    """

    def __init__(self, config: uvicorn.Config, *, on_stop: Callable[[], None], on_give_up: Callable[[], None]) -> None:
        super().__init__(config)
        self._on_stop = on_stop
        self._on_give_up = on_give_up

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        """Handle a signal. uvicorn's own version would raise the signal again at the end."""
        if self.should_exit:
            self.force_exit = True
            return
        self.should_exit = True
        # A signal may interrupt a write to stderr, so printing waits for the loop's next turn.
        asyncio.get_running_loop().call_soon_threadsafe(self._on_stop)

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        """Drain. uvicorn's own version leaves the application's lifespan hanging after a second signal."""
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
    keys, tls = guards_of(options)
    tracing = open_tracing(options.otlp) if options.otlp else None
    with bind(options.host, options.port) as listener:
        say(f"Loading {options.engine or options.models} …")
        models = open_models(options)
        models.regions.allowed = options.allow_shared_memory
        try:
            server = _assemble(options, models, keys, tls, tracing, say)
            warm = itertools.count(1)

            def on_warm(warmed: Future[float]) -> None:
                if warmed.exception() is not None:
                    server.should_exit = True
                elif next(warm) == len(models):
                    if options.models:
                        say(describe_models(models))
                    for line in describe_server(
                        models.default.engine,
                        listener,
                        options.host,
                        warmed.result(),
                        scheme="https" if tls else "http",
                        needs_key=bool(keys),
                    ):
                        say(line)

            for served in list(models):
                served.engine.batcher.warmed.add_done_callback(on_warm)
            server.run(sockets=[listener])
        finally:
            for served in models:
                served.engine.close(FORCED_EXIT_S)
            if tracing:
                tracing.close()
        _judge(models, server, options)


def open_models(options: ServeOptions) -> Models:
    """The one artifact, or all models of a folder; none is started.

    Raises:
        ZooError: as `open_engine` and `Repository.open_all`.
    """
    if options.models is not None:
        return Repository(options.models, options, limits_of).open_all()
    engine = open_engine(options)
    return only(Service(Slot(engine), limits_of(options, engine.batcher)))


def limits_of(options: ServeOptions, batcher: Batcher) -> Limits:
    """What one request of a model may cost, and how many may be under way."""
    decode_threads = usable_processors()
    return Limits(
        max_body_bytes=round(options.max_body_mb * 1e6),
        timeout_s=options.timeout_ms / 1000.0,
        # A full queue, full batches, and for each thread one picture being decoded and one being read.
        max_in_flight=batcher.queue_capacity + batcher.max_batch_size * options.instances + 2 * decode_threads,
        decode_threads=decode_threads,
        drain_s=options.drain_seconds,
    )


def guards_of(options: ServeOptions) -> tuple[Keyring, Tls | None]:
    """Who is let in, and by which encryption.

    Raises:
        ZooError: a file that cannot be used; or whoever reaches this machine could change what it serves.
    """
    keys = read_keys(options.api_keys, os.environ)
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

    def on_stop() -> None:
        for served in models:
            served.service.stop_accepting()
        under_way = _count(sum(served.service.in_flight for served in models), "request")
        say(f"Draining {under_way}, {options.drain_seconds:g} s at most; Ctrl-C again stops at once.")

    def on_give_up() -> None:
        for served in models:
            served.service.give_up()

    config = uvicorn.Config(
        app,
        access_log=False,
        log_config=None,
        server_header=False,
        proxy_headers=False,
        timeout_keep_alive=KEEP_ALIVE_S,
        **(tls.for_http() if tls else {}),
        # uvicorn's type says whole seconds, but it only passes the value to asyncio.wait_for.
        timeout_graceful_shutdown=options.drain_seconds,  # type: ignore[arg-type]
    )
    return DrainingServer(config, on_stop=on_stop, on_give_up=on_give_up)


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
    address = f"[{options.host}]" if ":" in options.host else options.host

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


def bind(host: str, port: int, option: str = "--port") -> socket.socket:
    """Claim the address before anything slow happens; port 0 takes a free one. `option` is what says the port.

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
            errno.EADDRINUSE: f"Stop the other server, or choose another {option}; {option} 0 takes a free one.",
            errno.EACCES: f"Ports below 1024 are reserved: choose a larger {option}.",
            errno.EADDRNOTAVAIL: "Use an address of this machine: --host 127.0.0.1 or 0.0.0.0.",
        }.get(error.errno or 0, f"Choose another --host or {option}.")
        raise ZooError(f"Cannot listen on {host}:{port}: {os.strerror(error.errno or 0)}.", hint) from error


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
    # 0.0.0.0 and :: mean every address; a person on this machine reaches them through the loopback.
    shown = {"0.0.0.0": "127.0.0.1", "::": "[::1]", "": "127.0.0.1"}.get(host, f"[{host}]" if ":" in host else host)
    url = f"{scheme}://{shown}:{listener.getsockname()[1]}"
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
    if shown != host and host not in LOOPBACK and not needs_key:
        lines.append("Every address of this machine is served, and there is no authentication.")
    return [*lines, "Ctrl-C answers what is under way, then stops."]


def _count(number: int, noun: str) -> str:
    return f"{number} {noun}{'' if number == 1 else 's'}"
