"""EfficientNetV2-L on ImageNet-1k as the paper has it: Table 6, column L.

Source     V2 §4.1 and Table 6 (arXiv 2104.00298v3); `train/progressive/imagenet.py` has the rest
Command    zoo train l --data imagenet/ --recipe l_imagenet --auto-batch
Hardware   not yet run; the paper: 32 TPUv3 cores
Wall time  not yet run; the paper: 24 hours
Result     not yet run; the paper: 85.7 % top-1 at 480 px
"""

from __future__ import annotations

from train.progressive.imagenet import PAPER, imagenet_recipe, paper_stages
from train.progressive.recipe import Recipe, require_network
from zoo.model.spec import Variant


def recipe(variant: Variant) -> Recipe:
    """128, 212, 296, 380 px."""
    require_network("l_imagenet", variant, ("l",))
    return imagenet_recipe(
        "l_imagenet",
        PAPER,
        paper_stages(image_size=(128, 380), randaugment_magnitude=(5, 25), mixup_alpha=(0.0, 0.4), dropout=(0.1, 0.5)),
        test_size=480,
    )
