"""Owns rows in TOML files of the user: how they are written and read, and what makes one of a network valid."""

from __future__ import annotations

import json
import tomllib
from pathlib import Path
from typing import Any

from zoo.errors import DataError, RowError
from zoo.files import write_text
from zoo.model.spec import Variant
from zoo.model.variants import VARIANTS, check_resnet
from zoo.rows import Row

MAKE_ONE = "`zoo scale s --depth 1.2 -o mynet.toml` writes one."


def load_row(path: Path) -> Variant:
    """Read a network's row from a TOML file.

    Raises:
        DataError: no such file, not TOML, or a field that is missing, unknown or out of range; says which and what
            was expected.
    """
    raw = read_toml(path, "row", MAKE_ONE)
    # What follows from the rest may be left out.
    row = {"name": raw.get("id", ""), "family": "user", "source": "a file of the user", "preprocessing": {}} | raw
    if isinstance(row["preprocessing"], dict) and "eval_size" in row:
        row["preprocessing"] = {"image_size": row["eval_size"]} | row["preprocessing"]
    try:
        variant = Variant.from_dict(row)
    except RowError as error:
        raise DataError(f"{path}: {error.problem}", error.hint) from error
    _check_sizes(path, variant)
    _check_head(path, variant)
    return variant


def read_toml(path: Path, what: str, make_one: str) -> dict[str, Any]:
    """What a TOML file says.

    Args:
        path: the file.
        what: what it should hold, for errors: "row".
        make_one: the hint that says how to get one.

    Raises:
        DataError: no such file, or not TOML.
    """
    try:
        return tomllib.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise DataError(f"There is no {what} file {path}.", make_one) from error
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise DataError(f"{path} is not TOML: {error}.", make_one) from error


def check_own_id(path: Path, id: str) -> None:
    """Refuse the id of a network of the zoo: the row would get that network's run and weights.

    Raises:
        DataError: it is one of them.
    """
    if any(id in (known.id, known.name) for known in VARIANTS):
        raise DataError(f"{path}: the id {id!r} belongs to a network of the zoo.", "Give it an id of its own.")


def _check_sizes(path: Path, variant: Variant) -> None:
    if variant.eval_size > variant.max_size:
        raise DataError(
            f"{path}: eval_size {variant.eval_size} is above max_size {variant.max_size}.",
            "The paper caps inference at 480 px; raise max_size if you mean it.",
        )
    image_size, preprocessing = variant.preprocessing.image_size, variant.preprocessing
    if image_size != variant.eval_size:
        raise DataError(
            f"{path}: preprocessing.image_size {image_size} differs from eval_size {variant.eval_size}.",
            "Leave it out, or make them equal.",
        )
    if (preprocessing.resize == "crop") != (preprocessing.resize_size is not None):
        raise DataError(
            f'{path}: resize = "crop" needs preprocessing.resize_size, and "squash" has none.', "Add or remove it."
        )


def _check_head(path: Path, variant: Variant) -> None:
    if variant.is_resnet:
        check_resnet(variant)
    elif not variant.head_channels:
        raise DataError(
            f"{path}: head_channels is 0, which only a ResNet has.",
            "An EfficientNet ends in a 1×1 convolution: set its channels, 1280 for example.",
        )


def write_new_row(path: Path, variant: Variant, comment: str) -> Variant:
    """Write a network's row to a new file, and return the row that the file now holds.

    Raises:
        DataError: the file is there already, or the id belongs to a network of the zoo.
    """
    check_own_id(path, variant.id)
    if path.exists():
        raise DataError(f"{path} is there already, and may have been edited.", "Remove it, or choose another --out.")
    write_row(path, variant, comment)
    return load_row(path)


def write_row(path: Path, variant: Variant, comment: str) -> None:
    """Write a network's row as TOML, whole or not at all; `load_row` reads an equal row back."""
    write_toml(path, variant, comment)


def write_toml(path: Path, row: Row, comment: str) -> None:
    """Write a row as TOML, whole or not at all: its plain fields, then its rows as tables, then its lists of rows.

    A field that is None is left out.
    """
    fields = row.to_dict()
    tables = {name: value for name, value in fields.items() if isinstance(value, dict)}
    lists = {name: value for name, value in fields.items() if isinstance(value, list) and _is_table(value)}
    own = {name: value for name, value in fields.items() if name not in (*tables, *lists)}
    lines = [f"# {line}" for line in comment.splitlines()]
    parts = [("", own), *((f"[{name}]", table) for name, table in tables.items())]
    parts += [(f"[[{name}]]", table) for name, rows in lists.items() for table in rows]
    for title, table in parts:
        lines += ["", title] if title else []
        # TOML writes texts, lists, truths and numbers as JSON does.
        lines += [
            f"{key} = {json.dumps(value, ensure_ascii=False)}" for key, value in table.items() if value is not None
        ]
    write_text(path, "\n".join(lines) + "\n")


def _is_table(values: list[Any]) -> bool:
    return bool(values) and all(isinstance(value, dict) for value in values)
