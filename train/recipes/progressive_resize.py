"""The control: `folder`, or from weights `finetune`: rising sizes, but regularised throughout as in its last stage.

Source     Howard 2018 (fastai's DAWNBench entry), as V2 Table 13 compares with it; everything but the regularisation is
           that recipe's
Command    zoo train s --data PICTURES --recipe progressive_resize
Hardware   not yet run
Wall time  not yet run
Result     not yet run; V2 Table 13 on ImageNet: 84.3 ± 0.14 %, with adaptive regularisation 85.1 ± 0.07 %
"""

from __future__ import annotations

from dataclasses import replace

from train.progressive.recipe import Recipe, Situation
from train.recipes.fixed import controlled


def adapt(situation: Situation) -> Recipe:
    """The stages of the default recipe, one regularisation."""
    return control(controlled(situation))


def control(base: Recipe) -> Recipe:
    """A progressive recipe's control: its sizes, regularised throughout as in its last stage."""
    last = base.stages[-1]
    stages = tuple(
        replace(last, epochs=stage.epochs, image_size=stage.image_size, batch_size=stage.batch_size)
        for stage in base.stages
    )
    return replace(base, name="progressive_resize", source="Howard 2018; V2 Table 13", stages=stages)
