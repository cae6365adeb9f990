"""Your own pictures from trained weights: first the classifier alone, then all layers, the lower ones more slowly.

Source     this project: for two epochs the backbone is frozen, so that the first gradients of a new classifier do not
           reach it; layer decay 0.75 as in ConvNeXt's and BEiT's fine-tuning, here per stage of the network; then two
           stages of progressive learning, at 80 % and 100 % of the network's training size
Command    zoo train s.timm-in1k --data PICTURES --recipe finetune
Hardware   not yet run
Wall time  not yet run
Result     not yet run
"""

from __future__ import annotations

from dataclasses import replace

from train.progressive.imagenet import crop_margin
from train.progressive.recipe import Recipe, TrainingStage
from zoo.model.spec import Variant


def recipe(variant: Variant) -> Recipe:
    """For S: 2 epochs at 300 px with the backbone frozen, 6 at 240, 7 at 300, tested at 384."""
    classifier_only = TrainingStage(
        epochs=2,
        image_size=variant.train_size,
        batch_size=64,
        randaugment_magnitude=0.0,
        mixup_alpha=0.0,
        cutmix_alpha=0.0,
        dropout=0.1,
        stochastic_depth_prob=0.0,
        freeze_backbone=True,
    )
    small = replace(
        classifier_only,
        epochs=6,
        image_size=round(0.8 * variant.train_size),
        randaugment_magnitude=5.0,
        stochastic_depth_prob=0.1,
        freeze_backbone=False,
    )
    large = replace(
        small,
        epochs=7,
        image_size=variant.train_size,
        batch_size=32,
        randaugment_magnitude=10.0,
        mixup_alpha=0.1,
        dropout=0.2,
        stochastic_depth_prob=0.2,
    )
    return Recipe(
        name="finetune",
        source="this project: frozen, then layer by layer",
        stages=(classifier_only, small, large),
        test_size=variant.eval_size,
        test_resize=variant.preprocessing.resize,
        test_crop_margin=crop_margin(variant),
        learning_rate=5e-4,
        warmup_epochs=1,
        weight_decay=0.05,
        layer_decay=0.75,
        clip_grad_norm=1.0,
        ema_decay=0.999,
        crop_scale=(0.25, 1.0),
    )
