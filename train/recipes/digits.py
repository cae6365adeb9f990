"""The embedded handwritten digits, from scratch, in minutes on two processor cores.

Command    zoo train s
"""

from __future__ import annotations

from train.recipe import Recipe
from train.schedule import progressive_stages
from zoo.spec import Variant


def recipe(variant: Variant) -> Recipe:
    """The same for every network: the pictures decide."""
    return Recipe(
        name="digits",
        source="tuned by this project on two cores",
        stages=progressive_stages(
            epochs=12,
            image_size=(32, 64),
            randaugment_magnitude=(1, 4),
            mixup_alpha=(0.0, 0.1),
            dropout=(0.1, 0.3),
            batch_size=(32, 32, 32, 32),
            size_step=8,
        ),
        test_size=80,
        learning_rate=2e-3,
        warmup_epochs=1,
        weight_decay=0.02,
        clip_grad_norm=1.0,
        ema_decay=0.98,
        crop_scale=(0.6, 1.0),
        crop_ratio=(0.9, 1.1),
    )
