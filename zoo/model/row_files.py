"""Owns rows in people's own files: a TOML file becomes a validated `Variant`, and a `Variant` a TOML file."""

from __future__ import annotations

import json
import tomllib
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from zoo.errors import DataError, RowError
from zoo.files import write_text
from zoo.model.spec import Variant
from zoo.model.variants import VARIANTS, check_resnet

# A file need not repeat what follows from the rest.
DEFAULTS: dict[str, Callable[[Mapping[str, Any]], Any]] = {
    "name": lambda row: row.get("id", ""),
    "family": lambda row: "user",
    "source": lambda row: "a file of the user",
    "preprocessing": lambda row: {},
}


def load_row(path: Path) -> Variant:
    """Read a network's row from a TOML file.

    Raises:
        DataError: no such file, not TOML, or a field that is missing, unknown or out of range; says which and what
            was expected.
    """
    try:
        raw = tomllib.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise DataError(
            f"There is no row file {path}.", "`zoo scale s --depth 1.2 -o mynet.toml` writes one."
        ) from error
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise DataError(
            f"{path} is not TOML: {error}.", "`zoo scale s -o mynet.toml` writes one to start from."
        ) from error
    row = {key: default(raw) for key, default in DEFAULTS.items()} | raw
    if isinstance(row["preprocessing"], dict) and "eval_size" in row:
        row["preprocessing"] = {"image_size": row["eval_size"]} | row["preprocessing"]
    try:
        variant = Variant.from_dict(row)
    except RowError as error:
        raise DataError(f"{path}: {error.problem}", error.hint) from error
    _check_sizes(path, variant)
    _check_head(path, variant)
    return variant


def check_own_id(path: Path, id: str) -> None:
    """Refuse the id of a network of the zoo, whose run and weights the row would be given.

    Raises:
        DataError: it is one.
    """
    if any(id in (known.id, known.name) for known in VARIANTS):
        raise DataError(f"{path}: the id {id!r} belongs to a network of the zoo.", "Give it an id of its own.")


def _check_sizes(path: Path, variant: Variant) -> None:
    if variant.eval_size > variant.max_size:
        raise DataError(
            f"{path}: eval_size {variant.eval_size} is above max_size {variant.max_size}.",
            "The paper caps inference at 480 px; raise max_size if you mean it.",
        )
    contract = variant.preprocessing
    if contract.image_size != variant.eval_size:
        raise DataError(
            f"{path}: preprocessing.image_size {contract.image_size} differs from eval_size {variant.eval_size}.",
            "Leave it out, or make them equal.",
        )
    if (contract.resize == "crop") != (contract.resize_size is not None):
        raise DataError(
            f'{path}: preprocessing.resize_size goes with resize = "crop", and only with it.', "Add or remove it."
        )


def _check_head(path: Path, variant: Variant) -> None:
    if variant.is_resnet:
        check_resnet(variant)
    elif not variant.head_channels:
        raise DataError(
            f"{path}: head_channels is 0, which only a ResNet has.", "EfficientNets end in a 1×1 convolution: 1280."
        )


def write_row(path: Path, variant: Variant, comment: str) -> None:
    """Write a network's row as TOML that `load_row` reads back equal, whole or not at all."""
    row = variant.to_dict()
    stages, contract = row.pop("stages"), row.pop("preprocessing")
    lines = [f"# {line}" for line in comment.splitlines()]
    for title, table in (("", row), ("[preprocessing]", contract), *(("[[stages]]", stage) for stage in stages)):
        lines += ["", title] if title else []
        lines += [f"{key} = {_toml(value)}" for key, value in table.items() if value is not None]
    write_text(path, "\n".join(lines) + "\n")


def _toml(value: Any) -> str:
    """JSON's texts, lists, truths and numbers are TOML's too, but that it has no tables inside values here."""
    return json.dumps(value, ensure_ascii=False)
