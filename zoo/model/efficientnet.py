"""Owns the EfficientNet of a row: V1, V2 and Lite alike, initialised as the paper's code does; it loads no weights."""

from __future__ import annotations

import math

from torch import Tensor, nn
from torch.nn import functional as F

from zoo.model.layers import Block, ConvNormAct, StageModule
from zoo.model.network import Network
from zoo.model.spec import Padding, Variant


class EfficientNet(Network):
    """Any EfficientNet of the zoo. Stages are named by the papers' numbers: `stem` is 0, `stages.1` the first."""

    def __init__(self, variant: Variant, num_classes: int = 1000, *, padding: Padding | None = None) -> None:
        padding = padding or variant.padding
        super().__init__(variant, num_classes, padding)
        self.stem = ConvNormAct(
            variant,
            variant.channels,
            variant.stem_channels,
            3,
            stride=2,
            activation=variant.activation,
            padding=padding,
        )
        # A dict, not a Sequential: `stages["3"]` is stage 3 of the paper, where an index would be off by one.
        self.stages = nn.ModuleDict()
        channels = variant.stem_channels
        for index, stage in enumerate(variant.stages, start=1):
            self.stages[str(index)] = StageModule(variant, stage, channels, padding)
            channels = stage.out_channels
        self.head = ConvNormAct(
            variant, channels, variant.head_channels, 1, activation=variant.activation, padding=padding
        )
        self.dropout = nn.Dropout(variant.dropout)
        self.classifier = nn.Linear(variant.head_channels, num_classes)
        self.set_stochastic_depth(variant.stochastic_depth_prob)
        initialize(self)

    def features(self, x: Tensor) -> Tensor:
        """Pooled features (N, head_channels)."""
        x = self.stem(x)
        for stage in self.stages.values():
            x = stage(x)
        return F.adaptive_avg_pool2d(self.head(x), 1).flatten(1)

    def blocks(self) -> list[nn.Module]:
        """The blocks of all stages, in order."""
        return [module for module in self.modules() if isinstance(module, Block)]

    def residual_norms(self) -> list[nn.BatchNorm2d]:
        """The last norm of every residual branch."""
        branches = (block for block in self.modules() if isinstance(block, Block) and block.residual)
        return [[m for m in branch.modules() if isinstance(m, nn.BatchNorm2d)][-1] for branch in branches]


def initialize(model: nn.Module) -> None:
    """Initialise as google/automl does.

    Convolutions: normal with std √(2 / (k·k·C_out)), where depthwise kernels count C_out as 1. Dense: uniform
    ±1/√(number of classes), bias 0. Biases of convolutions 0.
    """
    for module in model.modules():
        if isinstance(module, nn.Conv2d):
            kernel_area = module.kernel_size[0] * module.kernel_size[1]
            fan_out = kernel_area * module.out_channels // module.groups
            nn.init.normal_(module.weight, std=math.sqrt(2.0 / fan_out))
            if module.bias is not None:
                nn.init.zeros_(module.bias)
        elif isinstance(module, nn.Linear):
            bound = 1.0 / math.sqrt(module.out_features)
            nn.init.uniform_(module.weight, -bound, bound)
            nn.init.zeros_(module.bias)
