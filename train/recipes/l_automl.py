"""EfficientNetV2-L on ImageNet-1k as the released code has it, which is not what the paper says.

Source     google/automl efficientnetv2 `effnetv2_configs.py`, `main.py`; `train/progressive/imagenet.py` has the rest
Command    zoo train l --data imagenet/ --recipe l_automl --auto-batch
Hardware   not yet run; the paper: 32 TPUv3 cores
Wall time  not yet run
Result     not yet run; its README: L 85.7 % top-1 at 480 px, XL from ImageNet-21k only
"""

from __future__ import annotations

from train.progressive.imagenet import AUTOML, automl_stages, imagenet_recipe
from train.progressive.recipe import Recipe, require_network
from zoo.model.spec import Variant


def recipe(variant: Variant) -> Recipe:
    """192, 256, 320, 384 px; dropout stays at 0.4."""
    require_network("l_automl", variant, ("l", "xl"))
    return imagenet_recipe(
        "l_automl",
        AUTOML,
        automl_stages(image_size=(192, 384), randaugment_magnitude=(5, 20), mix_alpha=0.5, dropout=0.4),
        test_size=variant.eval_size,
    )
