"""Your own pictures from trained weights: a fitted classifier first, then all layers, the lower ones more slowly.

The classifier begins as a logistic regression on the features of the weights as they are, which takes seconds; then two
stages of progressive learning, at 80 % and 100 % of the largest size. Epochs, batch, warm-up, the average's decay, the
crops and all else against learning by heart follow the number of pictures, sampler and metric how unequal the classes
are (`train/progressive/adapt.py`). Batch norms keep the statistics of the weights: those of small batches would undo
the fitted classifier.

Source     this project; layer decay 0.75 as in ConvNeXt's and BEiT's fine-tuning, here per stage of the network
Command    zoo train s.timm-in1k --data PICTURES
Hardware   one thread of an AMD EPYC; no GPU yet
Wall time  minutes or less, by --budget
Result     Lite0 beside experts' loops on three small sets: benchmarks/finetuning-lite0-from-weights-*.json
"""

from __future__ import annotations

from dataclasses import replace

from train.progressive.adapt import (
    average_decay,
    smallest_crop,
    suited_batch,
    suited_epochs,
    suited_metric,
    suited_sampler,
    variety,
    warmup_epochs,
)
from train.progressive.imagenet import crop_margin
from train.progressive.recipe import Recipe, Situation, TrainingStage, scaled_test_size
from train.progressive.schedule import steps_per_epoch

SMALL_SHARE = 0.8
# Stages of fewer epochs than two would be over before their size counts.
EPOCHS_PER_STAGE = 2


def adapt(situation: Situation) -> Recipe:
    """For 1,000 pictures and S: 20 epochs of batch 64, 10 at 240 px and 10 at 300, tested at 384."""
    variant = situation.variant
    size = situation.image_size or variant.train_size
    factor = size / variant.train_size
    epochs = suited_epochs(situation, of_1000=20)
    batch = suited_batch(situation, epochs)
    steps = epochs * steps_per_epoch(situation.an_epoch, batch)
    passes = epochs * situation.an_epoch / situation.pictures
    share = variety(passes)
    large = TrainingStage(
        epochs=epochs,
        image_size=size,
        batch_size=batch,
        randaugment_magnitude=5 * share,
        mixup_alpha=0.0,
        cutmix_alpha=0.0,
        dropout=0.2 * share,
        stochastic_depth_prob=0.1 * share,
        freeze_norms=True,
    )
    stages = [large]
    if epochs >= 2 * EPOCHS_PER_STAGE:
        small = replace(large, epochs=epochs // 2, image_size=round(SMALL_SHARE * size), dropout=0.1 * share)
        stages = [small, replace(large, epochs=epochs - epochs // 2)]
    return Recipe(
        name="finetune",
        source="this project: a fitted classifier, then layer by layer",
        stages=tuple(stages),
        test_size=scaled_test_size(variant.eval_size, factor, variant.max_size),
        test_resize=variant.preprocessing.resize,
        test_crop_margin=round(crop_margin(variant) * factor),
        learning_rate=3e-4,
        warmup_epochs=warmup_epochs(steps, epochs),
        weight_decay=0.05,
        layer_decay=0.75,
        clip_grad_norm=1.0,
        ema_decay=average_decay(steps),
        crop_scale=(smallest_crop(passes), 1.0),
        head_start=True,
        grow="auto",
        midpoint=True,
        sampler=suited_sampler(situation),
        metric=suited_metric(situation),
    )
