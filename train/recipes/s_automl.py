"""EfficientNetV2-S on ImageNet-1k as the released code has it, which is not what the paper says.

Source     google/automl efficientnetv2 `effnetv2_configs.py`, `main.py`; `train/progressive/imagenet.py` has the rest
Command    zoo train s --data imagenet/ --recipe s_automl --auto-batch
Hardware   not yet run; the paper: 32 TPUv3 cores
Wall time  not yet run
Result     not yet run; its README: 83.9 % top-1 at 384 px, a user on a TPU (google/automl#1024): 83.5 %
"""

from __future__ import annotations

from train.progressive.imagenet import AUTOML, automl_stages, imagenet_recipe
from train.progressive.recipe import Recipe, require_network
from zoo.model.spec import Variant


def recipe(variant: Variant) -> Recipe:
    """171, 214, 257, 300 px; dropout stays at 0.2."""
    require_network("s_automl", variant, ("s", "s-relu6"))
    return imagenet_recipe(
        "s_automl",
        AUTOML,
        automl_stages(image_size=(171, 300), randaugment_magnitude=(5, 10), mix_alpha=0.0, dropout=0.2),
        test_size=variant.eval_size,
    )
