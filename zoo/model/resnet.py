"""Owns ResNets, the progressive-learning baselines of the paper's Table 12; their blocks are torchvision's."""

from __future__ import annotations

from functools import partial

from torch import Tensor, nn
from torchvision.models import resnet

from zoo.errors import ZooError
from zoo.model.layers import StochasticDepth
from zoo.model.network import Network
from zoo.model.spec import Stage, Variant

# What torchvision's class fixes; the number of layers is free.
STEM_CHANNELS = 64
OUT_CHANNELS = (256, 512, 1024, 2048)
STRIDES = (1, 2, 2, 2)


class DroppedNorm(nn.BatchNorm2d):
    """The last norm of a residual branch, and the branch's stochastic depth behind it. Keys are the norm's own."""

    def __init__(self, norm: nn.BatchNorm2d) -> None:
        super().__init__(norm.num_features, eps=norm.eps, momentum=norm.momentum)
        self.stochastic_depth = StochasticDepth()

    def forward(self, x: Tensor) -> Tensor:
        """Normalise (N, C, H, W), then zero some pictures' branches."""
        dropped: Tensor = self.stochastic_depth(super().forward(x))
        return dropped


class ResNet(Network):
    """torchvision's ResNet with our dropout and classifier: `backbone` has its keys, but for `fc`.

    Raises:
        ZooError: the row is not one that torchvision's class can be.
    """

    def __init__(self, variant: Variant, num_classes: int = 1000) -> None:
        check_row(variant)
        super().__init__(variant, num_classes, "symmetric")
        norm = partial(nn.BatchNorm2d, eps=variant.batch_norm_eps, momentum=variant.batch_norm_momentum)
        layers = [stage.num_layers for stage in variant.stages]
        self.backbone = resnet.ResNet(resnet.Bottleneck, layers, norm_layer=norm)
        self.backbone.fc = nn.Identity()
        for block in self.bottlenecks():
            block.bn3 = DroppedNorm(block.bn3)
        self.dropout = nn.Dropout(variant.dropout)
        self.classifier = nn.Linear(variant.num_features, num_classes)
        self.set_stochastic_depth(variant.stochastic_depth_prob)

    def features(self, x: Tensor) -> Tensor:
        """Pooled features (N, 2048)."""
        pooled: Tensor = self.backbone(x)
        return pooled

    def bottlenecks(self) -> list[resnet.Bottleneck]:
        """The blocks of all stages, in order, by their own class."""
        return [module for module in self.modules() if isinstance(module, resnet.Bottleneck)]

    def blocks(self) -> list[nn.Module]:
        """The blocks of all stages, in order."""
        return [*self.bottlenecks()]

    def residual_norms(self) -> list[nn.BatchNorm2d]:
        """The last norm of every block."""
        return [module for module in self.modules() if isinstance(module, DroppedNorm)]


def check_row(variant: Variant) -> None:
    """Refuse a row that torchvision's class cannot be.

    Raises:
        ZooError: says what it must be.
    """
    expected = tuple(
        Stage(
            operator="bottleneck",
            kernel_size=3,
            stride=stride,
            expand_ratio=4,
            out_channels=channels,
            num_layers=stage.num_layers,
        )
        for stride, channels, stage in zip(STRIDES, OUT_CHANNELS, variant.stages, strict=False)
    )
    ends = (variant.stem_channels, variant.head_channels, variant.activation, variant.padding)
    if variant.stages != expected or len(expected) != 4 or ends != (STEM_CHANNELS, 0, "relu", "symmetric"):
        raise ZooError(
            f"The row {variant.id} has bottleneck stages but is not one of torchvision's ResNets.",
            "Only num_layers of resnet50's row may differ: stem 64, no head, ReLU, symmetric padding; stages of kernel "
            "3, strides 1 2 2 2, expand ratio 4, channels 256 512 1024 2048, no squeeze-and-excitation.",
        )
