"""The control: the last stage of `folder` throughout, with its size and regularisation.

Source     V2 Table 12, the baselines; everything but the stages is `folder`'s
Command    zoo train s --data PICTURES --recipe fixed
Hardware   not yet run
Wall time  not yet run
Result     not yet run
"""

from __future__ import annotations

from dataclasses import replace

from train.progressive.recipe import Recipe
from train.recipes import folder
from zoo.model.spec import Variant


def recipe(variant: Variant) -> Recipe:
    """One stage of all epochs."""
    return control(folder.recipe(variant))


def control(base: Recipe) -> Recipe:
    """A progressive recipe's control: its last stage throughout."""
    stage = replace(base.stages[-1], epochs=base.epochs)
    return replace(base, name="fixed", source="V2 Table 12, baseline", stages=(stage,))
