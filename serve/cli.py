"""Owns the `serve` command: what it prints; serving is `serve.server`, the log `serve.log`."""

from __future__ import annotations

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
    zoo serve s.onnx --tune                     measure first which layout suits this machine
    zoo serve --models models                   all that `zoo export --triton models` put there
    curl --data-binary @cat.jpg http://127.0.0.1:8080/predict
    """
    from serve.log import start_log
    from serve.server import serve_engine

    start_log(options.log_level, options.log_format)
    serve_engine(options, say=lambda line: click.echo(line, err=True))
