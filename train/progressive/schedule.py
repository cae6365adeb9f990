"""Owns what changes during training, as pure functions of progress; it touches no model and no clock."""

from __future__ import annotations

import math
from collections.abc import Sequence

from train.progressive.recipe import Recipe, TrainingStage


def interpolate(start: float, end: float, stage: int, num_stages: int) -> float:
    """Value of a setting in a stage, Algorithm 1 of EfficientNetV2: φ_i = φ_0 + (φ_e − φ_0) · i / (M − 1).

    RandAugment 5 → 15 in 4 stages: stage 1 gets 5 + 10 · 1/3 = 8.33. A single stage gets the end value.
    """
    return end if num_stages == 1 else start + (end - start) * stage / (num_stages - 1)


def progressive_stages(
    *,
    epochs: int,
    image_size: tuple[int, int],
    randaugment_magnitude: tuple[float, float],
    mixup_alpha: tuple[float, float],
    dropout: tuple[float, float],
    batch_size: Sequence[int],
    cutmix_alpha: tuple[float, float] = (0.0, 0.0),
    stochastic_depth_prob: tuple[float, float] = (0.2, 0.2),
    random_erasing_prob: tuple[float, float] = (0.0, 0.0),
    size_step: int = 1,
) -> tuple[TrainingStage, ...]:
    """Lay out a progressive run: size and regularisation rise together from the first value of a pair to the second.

    Args:
        epochs: of the whole run; stages get equal shares, and some one more if they do not divide.
        batch_size: one per stage, so it decides the number of stages.
        size_step: image sizes below the last one are rounded to a multiple of it (1 px as in the paper's code).
    """
    count = len(batch_size)

    def at(pair: tuple[float, float], stage: int) -> float:
        return interpolate(*pair, stage, count)

    between = [max(size_step, round(at(image_size, stage) / size_step) * size_step) for stage in range(count)]
    sizes = [*(min(size, image_size[1]) for size in between[:-1]), image_size[1]]
    return tuple(
        TrainingStage(
            epochs=epochs * (stage + 1) // count - epochs * stage // count,
            image_size=sizes[stage],
            batch_size=batch_size[stage],
            randaugment_magnitude=round(at(randaugment_magnitude, stage), 4),
            mixup_alpha=round(at(mixup_alpha, stage), 4),
            cutmix_alpha=round(at(cutmix_alpha, stage), 4),
            dropout=round(at(dropout, stage), 4),
            stochastic_depth_prob=round(at(stochastic_depth_prob, stage), 4),
            random_erasing_prob=round(at(random_erasing_prob, stage), 4),
        )
        for stage in range(count)
    )


def stage_of_epoch(stages: Sequence[TrainingStage], epoch: int) -> int:
    """Index of the stage an epoch (from 0) belongs to; the last one after the end."""
    for index, stage in enumerate(stages):
        if epoch < stage.epochs:
            return index
        epoch -= stage.epochs
    return len(stages) - 1


def learning_rate(recipe: Recipe, progress_epochs: float, batch_size: int | None = None) -> float:
    """Learning rate after `progress_epochs` epochs, fractions included, for steps of `batch_size` pictures.

    Linear warm-up from 0, then
        cosine       lr · ½ (1 + cos π t), t from 0 at the end of the warm-up to 1 at the end of the run
        exponential  lr · decay_rate ^ ⌊progress / decay_epochs⌋, counted from epoch 0 (google/automl utils.py)
        constant     lr
    all of it times `batch_factor`; without a batch size it is that of the recipe's reference batch.
    ImageNet S, lr 0.256, 5 warm-up epochs, 0.97 every 2.4: at epoch 5 it is 0.256 · 0.97² = 0.2409.
    """
    peak = recipe.learning_rate * (1.0 if batch_size is None else batch_factor(recipe, batch_size))
    if progress_epochs < recipe.warmup_epochs:
        return peak * progress_epochs / recipe.warmup_epochs
    if recipe.schedule == "constant":
        return peak
    if recipe.schedule == "exponential":
        return peak * recipe.decay_rate ** math.floor(progress_epochs / recipe.decay_epochs + 1e-9)
    after_warmup = max(recipe.epochs - recipe.warmup_epochs, 1e-9)
    share = min((progress_epochs - recipe.warmup_epochs) / after_warmup, 1.0)
    return peak * 0.5 * (1.0 + math.cos(math.pi * share))


def batch_factor(recipe: Recipe, batch_size: int) -> float:
    """By how much the size of a batch multiplies the learning rate.

    none    1
    linear  batch / reference (Goyal et al. 2017, arXiv 1706.02677): 4096 of 256 is 16
    sqrt    √(batch / reference) (Krizhevsky 2014, arXiv 1404.5997; usual with Adam and LAMB): 4
    """
    share = batch_size / recipe.reference_batch_size
    return {"none": 1.0, "linear": share, "sqrt": math.sqrt(share)}[recipe.lr_scaling]


def ema_decay(decay: float, step: int) -> float:
    """Decay of the weight average at a step (from 0): min(decay, (1 + n) / (10 + n)) (TensorFlow's rule)."""
    return min(decay, (1 + step) / (10 + step))


def steps_per_epoch(num_pictures: int, batch_size: int, processes: int = 1) -> int:
    """Batches in an epoch, at least one. One process leaves no picture out: 236 pictures are 15 batches of 15 or 16.

    Several processes need batches that divide among them: they leave out what does not fill the last one, other
    pictures in each epoch.
    """
    if processes > 1:
        return max(1, num_pictures // (batch_size * processes))
    return max(1, min(math.ceil(num_pictures / batch_size), num_pictures // 2))  # batch norm needs two pictures
