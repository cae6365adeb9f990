"""EfficientNetV2-S on ImageNet-1k as the paper has it: Table 6, column S.

Source     V2 §4.1 and Table 6 (arXiv 2104.00298v3); `train/progressive/imagenet.py` has the rest
Command    zoo train s --data imagenet/ --recipe s_imagenet --auto-batch
Hardware   not yet run; the paper: 32 TPUv3 cores
Wall time  not yet run; the paper: 7.1 hours
Result     not yet run; the paper: 83.9 % top-1 at 384 px
"""

from __future__ import annotations

from train.progressive.imagenet import PAPER, imagenet_recipe, paper_stages
from train.progressive.recipe import Recipe, require_network
from zoo.model.spec import Variant


def recipe(variant: Variant) -> Recipe:
    """128, 185, 243, 300 px."""
    require_network("s_imagenet", variant, ("s", "s-relu6"))
    return imagenet_recipe(
        "s_imagenet",
        PAPER,
        paper_stages(image_size=(128, 300), randaugment_magnitude=(5, 15), mixup_alpha=(0.0, 0.0), dropout=(0.1, 0.3)),
        test_size=384,
    )
