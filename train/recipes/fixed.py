"""The control: the last stage of `folder` throughout, with its size and regularisation.

Source     V2 Table 12, the baselines; everything but the stages is `folder`'s
Command    zoo train s --data PICTURES --recipe fixed
Hardware   not yet run
Wall time  not yet run
Result     not yet run
"""

from __future__ import annotations

from dataclasses import replace

from train.progressive.recipe import Recipe, Situation
from train.recipes import folder


def adapt(situation: Situation) -> Recipe:
    """One stage of all epochs."""
    return control(folder.adapt(situation))


def control(base: Recipe) -> Recipe:
    """A progressive recipe's control: its last stage throughout."""
    stage = replace(base.stages[-1], epochs=base.epochs)
    return replace(base, name="fixed", source="V2 Table 12, baseline", stages=(stage,))
