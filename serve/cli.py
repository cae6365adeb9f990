"""Owns the `serve` command: its log and what it prints; serving is `serve.server`."""

from __future__ import annotations

import logging
import sys

import click

from serve.keys import VARIABLE
from serve.options import ServeOptions
from zoo.option_files import configurable
from zoo.options import takes


@click.command()
@takes(ServeOptions)
@configurable(ServeOptions, "ZOO_SERVE", besides=(VARIABLE,))
def serve(options: ServeOptions) -> None:
    """Serve ARTIFACT over HTTP, with a page to try it: an .onnx, a .plan, a checkpoint or a model's id.

    \b
    zoo serve s.onnx                            the page is at http://127.0.0.1:8080
    zoo serve s.onnx --instances 2 --threads 1  more throughput on two cores
    zoo serve --models models                   all that `zoo export --triton models` put there
    curl --data-binary @cat.jpg http://127.0.0.1:8080/predict
    """
    from serve.server import serve_engine

    level = options.log_level.upper()
    logging.basicConfig(stream=sys.stderr, level=level, format="%(asctime)s %(levelname)s %(message)s", force=True)
    if level != "DEBUG":
        logging.getLogger("uvicorn").setLevel(logging.WARNING)
    serve_engine(options, say=lambda line: click.echo(line, err=True))
