"""EfficientNetV2-M on ImageNet-1k as the paper has it: Table 6, column M.

Source     V2 §4.1 and Table 6 (arXiv 2104.00298v3); `train/progressive/imagenet.py` has the rest
Command    zoo train m --data imagenet/ --recipe m_imagenet --auto-batch
Hardware   not yet run; the paper: 32 TPUv3 cores
Wall time  not yet run; the paper: 13 hours
Result     not yet run; the paper: 85.1 % top-1 at 480 px
"""

from __future__ import annotations

from train.progressive.imagenet import PAPER, imagenet_recipe, paper_stages
from train.progressive.recipe import Recipe, require_network
from zoo.model.spec import Variant


def recipe(variant: Variant) -> Recipe:
    """128, 212, 296, 380 px."""
    require_network("m_imagenet", variant, ("m",))
    return imagenet_recipe(
        "m_imagenet",
        PAPER,
        paper_stages(image_size=(128, 380), randaugment_magnitude=(5, 20), mixup_alpha=(0.0, 0.2), dropout=(0.1, 0.4)),
        test_size=480,
    )
