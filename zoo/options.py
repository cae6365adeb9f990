"""Owns the click options that several commands share, each written once; an option of one command stands with it."""

from __future__ import annotations

import math
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

import click

Command = TypeVar("Command", bound=Callable[..., Any])
Option = Callable[[Command], Command]

DEVICES = click.Choice(["auto", "cpu", "cuda"])
FILE = click.Path(path_type=Path, dir_okay=False)
FOLDER = click.Path(path_type=Path, file_okay=False)
PATH = click.Path(path_type=Path)
SEED = click.IntRange(0, 2**32 - 1)


class Finite(click.FloatRange):
    """A number within a range that is a number: NaN passes every comparison that could refuse it, ∞ half of them."""

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        """Read the number, then refuse what is none."""
        number = super().convert(value, param, ctx)
        if not math.isfinite(number):
            self.fail(f"{value} is not a number that can be used.", param, ctx)
        return number


# Where measurements are kept, and where `zoo bench report` looks for them.
RESULTS = Path("benchmarks")

json_option = click.option("--json", "as_json", is_flag=True, help="Print JSON, and only JSON, on stdout.")
device_option = click.option(
    "--device", type=DEVICES, default="auto", show_default=True, help="auto takes a GPU that works."
)
threads_option = click.option("--threads", type=click.IntRange(1), help="Processor threads.  [default: the back end's]")
results_option = click.option(
    "-o", "--out", type=FOLDER, default=RESULTS, show_default=True, help="Folder of the results."
)


def seed_option(help: str) -> Option[Any]:
    """`--seed`, 0 by default; `help` says what it decides."""
    return click.option("--seed", type=SEED, default=0, show_default=True, help=help)
