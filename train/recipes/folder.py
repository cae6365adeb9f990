"""Your own pictures, from scratch: Algorithm 1 from 43 % of the network's training size up to all of it.

Command    zoo train s --data PICTURES
Source     sizes and regularisation of EfficientNetV2 Table 6 (S: 128 → 300 px, RandAugment 5 → 15, dropout
           0.1 → 0.3; mixup of M: 0 → 0.2); AdamW with cosine decay instead of RMSProp at batch 4096, because a
           folder of thousands is trained at batch 32 … 128
Hardware   not yet run
Wall time  not yet run
Result     not yet run at full length
"""

from __future__ import annotations

from train.progressive.recipe import Recipe, round_test_size
from train.progressive.schedule import progressive_stages
from zoo.model.spec import Variant

# 128 px of 300 px: where Table 6 starts.
FIRST_SIZE_SHARE = 128 / 300


def recipe(variant: Variant) -> Recipe:
    """Resolve for a network's training size: S gets 128, 185, 243, 300 px and is tested at 360."""
    last = variant.train_size
    return Recipe(
        name="folder",
        source="EfficientNetV2 Table 6, AdamW",
        stages=progressive_stages(
            epochs=60,
            image_size=(round(last * FIRST_SIZE_SHARE), last),
            randaugment_magnitude=(5, 15),
            mixup_alpha=(0.0, 0.2),
            dropout=(0.1, 0.3),
            batch_size=(64, 64, 48, 32),
        ),
        test_size=min(max(round_test_size(last, variant.max_size), variant.eval_size), variant.max_size),
        learning_rate=1e-3,
        warmup_epochs=3,
        weight_decay=0.05,
        clip_grad_norm=1.0,
        ema_decay=0.999,
        crop_scale=(0.25, 1.0),
        short_run_init=True,
    )
