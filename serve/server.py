"""Owns a server's life: socket, engines, warm-up, signals, drain, in that order; what it answers is `serve.web.app`."""

from __future__ import annotations

import asyncio
import errno
import os
import socket
from collections.abc import Callable
from concurrent.futures import Future
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path
from types import FrameType

import uvicorn

from export.passport import passport_path, read_passport
from export.runners.open import open_runner
from export.runners.runner import Runner
from serve.core.batcher import Batcher
from serve.core.service import EngineInfo, Limits, Service
from serve.options import Options
from serve.web.app import create_app
from serve.web.examples import has_examples
from zoo import __version__
from zoo.errors import ArtifactError, ZooError
from zoo.files import sha256_of

# On a processor larger batches gain nothing (measured: 190 pictures/s at 8, 192 at 16) and cost latency; a GPU fills.
DEFAULT_MAX_BATCH_SIZE = {"cpu": 8, "gpu": 32}
# Eight full batches per instance: under a second of waiting on either, and room for a burst.
QUEUED_BATCHES = 8
# Load balancers keep idle connections for about a minute; closing first makes them send into a closed socket.
KEEP_ALIVE_S = 75
# How long a batch under way may hold up an exit that was asked for twice.
FORCED_EXIT_S = 2.0


class DrainingServer(uvicorn.Server):
    """uvicorn whose first signal drains and whose second ends at once; it then returns instead of raising.

    Args:
        config: uvicorn's.
        on_stop: called once, on the event loop, at the first signal.
        on_give_up: called when a second signal cut the drain short.
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
        # A signal may interrupt a write to stderr, so whatever prints waits for the loop's next turn.
        asyncio.get_running_loop().call_soon_threadsafe(self._on_stop)

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        """Drain. uvicorn's own version leaves the application's lifespan hanging after a second signal."""
        await super().shutdown(sockets)
        if self.force_exit:
            self._on_give_up()
            await self.lifespan.shutdown()


def serve_engine(options: Options, say: Callable[[str], None]) -> None:
    """Serve until a signal comes and everything under way is answered.

    Args:
        options: what to serve, where, and within which limits.
        say: shows one line to a person.

    Raises:
        ZooError: the address is taken; the engine cannot be opened or fails its warm-up; the drain limit passed.
        KeyboardInterrupt: a second signal cut the drain short.
    """
    with ExitStack() as stack:
        listener = stack.enter_context(bind(options.host, options.port))
        say(f"Loading {options.engine} …")
        runners = [
            stack.enter_context(open_runner(options.engine, device=options.device, threads=options.threads))
            for _ in range(options.instances)
        ]
        batcher, service, server = _assemble(options, runners, say)

        def on_warm(warmed: Future[float]) -> None:
            if warmed.exception() is None:
                for line in describe_server(service, listener, options.host, warmed.result()):
                    say(line)
            else:
                server.should_exit = True

        batcher.warmed.add_done_callback(on_warm)
        try:
            server.run(sockets=[listener])
        finally:
            if not batcher.close(FORCED_EXIT_S):
                stack.pop_all()  # a thread is stuck inside an engine: freeing it now would crash the process
        _judge(batcher, service, server, options)


def _assemble(
    options: Options, runners: list[Runner], say: Callable[[str], None]
) -> tuple[Batcher, Service, DrainingServer]:
    runner = runners[0]
    max_batch_size = choose_max_batch_size(runner, options.max_batch_size)
    batcher = Batcher(
        runners,
        queue_capacity=options.queue_capacity or QUEUED_BATCHES * max_batch_size * options.instances,
        max_batch_size=max_batch_size,
        max_queue_delay_ms=options.max_queue_delay_ms,
    )
    decode_threads = os.cpu_count() or 1
    limits = Limits(
        max_body_bytes=round(options.max_body_mb * 1e6),
        timeout_s=options.timeout_ms / 1000.0,
        # Full queue, full batches, and as much again being decoded and read as there are threads to decode it.
        max_in_flight=batcher.queue_capacity + max_batch_size * options.instances + 2 * decode_threads,
        decode_threads=decode_threads,
        drain_s=options.drain_seconds,
    )
    info = describe_engine(Path(options.engine), runner)
    app = create_app(batcher, runner.contract, info, limits)
    service: Service = app.state.service

    def on_stop() -> None:
        service.stop_accepting()
        under_way = _count(service.in_flight, "request")
        say(f"Draining {under_way}, {limits.drain_s:g} s at most; Ctrl-C again stops at once.")

    config = uvicorn.Config(
        app,
        access_log=False,
        log_config=None,
        server_header=False,
        proxy_headers=False,
        timeout_keep_alive=KEEP_ALIVE_S,
        # uvicorn counts whole seconds in its type only; the value goes to asyncio.wait_for.
        timeout_graceful_shutdown=limits.drain_s,  # type: ignore[arg-type]
    )
    return batcher, service, DrainingServer(config, on_stop=on_stop, on_give_up=service.give_up)


def _judge(batcher: Batcher, service: Service, server: DrainingServer, options: Options) -> None:
    """Raise what the end of a run amounts to; return when everything was answered."""
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


def describe_engine(artifact: Path, runner: Runner) -> EngineInfo:
    """What the passport beside an artifact knows of it, if it is there and speaks of this very file.

    Raises:
        ArtifactError: the passport is damaged.
    """
    facts = EngineInfo(artifact=artifact.name, backend=runner.backend, device=runner.device)
    if artifact.suffix not in (".onnx", ".plan") or not passport_path(artifact).is_file():
        return facts
    passport = read_passport(artifact)
    card = passport.onnx if artifact.suffix == ".onnx" else passport.plan
    if card is None or card.sha256 != sha256_of(artifact):
        return facts
    return replace(facts, precision=card.precision, random_weights=passport.random_weights)


def choose_max_batch_size(runner: Runner, asked: int | None) -> int:
    """The largest batch to form: what was asked for, else what suits the device and fits the engine.

    Raises:
        ArtifactError: more than the engine takes.
    """
    most = runner.max_batch_size
    if asked is None:
        default = DEFAULT_MAX_BATCH_SIZE["cpu" if runner.device == "CPU" else "gpu"]
        return default if most is None else min(default, most)
    if most is not None and asked > most:
        raise ArtifactError(
            f"{Path(runner.artifact).name} takes at most {most} pictures at once, not {asked}.",
            f"Use --max-batch-size {most}, or export it with a larger batch profile.",
        )
    return asked


def bind(host: str, port: int) -> socket.socket:
    """Claim the address before anything slow happens; port 0 takes a free one.

    Raises:
        ZooError: in use, not allowed, or not an address of this machine.
    """
    try:
        family, kind, protocol, _, address = socket.getaddrinfo(
            host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
        )[0]
    except socket.gaierror as error:
        raise ZooError(f"{host} is not an address: {error.strerror}.", "Use --host 127.0.0.1 or 0.0.0.0.") from error
    listener = socket.socket(family, kind, protocol)
    try:
        if os.name == "posix":  # elsewhere the option lets two servers share a port
            listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind(address)
        listener.listen(2048)  # bound alone, another server could still take the port
    except OSError as error:
        listener.close()
        hint = {
            errno.EADDRINUSE: "Stop the other server, or choose another --port; --port 0 takes a free one.",
            errno.EACCES: "Ports below 1024 are reserved: choose a larger --port.",
            errno.EADDRNOTAVAIL: "Use an address of this machine: --host 127.0.0.1 or 0.0.0.0.",
        }.get(error.errno or 0, "Choose another --host or --port.")
        raise ZooError(f"Cannot listen on {host}:{port}: {os.strerror(error.errno or 0)}.", hint) from error
    return listener


def describe_server(service: Service, listener: socket.socket, host: str, warm_up_s: float) -> list[str]:
    """The lines shown when the server is ready: what it serves, where, and a command to copy."""
    facts, contract = service.info, service.contract
    # 0.0.0.0 and :: mean every address; a person on this machine reaches them through the loopback.
    shown = {"0.0.0.0": "127.0.0.1", "::": "[::1]", "": "127.0.0.1"}.get(host, f"[{host}]" if ":" in host else host)
    url = f"http://{shown}:{listener.getsockname()[1]}"
    picture = "@PICTURE.jpg"
    before = ""
    if has_examples(contract.classes):
        before, picture = f"curl -s {url}/examples/7.png | ", "@-"
    lines = [
        f"zoo {__version__} serves {contract.model} from {facts.artifact}: "
        f"{len(contract.classes)} classes, pictures at {contract.preprocessing.image_size} px",
        f"{facts.backend} on {facts.device}{f', {facts.precision}' if facts.precision else ''}, "
        f"{_count(service.batcher.instances, 'instance')}, batches up to {service.batcher.max_batch_size}, "
        f"queue of {service.batcher.queue_capacity}, warm in {warm_up_s:.1f} s",
        "",
        f"  page     {url}/",
        f"  predict  {before}curl --data-binary {picture} {url}/predict",
        f"  metrics  {url}/metrics",
        "",
    ]
    if facts.random_weights:
        lines.append("The weights are random: the predictions mean nothing, the latency is real.")
    if shown != host and host not in ("127.0.0.1", "localhost", "::1"):
        lines.append("Every address of this machine is served, and there is no authentication.")
    return [*lines, "Ctrl-C answers what is under way, then stops."]


def _count(number: int, noun: str) -> str:
    return f"{number} {noun}{'' if number == 1 else 's'}"
