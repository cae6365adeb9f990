"""ImageNet-1k from ImageNet-21k weights, at the evaluation size.

Source     google/automl efficientnetv2 `datasets.py` (class ImagenetFt): 15 epochs of 512 at the evaluation size,
           floored to a multiple of 16; rate 0.0005 for 256 pictures, constant, 1 warm-up epoch; flip and cutout of
           half the side; no dropout; EMA 0.9996. The paper: cosine. Here cutout's square is always inside the picture;
           there it may reach over the border.
Command    zoo train runs/s-21k --data imagenet/ --recipe finetune_1k --auto-batch
Hardware   not yet run; the paper: 32 TPUv3 cores
Wall time  not yet run
Result     not yet run; the code's README: S 84.9, M 86.2, L 86.9, XL 87.2 % top-1
"""

from __future__ import annotations

from dataclasses import replace

from train.progressive.imagenet import AUTOML, crop_margin, imagenet_recipe
from train.progressive.recipe import Recipe, TrainingStage
from zoo.model.spec import Variant


def recipe(variant: Variant) -> Recipe:
    """S at 384 px, M and L at 480, XL at 512."""
    stage = TrainingStage(
        epochs=15,
        image_size=variant.eval_size // 16 * 16,
        batch_size=512,
        randaugment_magnitude=0.0,
        mixup_alpha=0.0,
        cutmix_alpha=0.0,
        dropout=0.0,
        stochastic_depth_prob=0.2,
        random_erasing_prob=1.0,
    )
    return replace(
        imagenet_recipe("finetune_1k", AUTOML, (stage,), test_size=variant.eval_size),
        learning_rate=0.0005,
        schedule="constant",
        warmup_epochs=1,
        ema_decay=0.9996,
        random_erasing_scale=(0.25, 0.25),
        random_erasing_ratio=(1.0, 1.0),
        random_erasing_fill="noise",
        test_resize=variant.preprocessing.resize,
        test_crop_margin=crop_margin(variant),
    )
