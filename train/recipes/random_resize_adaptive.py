"""The control: `random_resize`, regularised by its sizes: the larger the pictures, the harder they are made.

Source     V2 Table 13, “random resize” with adaptive regularisation
Command    zoo train s --data PICTURES --recipe random_resize_adaptive
Hardware   not yet run
Wall time  not yet run
Result     not yet run; V2 Table 13 on ImageNet: 84.2 ± 0.10 %, without 83.5 ± 0.11 %
"""

from __future__ import annotations

from dataclasses import replace

from train.progressive.recipe import Recipe, Situation, TrainingStage
from train.recipes import folder, random_resize

ADAPTED = ("randaugment_magnitude", "mixup_alpha", "cutmix_alpha", "dropout", "stochastic_depth_prob")


def adapt(situation: Situation) -> Recipe:
    """A stage's regularisation stands between `folder`'s first and last where its size does."""
    base = folder.adapt(situation)
    drawn = random_resize.adapt(situation)
    stages = tuple(_adapt(stage, base.stages[0], base.stages[-1]) for stage in drawn.stages)
    return replace(drawn, name="random_resize_adaptive", stages=stages)


def _adapt(stage: TrainingStage, first: TrainingStage, last: TrainingStage) -> TrainingStage:
    rise = last.image_size - first.image_size
    share = (stage.image_size - first.image_size) / rise if rise else 1.0
    values = {
        name: round(getattr(first, name) + share * (getattr(last, name) - getattr(first, name)), 4) for name in ADAPTED
    }
    return replace(stage, **values)
