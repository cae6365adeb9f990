"""Owns the one console entry: a table of commands, loaded when used, and the one place errors become exit codes."""

from __future__ import annotations

import atexit
import importlib
import io
import os
import signal
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import click

from zoo import __version__
from zoo.errors import ZooError
from zoo.files import FULL_DISK
from zoo.stopping import Stopped, stop_signals
from zoo.visible import visible, visible_lines

# "module:attribute" of each command and the line `zoo --help` shows for it. Being data, the table points upwards
# without importing upwards, and help costs no framework.
COMMANDS: dict[str, tuple[str, str]] = {
    "list": ("zoo.commands.models:list_models", "Show every network: parameters, MACs, accuracy, weights."),
    "show": ("zoo.commands.models:show_model", "Show one network stage by stage."),
    "scale": ("zoo.commands.models:scale_model", "Write a network of your own: one of these, scaled."),
    "doctor": ("zoo.commands.machine:doctor", "Say what this machine can do, and how to add the rest."),
    "sample": ("zoo.commands.machine:sample", "Write pictures of the embedded data set, a folder per class."),
    "data": ("zoo.cli:data", "Check pictures, and pack or index them for training."),
    "train": ("train.cli:train", "Train with progressive learning."),
    "search": ("train.search.cli:search_command", "Search for a network by accuracy, training speed and size."),
    "compare": ("train.cli:compare", "Put finished runs side by side, paired picture by picture."),
    "pull": ("zoo.commands.weights:pull", "Fetch published weights."),
    "import": ("zoo.commands.weights:import_file", "Bring weights in from torchvision, timm, Google, Keras."),
    "convert": ("zoo.commands.weights:convert", "Take weights out to torchvision, timm."),
    "evaluate": ("export.cli:evaluate", "Measure accuracy of a checkpoint, .onnx or .plan."),
    "export": ("export.cli:export", "Turn a checkpoint into ONNX and a TensorRT engine, checked."),
    "inspect": ("export.cli:inspect", "Say what an artifact is, and what this machine can do with it."),
    "predict": ("export.cli:predict", "Classify pictures."),
    "serve": ("serve.cli:serve", "Serve an engine over HTTP, with a page to try it."),
    "bench": ("zoo.cli:bench", "Measure latency, stages and training; make the report."),
}
BENCHMARKS: dict[str, tuple[str, str]] = {
    "latency": ("serve.bench.cli:latency", "Latency percentiles and throughput of an artifact."),
    "stages": ("serve.bench.stage_cli:stages", "MBConv against Fused-MBConv, stage by stage, in the engine."),
    "fusion": ("serve.bench.stage_cli:fusion", "The paper's Table 3: B4 with more and more Fused-MBConv."),
    "latency-table": (
        "serve.bench.stage_cli:latency_table",
        "Every block of a search space in the engine, and their sums.",
    ),
    "serve": ("serve.bench.cli:serve", "What servers do under load, and under too much of it."),
    "train": ("train.cli:bench_train", "Training throughput at every stage's size."),
    "zoo": ("serve.bench.cli:bench_networks", "The family's frontier: accuracy over time."),
    "compare": ("serve.bench.cli:compare", "What became slower from one result to another?"),
    "check": ("serve.bench.cli:check", "Check the harness itself on this machine."),
    "report": ("serve.bench.cli:report", "One page with every result."),
}
DATA: dict[str, tuple[str, str]] = {
    "check": ("zoo.commands.data:check_data", "Broken files, duplicates, class balance, sizes."),
    "pack": ("zoo.commands.data:pack_data", "Write shards with pictures reduced to what training can use."),
    "index": ("zoo.commands.data:index_data", "Make WebDataset's tar files readable that others wrote."),
}
# What stands beside this package.
PACKAGES = ("train", "export", "serve")


