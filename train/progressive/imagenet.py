"""Owns what the paper's ImageNet recipes have in common; the figures of each recipe are in its own file.

Source: Tan & Le, "EfficientNetV2" (arXiv 2104.00298v3), §4 and Table 6; google/automl `efficientnetv2/hparams.py`,
`main.py`, `preprocessing.py`. Ours differs in RandAugment's operations (docs/training.md) and in batch norm's
statistics, which are those of one device's part of the batch.
"""

from __future__ import annotations

from train.progressive.recipe import Recipe, TrainingStage
from train.progressive.schedule import progressive_stages
from zoo.model.spec import Variant

EPOCHS = 350
BATCH_SIZE = 4096
PAPER = "EfficientNetV2 Table 6"
AUTOML = "google/automl efficientnetv2"


def imagenet_recipe(
    name: str, source: str, stages: tuple[TrainingStage, ...], *, test_size: int, crop_area: float = 0.05
) -> Recipe:
    """ImageNet-1k from scratch: 350 epochs of 4096 with TensorFlow's RMSProp.

    The rate is 0.016 for 256 pictures, so 0.256 at 4096, with 5 warm-up epochs, then × 0.97 every 2.4 epochs. The
    crop takes 5 … 100 % of the area. Paper and code agree on all of it.
    """
    return Recipe(
        name=name,
        source=source,
        stages=stages,
        test_size=test_size,
        learning_rate=0.016,
        lr_scaling="linear",
        reference_batch_size=256,
        schedule="exponential",
        warmup_epochs=5,
        decay_rate=0.97,
        decay_epochs=2.4,
        optimizer="rmsprop",
        rmsprop_decay=0.9,
        momentum=0.9,
        eps=1e-3,
        weight_decay=1e-5,
        ema_decay=0.9999,
        label_smoothing=0.1,
        crop_scale=(crop_area, 1.0),
    )


def paper_stages(
    *,
    image_size: tuple[int, int],
    randaugment_magnitude: tuple[float, float],
    mixup_alpha: tuple[float, float],
    dropout: tuple[float, float],
) -> tuple[TrainingStage, ...]:
    """Four stages of a column pair of Table 6."""
    return progressive_stages(
        epochs=EPOCHS,
        image_size=image_size,
        randaugment_magnitude=randaugment_magnitude,
        mixup_alpha=mixup_alpha,
        dropout=dropout,
        batch_size=(BATCH_SIZE,) * 4,
    )


def automl_stages(
    *, image_size: tuple[int, int], randaugment_magnitude: tuple[float, float], mix_alpha: float, dropout: float
) -> tuple[TrainingStage, ...]:
    """Four stages as the released code has them.

    The size of stage s (from 0) is ⌊128 + (last − 128) · (s + 1) / 4⌋: it starts a quarter above 128 px. CutMix has
    mixup's alpha. Dropout is constant: the code builds a schedule for it and then deletes that.
    """
    return progressive_stages(
        epochs=EPOCHS,
        image_size=image_size,
        randaugment_magnitude=randaugment_magnitude,
        mixup_alpha=(0.0, mix_alpha),
        cutmix_alpha=(0.0, mix_alpha),
        dropout=(dropout, dropout),
        batch_size=(BATCH_SIZE,) * 4,
    )


def crop_margin(variant: Variant) -> int:
    """How many pixels a network's own evaluation crops away, 0 if it squashes the whole picture."""
    own = variant.preprocessing
    return own.resize_size - own.image_size if own.resize_size else 0
