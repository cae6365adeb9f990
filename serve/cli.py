"""Owns the `serve` command: what it prints; serving is `serve.server`, the log `serve.log`."""

from __future__ import annotations

import click

from serve.keys import VARIABLE
from serve.options import ServeOptions
from zoo.errors import ZooError
from zoo.option_files import configurable
from zoo.options import json_option, takes


@click.command()
@takes(ServeOptions)
@configurable(ServeOptions, "ZOO_SERVE", besides=(VARIABLE,))
@json_option
def serve(options: ServeOptions, as_json: bool) -> None:
    """Serve ARTIFACT over HTTP, with a page to try it: an .onnx, a .plan, a checkpoint or a model's id.

    \b
    zoo serve s.onnx                            the page is at http://127.0.0.1:8080
    zoo serve s.onnx --tune                     measure first which layout suits this machine
    zoo serve --models models                   all that `zoo export --triton models` put there
    zoo serve --status                          how a server that runs is, as a table or with --json
    curl --data-binary @cat.jpg http://127.0.0.1:8080/predict
    """
    if options.status:
        return tell_status(options, as_json=as_json)
    if as_json:
        raise click.UsageError("--json has no effect without --status.")

    def say(line: str) -> None:
        click.echo(line, err=True)

    worker = None
    if options.supervised:
        from serve.supervisor import supervise

        worker = supervise(options.host, options.port, say, plain=options.tls_cert is None)
    from serve.log import start_log
    from serve.server import serve_engine

    start_log(options.log_level, options.log_format)
    serve_engine(options, say, worker=worker)


def tell_status(options: ServeOptions, *, as_json: bool) -> None:
    """Print how the server of these options is.

    Raises:
        ZooError: it is not ready, or does not answer.
    """
    from serve.status import ask_status, show_status
    from zoo.console import print_json, results_console

    status = ask_status(options)
    if as_json:
        print_json(status.to_dict())
    else:
        show_status(status, results_console())
    if not status.ready:
        raise ZooError(f"{status.url} is not ready.", status.reason)
