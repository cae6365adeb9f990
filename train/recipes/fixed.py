"""The control: the last stage of `folder`, or from weights of `finetune`, throughout: its size and regularisation.

Source     V2 Table 12, the baselines; everything but the stages is that recipe's
Command    zoo train s --data PICTURES --recipe fixed
Hardware   not yet run
Wall time  not yet run
Result     not yet run
"""

from __future__ import annotations

from dataclasses import replace

from train.progressive.recipe import Recipe, Situation
from train.recipes import finetune, folder


def adapt(situation: Situation) -> Recipe:
    """One stage of all epochs."""
    return control(controlled(situation))


def controlled(situation: Situation) -> Recipe:
    """The progressive recipe that a control belongs to: the default one of the situation."""
    return finetune.adapt(situation) if situation.weights else folder.adapt(situation)


def control(base: Recipe) -> Recipe:
    """A progressive recipe's control: its last stage throughout."""
    stage = replace(base.stages[-1], epochs=base.epochs)
    return replace(base, name="fixed", source="V2 Table 12, baseline", stages=(stage,))
