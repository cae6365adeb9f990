"""ImageNet-21k from scratch, before `finetune_1k`: one size, next to no regularisation.

Source     google/automl efficientnetv2 `datasets.py`, `hparams.py` (class Imagenet21k): 60 epochs of 4096 at 224 px,
           rate 0.008 for 256 pictures, cosine, 1 warm-up epoch, no augmentation but crop and flip, no dropout, no
           stochastic depth, no smoothing. The paper says 60 or 30 epochs.
Command    zoo train s --data imagenet21k/ --recipe pretrain_21k --auto-batch
Hardware   not yet run; the paper: 32 TPUv3 cores
Wall time  not yet run; the paper, fine-tuning included: S 9.0, M 15, L 26, XL 45 hours
Result     not yet run; the code publishes no accuracy before fine-tuning
"""

from __future__ import annotations

from dataclasses import replace

from train.progressive.imagenet import AUTOML, BATCH_SIZE, imagenet_recipe
from train.progressive.recipe import Recipe, TrainingStage
from zoo.model.spec import Variant


def recipe(variant: Variant) -> Recipe:
    """The same for every network; below 320 px the code tests on a centre crop, 32 px inside."""
    stage = TrainingStage(
        epochs=60,
        image_size=224,
        batch_size=BATCH_SIZE,
        randaugment_magnitude=0.0,
        mixup_alpha=0.0,
        cutmix_alpha=0.0,
        dropout=0.0,
        stochastic_depth_prob=0.0,
    )
    return replace(
        imagenet_recipe("pretrain_21k", AUTOML, (stage,), test_size=224),
        learning_rate=0.008,
        schedule="cosine",
        warmup_epochs=1,
        label_smoothing=0.0,
        test_resize="crop",
        test_crop_margin=32,
    )
