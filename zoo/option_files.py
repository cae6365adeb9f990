"""Owns options that come from a TOML file and from the environment: the fields of the same row, read in one place.

What is typed counts most, then the environment, then the file, then the row's own default.
"""

from __future__ import annotations

import os
import tomllib
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import click

from zoo.errors import ZooError, unknown_name
from zoo.options import PATH, fields_of_many, option_fields
from zoo.rows import Row


def configurable(
    row: type[Row], prefix: str, *, besides: tuple[str, ...] = ()
) -> Callable[[Callable[..., Any]], Callable[..., Any]]:
    """Give a command that `takes` a row the option `--config FILE`, and its fields the variables `PREFIX_FIELD`.

    Args:
        row: whose fields they are.
        prefix: of the variables, "ZOO_SERVE" for example.
        besides: variables with that prefix that somebody else reads.
    """
    names, many = option_fields(row), fields_of_many(row)

    def read(ctx: click.Context, param: click.Parameter, value: Path | None) -> None:
        hint = f"There are {', '.join(names)}."
        found = _from_file(value, names, many, hint) if value else {}
        variables = _from_environment(os.environ, prefix, names, besides, hint)
        found |= {name: text.replace(",", " ").split() if name in many else text for name, text in variables.items()}
        ctx.default_map = {**(ctx.default_map or {}), **found}

    return click.option(
        "--config",
        type=PATH,
        metavar="FILE.toml",
        is_eager=True,
        expose_value=False,
        callback=read,
        help=f"Options from a TOML file, named as here with _ for -; {prefix}_… in the environment counts more.",
    )


def _from_file(path: Path, names: tuple[str, ...], many: frozenset[str], hint: str) -> dict[str, Any]:
    try:
        found = tomllib.loads(path.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, tomllib.TOMLDecodeError) as error:
        raise ZooError(f"{path} cannot be read: {error}", 'A line is `port = 8080` or `host = "0.0.0.0"`.') from error
    for name, value in found.items():
        if name not in names:
            raise unknown_name(f"option in {path}", name, names, hint)
        if not isinstance(value, list if name in many else str | int | float | bool):
            expected = "a list" if name in many else "one value"
            raise ZooError(f"{name} in {path} is a {type(value).__name__}; expected {expected}.", hint)
    return found


def _from_environment(
    environment: Mapping[str, str], prefix: str, names: tuple[str, ...], besides: tuple[str, ...], hint: str
) -> dict[str, str]:
    found = {}
    for variable, value in environment.items():
        if not variable.startswith(f"{prefix}_") or variable in besides:
            continue
        name = variable.removeprefix(f"{prefix}_").lower()
        if name not in names:
            raise unknown_name(
                "option in the environment", variable, [f"{prefix}_{each.upper()}" for each in names], hint
            )
        found[name] = value
    return found
