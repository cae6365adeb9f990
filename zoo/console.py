"""Owns the two consoles: results go to stdout, progress and remarks to stderr."""

from __future__ import annotations

import sys
from collections.abc import Iterable
from typing import Any

import click
from rich.console import Console, ConsoleOptions, RenderableType
from rich.segment import Segment

from zoo.files import json_text
from zoo.visible import visible_lines


class VisibleConsole(Console):
    """A console on which no text is a command to the terminal: names of files and classes come from anywhere."""

    def render(self, renderable: RenderableType, options: ConsoleOptions | None = None) -> Iterable[Segment]:
        """As Rich does, with what texts hide written as escapes; Rich's own commands are not texts."""
        for text, style, control in super().render(renderable, options):
            yield Segment(text if control else visible_lines(text), style, control)


def results_console() -> Console:
    """A console on stdout; where it is piped, tables keep their full width instead of the 80 columns of a guess."""
    return VisibleConsole(width=None if sys.stdout.isatty() else 120, highlight=False)


def log_console() -> Console:
    """A console on stderr; where it is not a terminal, lines are not wrapped at a guess of 80 columns."""
    return VisibleConsole(stderr=True, width=None if sys.stderr.isatty() else 200, highlight=False)


def print_json(value: Any, *, indent: int | None = 2) -> None:
    """Print plain JSON types on stdout, what `--json` asks for; on one line where `indent` is None.

    Raises:
        ZooError: a number is NaN or infinite.
    """
    click.echo(json_text(value, indent=indent))
