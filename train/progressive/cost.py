"""Owns what a run will cost, from the rows alone: arithmetic before the first picture is decoded."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated

from train.progressive.recipe import Recipe, TrainingStage
from train.progressive.schedule import steps_per_epoch
from zoo.model.counts import count_macs
from zoo.model.spec import Variant
from zoo.rows import Count, Row, Within

# Forward once, backward twice: the gradient of a convolution is two convolutions of the same size. A frozen backbone
# has no backward pass.
PASSES = 3
FROZEN_PASSES = 1


@dataclass(frozen=True, kw_only=True)
class StageCost(Row):
    """A stage with its number of steps and its multiply-adds."""

    stage: TrainingStage
    steps: Count
    macs: Count


@dataclass(frozen=True, kw_only=True)
class RunCost(Row):
    """A run's stages, and its compute as a share of the same epochs at the largest stage's size."""

    stages: tuple[StageCost, ...]
    macs: Count
    share_of_fixed_size: Annotated[float, Within(above=0, high=1)]


def estimate(variant: Variant, recipe: Recipe, num_pictures: int, num_classes: int) -> RunCost:
    """Count the multiply-adds of a whole run; validation is left out.

    Algorithm 1 for S (128 → 300 px) comes to a share of about 0.56 (efficientnetv2 facts §3.2: 0.555 by areas).
    """
    stages = []
    fixed = 0
    for stage in recipe.stages:
        an_epoch = recipe.epoch_pictures or num_pictures
        steps = stage.epochs * steps_per_epoch(an_epoch, stage.batch_size)
        pictures = stage.epochs * an_epoch
        passes = FROZEN_PASSES if stage.freeze_backbone else PASSES
        macs = passes * pictures * count_macs(variant, stage.image_size, num_classes)
        stages.append(StageCost(stage=stage, steps=steps, macs=macs))
        fixed += passes * pictures * count_macs(variant, recipe.largest_size, num_classes)
    total = sum(stage.macs for stage in stages)
    return RunCost(stages=tuple(stages), macs=total, share_of_fixed_size=total / fixed)
