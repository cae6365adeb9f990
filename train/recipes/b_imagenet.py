"""EfficientNetV2-B0 … B3 on ImageNet-1k, with the stages the released code gives them.

Source     google/automl efficientnetv2 `effnetv2_configs.py`, `main.py`, `preprocessing.py`;
           `train/progressive/imagenet.py` has the rest. The paper trains these without progressive learning (Table 11).
Deviates   The code uses AutoAugment v0, which this project does not have. In its place RandAugment 2 × 9, the pair
           found for ResNet-50 (Cubuk et al. 2019, arXiv 1909.13719), constant, as AutoAugment is. Pictures are
           resized bilinearly, where the code is bicubic.
Command    zoo train b0 --data imagenet/ --recipe b_imagenet --auto-batch
Hardware   not yet run
Wall time  not yet run
Result     not yet run; the code's README: B0 78.7, B1 79.8, B2 80.5, B3 82.1 % top-1
"""

from __future__ import annotations

from dataclasses import replace

from train.progressive.imagenet import AUTOML, automl_stages, crop_margin, imagenet_recipe
from train.progressive.recipe import Recipe, require_network
from zoo.model.spec import Variant

FIRST_SIZE = {"b0": 144, "b1": 144, "b2": 148, "b3": 156}


def recipe(variant: Variant) -> Recipe:
    """B0 and B1: 144, 160, 176, 192 px; B2: 148 … 208; B3: 156 … 240."""
    require_network("b_imagenet", variant, FIRST_SIZE)
    resolved = imagenet_recipe(
        "b_imagenet",
        f"{AUTOML}, RandAugment for AutoAugment",
        automl_stages(
            image_size=(FIRST_SIZE[variant.id], variant.train_size),
            randaugment_magnitude=(9, 9),
            mix_alpha=0.0,
            dropout=variant.dropout,
        ),
        test_size=variant.eval_size,
        crop_area=0.08,
    )
    return replace(resolved, test_resize="crop", test_crop_margin=crop_margin(variant))