class LazyGroup(click.Group):
    """A group whose commands are imported when one of them is called or asked for its own help."""

    def __init__(self, *args: Any, table: Mapping[str, tuple[str, str]], **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.table = table

    def list_commands(self, ctx: click.Context) -> list[str]:
        """Names in the order of the table: the order of the work."""
        return list(self.table)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        """Import the command's module and return it."""
        if cmd_name not in self.table:
            return None
        module, _, attribute = self.table[cmd_name][0].partition(":")
        command: click.Command = getattr(importlib.import_module(module), attribute)
        return command

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        """Resolve, and name the nearest command for a misspelt one."""
        from difflib import get_close_matches

        if args and args[0] not in self.table and not args[0].startswith("-"):
            near = get_close_matches(args[0], self.table, n=1)
            guess = f" Did you mean {near[0]}?" if near else ""
            ctx.fail(f"No such command {args[0]!r}.{guess}")
        return super().resolve_command(ctx, args)

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """List the commands from the table, importing none."""
        with formatter.section("Commands"):
            formatter.write_dl([(name, line) for name, (_, line) in self.table.items()])


@click.group(cls=LazyGroup, table=COMMANDS, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(__version__, prog_name="zoo")
def cli() -> None:
    """EfficientNetV2 from training to a served engine.

    \b
    zoo train s                     progressive training → runs/s/
    zoo export s --trt fp16         s.onnx, s.plan, s.json, after the parity gate
    zoo serve s.plan                HTTP, a page, metrics
    zoo bench latency s.onnx        percentiles; then `zoo bench report`
    """


@click.group(cls=LazyGroup, table=BENCHMARKS)
def bench() -> None:
    """Measure latency, stages and training throughput; results are JSON files that `report` turns into a page."""


@click.group(cls=LazyGroup, table=DATA)
def data() -> None:
    """Check pictures before training, and pack them so that reading is never what a run waits for."""


def step_around_namesakes() -> None:
    """Take folders off the path that have a `train`, `export` or `serve` of their own in front of ours.

    Many a project has a train.py, and `python -m zoo` as well as PYTHONPATH=. look into the working folder first.
    Processes that are started later get the same path.
    """
    home = Path(__file__).resolve().parents[1]

    def hides_ours(entry: str) -> bool:
        folder = Path(entry)
        found = (folder / name for package in PACKAGES for name in (f"{package}.py", f"{package}/__init__.py"))
        return any(path.is_file() for path in found) and folder.resolve() != home

    sys.path[:] = [entry for entry in sys.path if not hides_ours(entry)]


def main() -> None:
    """Run the command line; turn our errors into one line with a hint and their exit code."""
    step_around_namesakes()
    # A file's name may hold bytes that are no text: shown with escapes, they end no command.
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")
    # OpenMP threads that spin for long make a busy machine many times slower, those that sleep at once an idle one
    # nearly twice (S at 44 px on two idle cores: 78 pictures/s by default, 77 with this count, 43 with PASSIVE).
    os.environ.setdefault("GOMP_SPINCOUNT", "10000")  # before torch is imported
    try:
        with stop_signals():
            code = cli(prog_name="zoo", standalone_mode=False)
        sys.exit(code if isinstance(code, int) else 0)  # click returns the code of ctx.exit()
    except click.exceptions.Exit as stop:
        sys.exit(stop.exit_code)
    except click.ClickException as error:
        said = io.StringIO()
        error.show(said)
        click.echo(visible_lines(said.getvalue()), nl=False, err=True)
        sys.exit(error.exit_code)
    except (click.Abort, KeyboardInterrupt) as stopped:
        # A second press of Ctrl-C, while libraries leave, ends the process; they would show where it met them.
        atexit.register(signal.signal, signal.SIGINT, signal.SIG_DFL)
        click.echo("Stopped.", err=True)
        sys.exit(stopped.exit_code if isinstance(stopped, Stopped) else 130)
    except ZooError as error:
        _tell(error)
        sys.exit(error.exit_code)
    except BrokenPipeError:
        # `zoo list | head` closed the pipe: nothing is wrong, and Python must not complain while it flushes.
        sys.stdout = None
        sys.exit(0)
    except OSError as error:
        if error.errno not in FULL_DISK:
            raise
        # Files are written by `zoo.files`, which names them: this is `zoo list > FILE`.
        sys.stdout = None
        _tell(ZooError(f"The output cannot be written: {error.strerror}.", "Make room where it is redirected to."))
        sys.exit(1)


def _tell(error: ZooError) -> None:
    """One line with the problem, one with what to do next."""
    from zoo.console import wants_colour

    coloured = None if wants_colour() else False  # None: where stderr is a terminal
    click.echo(f"{click.style('Error:', fg='red', bold=True)} {visible(error.problem)}", err=True, color=coloured)
    if error.hint:
        click.echo(f"{click.style('Hint:', bold=True)}  {visible(error.hint)}", err=True, color=coloured)
