"""Owns the table of recipes in docs/training.md: each file of `train/recipes/`, whose it is, and its sizes."""

from __future__ import annotations

import ast
import importlib

from made.architecture import first_sentence
from made.markdown import code
from made.markdown import table as markdown_table
from train.progressive.recipe import RECIPES, Recipe, find_recipe, recipe_names
from zoo.errors import ZooError
from zoo.model.spec import Variant
from zoo.model.variants import VARIANTS


def table(rest: str, body: str) -> str:
    """One line a recipe, those for any network first."""
    lines = sorted(map(line, recipe_names()), key=lambda line: not line[1].startswith("any"))
    return markdown_table(["recipe", "networks", "what", "epochs", "sizes, px", "tested at"], lines)


def line(name: str) -> list[str]:
    """What a recipe is for, and what the first network that it takes gets of it."""
    taken = [(variant, recipe) for variant in VARIANTS if (recipe := resolve(name, variant))]
    variant, recipe = next((pair for pair in taken if pair[0].id == "s"), taken[0])
    networks = "any" if len(taken) == len(VARIANTS) else " ".join(code(variant.id) for variant, _ in taken)
    if any(stage.freeze_backbone for stage in recipe.stages):
        networks += ", from weights"
    sizes = list(dict.fromkeys(stage.image_size for stage in recipe.stages))
    depends = len({tuple(stage.image_size for stage in other.stages) for _, other in taken}) > 1
    shown = (f"{variant.id}: " if depends else "") + ", ".join(map(str, sizes))
    module = importlib.import_module(f"{RECIPES}.{name}")
    what = first_sentence(ast.parse(f'"""{module.__doc__}"""'))
    return [code(name), networks, what.rstrip("."), str(recipe.epochs), shown, str(recipe.test_size)]


def resolve(name: str, variant: Variant) -> Recipe | None:
    """The recipe for a network, or None where it is another one's."""
    try:
        return find_recipe(name, variant)
    except ZooError:
        return None
