"""Owns rows in people's own files: a TOML file becomes a validated `Variant`, and a `Variant` a TOML file."""

from __future__ import annotations

import math
import tomllib
from collections.abc import Callable, Mapping
from dataclasses import MISSING, dataclass, fields
from pathlib import Path
from typing import Any, get_args

from zoo.errors import DataError, unknown_name
from zoo.files import write_text
from zoo.model.spec import Activation, Interpolation, Operator, Padding, Preprocessing, Resize, Stage, Variant
from zoo.model.variants import VARIANTS


@dataclass(frozen=True)
class Rule:
    """What a field may hold: a test, and the words for what it expects."""

    holds: Callable[[Any], bool]
    expects: str


def _is_int(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool)


def _whole(low: int, high: int) -> Rule:
    return Rule(lambda v: _is_int(v) and low <= v <= high, f"a whole number from {low} to {high}")


def _share(high: float = 1.0) -> Rule:
    return Rule(
        lambda v: isinstance(v, int | float) and not isinstance(v, bool) and 0 <= v <= high,
        f"a number from 0 to {high:g}",
    )


def _one_of(values: tuple[Any, ...]) -> Rule:
    return Rule(lambda v: v in values, "one of " + ", ".join(map(repr, values)))


_TEXT = Rule(lambda v: isinstance(v, str) and bool(v.strip()), "some text")
_THREE = Rule(
    lambda v: isinstance(v, list) and len(v) == 3 and all(isinstance(x, int | float) and math.isfinite(x) for x in v),
    "three numbers, on the 0…255 scale",
)
_POSITIVE_THREE = Rule(lambda v: _THREE.holds(v) and all(x > 0 for x in v), "three numbers above 0, on the 0…255 scale")
_TABLES = Rule(
    lambda v: isinstance(v, list) and len(v) > 0 and all(isinstance(x, dict) for x in v), "at least one table"
)
_TABLE = Rule(lambda v: isinstance(v, dict), "a table")

STAGE_RULES = {
    "operator": _one_of(get_args(Operator)),
    "kernel_size": _one_of((1, 3, 5, 7)),
    "stride": _one_of((1, 2)),
    "expand_ratio": _whole(1, 12),
    "out_channels": _whole(1, 8192),
    "num_layers": _whole(1, 256),
    "se_ratio": _share(),
}
PREPROCESSING_RULES = {
    "image_size": _whole(16, 4096),
    "resize": _one_of(get_args(Resize)),
    "resize_size": _whole(16, 8192),
    "interpolation": _one_of(get_args(Interpolation)),
    "mean": _THREE,
    "std": _POSITIVE_THREE,
}
VARIANT_RULES = {
    "id": Rule(
        lambda v: isinstance(v, str) and bool(v) and all(c.isalnum() or c in "-_" for c in v),
        "letters, digits, - and _",
    ),
    "name": _TEXT,
    "family": _TEXT,
    "stem_channels": _whole(1, 8192),
    "head_channels": _whole(0, 65536),
    "activation": _one_of(get_args(Activation)),
    "padding": _one_of(get_args(Padding)),
    "batch_norm_eps": _share(),
    "batch_norm_momentum": _share(),
    "dropout": _share(0.95),
    "stochastic_depth_prob": _share(0.95),
    "train_size": _whole(16, 4096),
    "eval_size": _whole(16, 4096),
    "max_size": _whole(16, 4096),
    "source": _TEXT,
    "stages": _TABLES,
    "preprocessing": _TABLE,
}
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
    _check(path, "", row, VARIANT_RULES, _required(Variant))
    for index, stage in enumerate(row["stages"]):
        _check(path, f"stages[{index}].", stage, STAGE_RULES, _required(Stage))
    contract = {"image_size": row["eval_size"]} | row["preprocessing"]
    _check(path, "preprocessing.", contract, PREPROCESSING_RULES, _required(Preprocessing))
    contract = {key: tuple(map(float, v)) if isinstance(v, list) else v for key, v in contract.items()}
    built = {**row, "stages": tuple(Stage(**stage) for stage in row["stages"])}
    variant = Variant(**{**built, "preprocessing": Preprocessing(**contract)})
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


def _required(kind: type) -> set[str]:
    return {f.name for f in fields(kind) if f.default is MISSING and f.default_factory is MISSING}


def _check(path: Path, where: str, table: Mapping[str, Any], rules: Mapping[str, Rule], required: set[str]) -> None:
    for key in table:
        if key not in rules:
            raise unknown_name(
                f"field of {path}",
                f"{where}{key}",
                [where + name for name in rules],
                f"It can have {', '.join(rules)}.",
            )
    for key in sorted(required, key=list(rules).index):
        if key not in table:
            raise DataError(f"{path}: {where}{key} is missing; it is {rules[key].expects}.", "Add it.")
    for key, value in table.items():
        if not rules[key].holds(value):
            raise DataError(f"{path}: {where}{key} is {value!r}; expected {rules[key].expects}.", "Change it.")


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
        from zoo.model.resnet import check_row

        check_row(variant)
    elif not variant.head_channels:
        raise DataError(
            f"{path}: head_channels is 0, which only a ResNet has.", "EfficientNets end in a 1×1 convolution: 1280."
        )


def write_row(path: Path, variant: Variant, comment: str) -> None:
    """Write a network's row as TOML that `load_row` reads back equal, whole or not at all.

    Raises:
        DataError: a field that `load_row` would refuse.
    """
    row = variant.to_dict()
    _check(path, "", row, VARIANT_RULES, set())
    stages, contract = row.pop("stages"), row.pop("preprocessing")
    lines = [f"# {line}" for line in comment.splitlines()]
    lines += [f"{key} = {_toml(value)}" for key, value in row.items()]
    kept = {key: contract[key] for key in PREPROCESSING_RULES if contract[key] is not None}
    lines += ["", "[preprocessing]", *(f"{key} = {_toml(value)}" for key, value in kept.items())]
    for stage in stages:
        lines += ["", "[[stages]]", *(f"{key} = {_toml(value)}" for key, value in stage.items())]
    write_text(path, "\n".join(lines) + "\n")


def _toml(value: Any) -> str:
    if isinstance(value, str):
        escaped = value.replace("\\", "\\\\").replace('"', '\\"')
        return f'"{escaped}"'
    if isinstance(value, list):
        return "[" + ", ".join(map(_toml, value)) + "]"
    return repr(value)
