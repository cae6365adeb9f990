"""Owns docs/cli.md: every command with its help."""

from __future__ import annotations

from collections.abc import Iterator

import click

from zoo.cli import LazyGroup, cli


def page() -> str:
    """All commands with their help."""
    blocks = [f"## `{path}`\n\n```text\n{text}\n```\n" for path, text in help_pages(cli, "zoo")]
    head = "# Command line\n\nMade from `--help` by `make docs`; `make lint` checks that it is current.\n"
    return "\n".join([head, *blocks])


def help_pages(command: click.Command, path: str, parent: click.Context | None = None) -> Iterator[tuple[str, str]]:
    """Yield (command line, help text) of a command and everything under it."""
    context = click.Context(
        command, info_name=path.rpartition(" ")[2], parent=parent, max_content_width=100, terminal_width=100
    )
    yield path, command.get_help(context)
    if isinstance(command, LazyGroup):
        for name in command.list_commands(context):
            child = command.get_command(context, name)
            if child:
                yield from help_pages(child, f"{path} {name}", context)
