"""Owns the `serve` command: its options and what it prints; serving is `serve.server`."""

from __future__ import annotations

import logging
import sys
from typing import TYPE_CHECKING

import click

from serve.options import Options
from zoo.options import Finite, device_option

if TYPE_CHECKING:
    from zoo.machine import Device


@click.command()
@click.option("--engine", required=True, metavar="ARTIFACT", help="An .onnx, a .plan, a checkpoint or a model's id.")
@click.option("--host", default=Options.host, show_default=True, help="Address; 0.0.0.0 is every one of this machine.")
@click.option(
    "--port", type=click.IntRange(0, 65535), default=Options.port, show_default=True, help="0 takes a free one."
)
@device_option
@click.option(
    "--instances",
    type=click.IntRange(1),
    default=Options.instances,
    show_default=True,
    help="Copies of the engine at work.",
)
@click.option("--threads", type=click.IntRange(1), help="Processor threads per instance.  [default: the back end's]")
@click.option("--max-batch-size", type=click.IntRange(1), help="Pictures per inference.  [default: 8 CPU, 32 GPU]")
@click.option("--queue-capacity", type=click.IntRange(1), help="Pictures that may wait.  [default: 8 full batches]")
@click.option(
    "--max-queue-delay-ms",
    type=Finite(0),
    default=Options.max_queue_delay_ms,
    show_default=True,
    help="How long a picture may wait for its batch to fill; 0 never waits.",
)
@click.option(
    "--timeout-ms",
    type=Finite(0, min_open=True),
    default=Options.timeout_ms,
    show_default=True,
    help="A request's time, from its first byte to its answer.",
)
@click.option(
    "--max-body-mb",
    type=Finite(0, min_open=True),
    default=Options.max_body_mb,
    show_default=True,
    help="Largest upload.",
)
@click.option(
    "--drain-seconds",
    type=Finite(0),
    default=Options.drain_seconds,
    show_default=True,
    help="How long requests under way may take after Ctrl-C.",
)
@click.option(
    "--log-level",
    type=click.Choice(["debug", "info", "warning", "error"]),
    default="warning",
    show_default=True,
    help="info adds a line per request.",
)
def serve(
    engine: str,
    host: str,
    port: int,
    device: Device,
    instances: int,
    threads: int | None,
    max_batch_size: int | None,
    queue_capacity: int | None,
    max_queue_delay_ms: float,
    timeout_ms: float,
    max_body_mb: float,
    drain_seconds: float,
    log_level: str,
) -> None:
    """Serve an engine over HTTP, with a page to try it.

    \b
    zoo serve --engine s.onnx                            the page is at http://127.0.0.1:8080
    zoo serve --engine s.onnx --instances 2 --threads 1  more throughput on two cores
    curl --data-binary @cat.jpg http://127.0.0.1:8080/predict
    """
    from serve.server import serve_engine

    logging.basicConfig(
        stream=sys.stderr, level=log_level.upper(), format="%(asctime)s %(levelname)s %(message)s", force=True
    )
    if log_level != "debug":
        logging.getLogger("uvicorn").setLevel(logging.WARNING)
    options = Options(
        engine=engine,
        host=host,
        port=port,
        device=device,
        instances=instances,
        threads=threads,
        max_batch_size=max_batch_size,
        queue_capacity=queue_capacity,
        max_queue_delay_ms=max_queue_delay_ms,
        timeout_ms=timeout_ms,
        max_body_mb=max_body_mb,
        drain_seconds=drain_seconds,
    )
    serve_engine(options, say=lambda line: click.echo(line, err=True))
