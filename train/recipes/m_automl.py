"""EfficientNetV2-M on ImageNet-1k as the released code has it, which is not what the paper says.

Source     google/automl efficientnetv2 `effnetv2_configs.py`, `main.py`; `train/progressive/imagenet.py` has the rest
Command    zoo train m --data imagenet/ --recipe m_automl --auto-batch
Hardware   not yet run; the paper: 32 TPUv3 cores
Wall time  not yet run
Result     not yet run; its README: 85.2 % top-1 at 480 px, a user on a TPU (google/automl#1024): 84.5 %
"""

from __future__ import annotations

from train.progressive.imagenet import AUTOML, automl_stages, imagenet_recipe
from train.progressive.recipe import Recipe, require_network
from zoo.model.spec import Variant


def recipe(variant: Variant) -> Recipe:
    """192, 256, 320, 384 px; dropout stays at 0.3."""
    require_network("m_automl", variant, ("m",))
    return imagenet_recipe(
        "m_automl",
        AUTOML,
        automl_stages(image_size=(192, 384), randaugment_magnitude=(5, 15), mix_alpha=0.2, dropout=0.3),
        test_size=variant.eval_size,
    )
