"""Owns what a person sees while an export or an evaluation works: steps and bars on stderr; it does no work."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager

from rich.console import Console
from rich.progress import BarColumn, Progress, SpinnerColumn, TextColumn, TimeElapsedColumn
from rich.text import Text


class Watch:
    """Is told what is being done; this one shows nothing, for use as a library. Any thread may call `progress`."""

    def step(self, text: str) -> None:
        """A new step begins; the one before is done."""

    def progress(self, text: str, done: int, total: int) -> None:
        """The current step has done `done` of `total` of its part called `text`."""


class Live(Watch):
    """A spinner and a bar on a terminal; elsewhere a line per finished step."""

    def __init__(self, console: Console, progress: Progress) -> None:
        self._console = console
        self._progress = progress
        self._task = progress.add_task("", total=None, part="", visible=False)
        self._text = ""
        self._started = 0.0

    def step(self, text: str) -> None:
        """Tick off the step before and show the new one."""
        self.finish()
        self._text, self._started = text, time.perf_counter()
        self._progress.reset(self._task, description=text, total=None, part="", visible=True)

    def progress(self, text: str, done: int, total: int) -> None:
        """Move the bar."""
        self._progress.update(self._task, part=text, completed=done, total=total)

    def remark(self, text: str) -> None:
        """Print a line above the bar: something worth telling that is no error."""
        self._console.print(Text(text, style="yellow"))

    def finish(self) -> None:
        """Tick off the current step."""
        if self._text:
            taken = f" {time.perf_counter() - self._started:.1f} s"
            self._console.print(Text.assemble(("✓ ", "green"), self._text, (taken, "dim")))
        self._text = ""
        self._progress.update(self._task, visible=False)


@contextmanager
def watching(console: Console) -> Iterator[Live]:
    """Show a `Live` while the block runs; a step that an error ends is not ticked off."""
    columns = (
        SpinnerColumn(),
        TextColumn("{task.description}", markup=False),
        BarColumn(bar_width=24),
        TextColumn("{task.fields[part]}", style="dim", markup=False),
        TimeElapsedColumn(),
    )
    # What is printed on stdout meanwhile stays there: redirected, answers would go to stderr with the bar.
    with Progress(
        *columns, console=console, transient=True, redirect_stdout=False, disable=not console.is_terminal
    ) as progress:
        live = Live(console, progress)
        yield live
        live.finish()
