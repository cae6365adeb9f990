"""Owns the commands that look at this machine and make pictures to try it with: doctor, sample."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import click

from zoo.options import FOLDER, json_option


@click.command("doctor")
@json_option
def doctor(as_json: bool) -> None:
    """Say what this machine can do, and how to add the rest."""
    from rich.markup import escape

    from zoo.console import FittingTable, print_json, results_console
    from zoo.doctor import examine

    findings = examine()
    if as_json:
        print_json({name: finding.to_dict() for name, finding in findings.items()})
        return
    table = FittingTable("", "", "", "", show_header=False)
    for name, finding in findings.items():
        sign = "[green]✓[/]" if finding.available else "[yellow]–[/]"
        table.add_row(sign, f"[bold]{name}[/]", finding.version or "", escape(finding.detail))
    console = results_console()
    console.print(table)
    for name, finding in findings.items():
        if finding.hint:
            console.print(f"[bold]{name}:[/] {escape(finding.hint)}", soft_wrap=True)


@click.command("sample")
@click.option("-o", "--out", type=FOLDER, default=Path("pictures"), show_default=True, help="Folder to write to.")
@click.option("--count", type=click.IntRange(1, 360), default=200, show_default=True, help="How many pictures.")
def sample(out: Path, count: int) -> None:
    """Write digits of the embedded validation split as PNG files, a folder per class, to try other commands with.

    \b
    zoo sample
    zoo train tiny --data pictures/
    """
    from zoo.console import log_console
    from zoo.data.digits import write_samples

    paths = write_samples(out, count)
    classes = Counter(path.parent.name for path in paths)
    trains = len(classes) > 1 and min(classes.values()) > 1
    what = f"`zoo train tiny --data {out}` trains on them" if trains else "too few to train on, enough to predict"
    log_console().print(f"{count} pictures of {len(classes)} classes: {what}.", soft_wrap=True)
    click.echo(out)
