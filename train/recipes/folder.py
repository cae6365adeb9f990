"""Your own pictures, from scratch: Algorithm 1 from 43 % of the network's training size up to all of it.

Epochs, batch, warm-up, the average's decay and the norms' momentum follow the number of pictures, and how strongly they
are augmented follows how often each is seen (`train/progressive/adapt.py`).

Command    zoo train s --data PICTURES
Source     sizes and regularisation of EfficientNetV2 Table 6 (S: 128 → 300 px, RandAugment 5 → 15, dropout
           0.1 → 0.3; mixup of M: 0 → 0.2), a part of it in runs of few passes; AdamW with cosine decay instead of
           RMSProp at batch 4096, because a folder of thousands is trained at batch 16 … 64
Hardware   one thread of an AMD EPYC; no GPU yet
Wall time  minutes or less, by --budget
Result     `tiny` beside experts' loops on three small sets: benchmarks/finetuning-tiny-from-nothing-*.json
"""

from __future__ import annotations

from train.progressive.adapt import (
    STEPS_FROM_NOTHING,
    average_decay,
    enlargement,
    norm_momentum,
    regularisation,
    smallest_crop,
    suited_batch,
    suited_epochs,
    suited_metric,
    warmup_epochs,
)
from train.progressive.recipe import SIZE_STEP, Recipe, Situation, larger_by
from train.progressive.schedule import progressive_stages, steps_per_epoch
from zoo.model.counts import count_params

# 128 px of 300 px: where Table 6 starts. In pictures below 48 px a network sees little, and what it learns of them it
# has to unlearn: where three quarters of the last size are below that too, they are the first.
FIRST_SIZE_SHARE, FIRST_SIZE_LEAST, MOST_OF_LAST = 128 / 300, 48, 0.75
# The largest batch of each stage: late stages have larger pictures, and memory is what it is.
BATCHES = (64, 64, 48, 32)
LEAST_BATCH = 16
LEAST_EPOCHS = 60


def first_size(last: int) -> int:
    """Where stages begin that end at `last` px: 300 → 128, 96 → 48, 64 → 48, 32 → 24."""
    return max(round(last * FIRST_SIZE_SHARE), min(FIRST_SIZE_LEAST, round(last * MOST_OF_LAST)))


def adapt(situation: Situation) -> Recipe:
    """For 10,000 pictures and S: 60 epochs at 128, 184, 240 and 300 px, tested at 340."""
    variant = situation.variant
    last = situation.image_size or variant.train_size
    epochs = suited_epochs(situation, of_1000=100, least=LEAST_EPOCHS)
    suited = suited_batch(situation, epochs, steps=STEPS_FROM_NOTHING, least=LEAST_BATCH)
    batches = [suited if situation.batch_size else min(suited, most) for most in BATCHES[: min(len(BATCHES), epochs)]]
    steps = sum(steps_per_epoch(situation.an_epoch, batch) for batch in batches) * epochs // len(batches)
    passes = epochs * situation.an_epoch / situation.pictures
    share = regularisation(passes, count_params(variant, situation.classes))
    smallest = smallest_crop(passes)
    test_size = min(larger_by(last, enlargement(smallest)), variant.max_size)
    # Where no whole eight fits, things are made as large as in training by cutting the edges off instead.
    margin = round(last * (enlargement(smallest) - 1)) if test_size == last < variant.max_size else 0
    return Recipe(
        name="folder",
        source="EfficientNetV2 Table 6, AdamW",
        stages=progressive_stages(
            epochs=epochs,
            image_size=(first_size(last), last),
            randaugment_magnitude=(5 * share, 15 * share),
            mixup_alpha=(0.0, 0.2 * share),
            dropout=(0.1, 0.1 + 0.2 * share),
            stochastic_depth_prob=(0.2 * share, 0.2 * share),
            batch_size=batches,
            size_step=SIZE_STEP,
        ),
        test_size=test_size,
        test_resize="crop" if margin else "squash",
        test_crop_margin=margin,
        learning_rate=2e-3,
        warmup_epochs=warmup_epochs(steps, epochs),
        weight_decay=0.05,
        clip_grad_norm=1.0,
        ema_decay=average_decay(steps),
        norm_momentum=norm_momentum(steps),
        crop_scale=(smallest, 1.0),
        short_run_init=True,
        metric=suited_metric(situation),
    )
