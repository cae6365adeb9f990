"""Owns what `zoo serve` can be told: ranges, defaults, help; light to import."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal

from export.backends import USUAL
from export.options import BackendChoice, RequireSignature
from zoo.options import Arg, DeviceChoice, Opt
from zoo.rows import Count, NotNegative, Positive, Row, Within

Port = Annotated[int, Within(0, 65535)]


@dataclass(frozen=True, kw_only=True)
class ServeOptions(Row):
    """What to serve, where, and within which limits; None leaves a choice to the engine's device."""

    engine: Annotated[
        str | None,
        Arg("ARTIFACT", instead=("models", "status")),
        Opt("The same as ARTIFACT.", flags=("--engine",), metavar="ARTIFACT"),
    ] = None
    models: Annotated[
        Path | None,
        Opt("A folder of models instead, as `zoo export --triton` makes it.", metavar="DIR", unless="engine"),
    ] = None
    model_control: Annotated[bool, Opt("Let clients load and unload its models.", needs="models")] = False
    status: Annotated[
        bool, Opt("Say how the server at --host and --port is, instead of serving; exit code 1 when it is not ready.")
    ] = False
    host: Annotated[str, Opt("Address; 0.0.0.0 is every one of this machine.")] = "127.0.0.1"
    port: Annotated[Port, Opt("0 takes a free one.")] = 8080
    api_keys: Annotated[
        Path | None,
        Opt("Only who has a key of this file is answered: `predict KEY` or `manage KEY` a line.", metavar="FILE"),
    ] = None
    rate_limit: Annotated[
        Positive | None,
        Opt("Requests a second of one key, or without keys of one address; more get 429.  [default: no limit]"),
    ] = None
    tls_cert: Annotated[Path | None, Opt("Serve TLS by this certificate, PEM.", metavar="FILE", needs="tls_key")] = None
    tls_key: Annotated[Path | None, Opt("Its key, PEM.", metavar="FILE", needs="tls_cert")] = None
    tls_client_ca: Annotated[
        Path | None, Opt("Let in only clients with a certificate of this CA, PEM.", metavar="FILE", needs="tls_cert")
    ] = None
    allow_shared_memory: Annotated[bool, Opt("Let clients on this machine pass tensors in shared memory.")] = False
    otlp: Annotated[
        str | None, Opt("Send traces to this collector, by OTLP over HTTP.", metavar="http://HOST:4318")
    ] = None
    grpc_port: Annotated[Port | None, Opt("Serve gRPC there too; 0 takes a free one.  [default: HTTP only]")] = None
    backend: BackendChoice = USUAL
    device: DeviceChoice = "auto"
    require_signature: RequireSignature = None
    instances: Annotated[
        Count | None, Opt("Copies of the engine at work.  [default: one a core, at most 8; GPU 2]")
    ] = None
    threads: Annotated[Count | None, Opt("Processor threads per instance.  [default: its share of the cores]")] = None
    tune: Annotated[bool, Opt("Measure which instances × threads are fastest here, once.", unless="instances")] = False
    max_batch_size: Annotated[Count | None, Opt("Pictures per inference.  [default: 8 CPU, 32 GPU]")] = None
    queue_capacity: Annotated[Count | None, Opt("Pictures that may wait.  [default: 8 full batches]")] = None
    max_queue_delay_ms: Annotated[
        NotNegative, Opt("How long a picture may wait for its batch to fill; 0 never waits.")
    ] = 0.0
    preferred_batch_sizes: Annotated[
        tuple[Count, ...],
        Opt(
            "While that lasts, a batch of so many goes as well; repeatable.",
            flags=("--preferred-batch-size",),
            needs="max_queue_delay_ms",
        ),
    ] = ()
    pictures: Annotated[
        Literal["exact", "quick"],
        Opt("exact: the pixels that zoo predict makes; quick: almost those, in less time. docs/serving.md"),
    ] = "exact"
    cache_mb: Annotated[
        NotNegative, Opt("Keep so many MB of each model's answers, for pictures that come again; 0 keeps none.")
    ] = 0.0
    max_wait_ms: Annotated[
        Positive, Opt("A request that would wait longer for its batch to begin is refused, by estimate, with 503.")
    ] = 500.0
    timeout_ms: Annotated[Positive, Opt("A request's time, from its first byte to its answer.")] = 10_000.0
    max_body_mb: Annotated[Positive, Opt("Largest upload.")] = 20.0
    max_connections: Annotated[
        Count | None, Opt("Open connections; one more closes the one idle longest.  [default: 10000, or open files]")
    ] = None
    shutdown_delay_s: Annotated[
        NotNegative, Opt("After SIGTERM, how long to be not ready but still take requests, while load balancers learn.")
    ] = 5.0
    drain_seconds: Annotated[NotNegative, Opt("How long requests under way may take once the server stops.")] = 10.0
    supervised: Annotated[bool, Opt("Start the server again when something kills its process: no memory, a crash.")] = (
        False
    )
    log_level: Annotated[Literal["debug", "info", "warning", "error"], Opt("info adds a line per request.")] = "warning"
    log_format: Annotated[Literal["text", "json"], Opt("How a line of the log is written.")] = "text"
