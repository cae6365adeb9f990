"""Owns `--set PATH=VALUE`: a dotted path into a recipe, read by the type of its field; it knows no field by name."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace

from train.progressive.recipe import Recipe, TrainingStage
from zoo.errors import UnknownNameError, ZooError
from zoo.rows import did_you_mean, field_types, parse

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
    own = [name for name in field_types(Recipe) if name not in FIXED]
    numbers = [*range(1, len(recipe.stages) + 1), EVERY_STAGE]
    return own + [f"stages.{number}.{name}" for number in numbers for name in field_types(TrainingStage)]


def _set(recipe: Recipe, path: str, value: str) -> Recipe:
    known = setting_paths(recipe)
    if path not in known:
        raise UnknownNameError(
            f"The recipe {recipe.name} has no setting {path!r}.{did_you_mean(path, known, cutoff=0.5)}",
            f"Stages are numbered 1 … {len(recipe.stages)} as --plan shows them; --plan --json shows every setting.",
        )
    first, *rest = path.split(".")
    if not rest:
        return replace(recipe, **{first: parse(field_types(Recipe)[first], value, f"--set {path}")})
    number, name = rest
    read = parse(field_types(TrainingStage)[name], value, f"--set {path}")
    chosen = range(len(recipe.stages)) if number == EVERY_STAGE else (int(number) - 1,)
    stages = tuple(
        replace(stage, **{name: read}) if index in chosen else stage for index, stage in enumerate(recipe.stages)
    )
    return replace(recipe, stages=stages)
