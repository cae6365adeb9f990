"""Owns `--set PATH=VALUE`: a dotted path into a recipe, read by the type of its field; it knows no field by name."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import fields, replace
from difflib import get_close_matches
from types import NoneType, UnionType
from typing import Any, Literal, get_args, get_origin, get_type_hints

from train.progressive.recipe import Recipe, TrainingStage
from zoo.errors import UnknownNameError, ZooError

# What a recipe is, not how it trains.
FIXED = ("name", "source", "stages")
EVERY_STAGE = "all"


def apply_overrides(recipe: Recipe, settings: Iterable[str]) -> Recipe:
    """Change a recipe by texts "PATH=VALUE", in order.

    A path is a field of `Recipe`, or `stages.N.FIELD` with N from 1 as `--plan` counts, or `stages.all.FIELD`.

    Raises:
        UnknownNameError: no such path; names the nearest. ZooError: no "=", or a value of another type.
    """
    for text in settings:
        path, sign, value = text.partition("=")
        if not sign:
            raise ZooError(f"--set {text}: expected PATH=VALUE.", "For example --set stages.2.image_size=256.")
        recipe = _set(recipe, path.strip(), value.strip())
    return recipe


def setting_paths(recipe: Recipe) -> list[str]:
    """Every path that can be set."""
    own = [field.name for field in fields(Recipe) if field.name not in FIXED]
    numbers = [*range(1, len(recipe.stages) + 1), EVERY_STAGE]
    return own + [f"stages.{number}.{field.name}" for number in numbers for field in fields(TrainingStage)]


def _set(recipe: Recipe, path: str, value: str) -> Recipe:
    known = setting_paths(recipe)
    if path not in known:
        near = get_close_matches(path, known, n=1, cutoff=0.5)
        guess = f" Did you mean {near[0]}?" if near else ""
        raise UnknownNameError(
            f"The recipe {recipe.name} has no setting {path!r}.{guess}",
            f"Stages are numbered 1 … {len(recipe.stages)} as --plan shows them; --plan --json shows every setting.",
        )
    first, *rest = path.split(".")
    if not rest:
        return replace(recipe, **{first: read_value(get_type_hints(Recipe)[first], value, path)})
    number, name = rest
    read = read_value(get_type_hints(TrainingStage)[name], value, path)
    chosen = range(len(recipe.stages)) if number == EVERY_STAGE else (int(number) - 1,)
    stages = tuple(
        replace(stage, **{name: read}) if index in chosen else stage for index, stage in enumerate(recipe.stages)
    )
    return replace(recipe, stages=stages)


def read_value(kind: Any, text: str, path: str) -> Any:
    """Read a text as a field's type: int, float, bool, str, Literal, tuple, or any of them or None.

    Raises:
        ZooError: says what was expected.
    """
    try:
        return _read(kind, text)
    except ValueError as error:
        raise ZooError(f"--set {path}={text}: expected {describe(kind)}.") from error


def _read(kind: Any, text: str) -> Any:
    if isinstance(kind, UnionType):
        return _read_first(get_args(kind), text)
    if kind is NoneType:
        return _choose({"none": None}, text)
    if kind is bool:
        return _choose({"true": True, "false": False, "1": True, "0": False}, text)
    if get_origin(kind) is Literal:
        return _choose({str(choice): choice for choice in get_args(kind)}, text)
    if get_origin(kind) is tuple:
        return _read_tuple(get_args(kind), text)
    value = kind(text)
    if kind is float and not math.isfinite(value):
        raise ValueError(text)
    return value


def _read_first(kinds: Sequence[Any], text: str) -> Any:
    """The first kind that fits, texts last: everything is a text."""
    for kind in sorted(kinds, key=lambda kind: kind is str):
        try:
            return _read(kind, text)
        except ValueError:
            continue
    raise ValueError(text)


def _read_tuple(kinds: Sequence[Any], text: str) -> tuple[Any, ...]:
    parts = [part.strip() for part in text.strip("()[]").split(",")]
    if kinds[-1] is Ellipsis:
        return tuple(_read(kinds[0], part) for part in parts)
    if len(parts) != len(kinds):
        raise ValueError(text)
    return tuple(_read(kind, part) for kind, part in zip(kinds, parts, strict=True))


def _choose(choices: dict[str, Any], text: str) -> Any:
    if text.lower() not in choices:
        raise ValueError(text)
    return choices[text.lower()]


def describe(kind: Any) -> str:
    """What a person would call a type: "a whole number", "cosine, exponential or constant"."""
    if isinstance(kind, UnionType):
        return " or ".join(describe(member) for member in get_args(kind))
    if get_origin(kind) is Literal:
        return " or ".join(str(choice) for choice in get_args(kind))
    if get_origin(kind) is tuple:
        members = get_args(kind)
        return "numbers with commas between" if members[-1] is Ellipsis else f"{len(members)} numbers with a comma"
    return {int: "a whole number", float: "a number", bool: "true or false", NoneType: "none"}.get(kind, "a text")
