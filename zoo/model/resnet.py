"""Owns ResNets, the progressive-learning baselines of the paper's Table 12; their blocks are torchvision's."""

from __future__ import annotations

from functools import partial

from torch import Tensor, nn
from torchvision.models import resnet

from zoo.model.layers import StochasticDepth
from zoo.model.network import Network
from zoo.model.spec import RGB, Variant
from zoo.model.variants import check_resnet


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
        check_resnet(variant)
        super().__init__(variant, num_classes, "symmetric")
        norm = partial(nn.BatchNorm2d, eps=variant.batch_norm_eps, momentum=variant.batch_norm_momentum)
        layers = [stage.num_layers for stage in variant.stages]
        self.backbone = resnet.ResNet(resnet.Bottleneck, layers, norm_layer=norm)
        self.backbone.fc = nn.Identity()
        if variant.channels != RGB:
            self.backbone.conv1 = _stem(variant)
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


def _stem(variant: Variant) -> nn.Conv2d:
    """torchvision's first convolution for pictures that are not RGB, initialised as it does."""
    conv = nn.Conv2d(variant.channels, variant.stem_channels, kernel_size=7, stride=2, padding=3, bias=False)
    nn.init.kaiming_normal_(conv.weight, mode="fan_out", nonlinearity="relu")
    return conv
