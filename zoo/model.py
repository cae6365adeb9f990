"""Owns the network: a row becomes a module, initialised as the paper's code does; it loads no weights."""

from __future__ import annotations

import math
from abc import ABC, abstractmethod

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from zoo.layers import Block, ConvNormAct, StageModule, StochasticDepth
from zoo.spec import Padding, Preprocessing, Variant


class Network(nn.Module, ABC):
    """Any network of the zoo: features, dropout, classifier; what a row, a checkpoint and a recipe need of it.

    Input (N, 3, H, W) float, normalised by the variant's preprocessing; output logits (N, num_classes).
    """

    dropout: nn.Dropout
    classifier: nn.Linear

    def __init__(self, variant: Variant, num_classes: int, padding: Padding) -> None:
        super().__init__()
        self.variant = variant
        self.num_classes = num_classes
        self.padding = padding

    @abstractmethod
    def features(self, x: Tensor) -> Tensor:
        """Pooled features (N, variant.num_features)."""

    @abstractmethod
    def blocks(self) -> list[nn.Module]:
        """The blocks of all stages, in order."""

    @abstractmethod
    def residual_norms(self) -> list[nn.BatchNorm2d]:
        """The last norm of every residual branch."""

    def forward(self, x: Tensor) -> Tensor:
        """Logits (N, num_classes), before softmax."""
        logits: Tensor = self.classifier(self.dropout(self.features(x)))
        return logits

    def set_dropout(self, prob: float) -> None:
        """Set the classifier's dropout; takes effect at the next forward pass."""
        self.dropout.p = prob

    def set_stochastic_depth(self, prob: float) -> None:
        """Block i of N is dropped with probability prob · i / N (automl). 0.2, block 30 of 40: 0.15."""
        blocks = self.blocks()
        for index, block in enumerate(blocks):
            for module in block.modules():
                if isinstance(module, StochasticDepth):
                    module.prob = prob * index / len(blocks)


class EfficientNet(Network):
    """Any EfficientNet of the zoo. Stages are named by the papers' numbers: `stem` is 0, `stages.1` the first."""

    def __init__(self, variant: Variant, num_classes: int = 1000, *, padding: Padding | None = None) -> None:
        padding = padding or variant.padding
        super().__init__(variant, num_classes, padding)
        self.stem = ConvNormAct(
            variant, 3, variant.stem_channels, 3, stride=2, activation=variant.activation, padding=padding
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


def build_network(variant: Variant, num_classes: int = 1000, *, padding: Padding | None = None) -> Network:
    """Make a row's network, freshly initialised.

    Raises:
        ZooError: a ResNet row that torchvision cannot make.
    """
    if variant.is_resnet:
        from zoo.resnet import ResNet

        return ResNet(variant, num_classes)
    return EfficientNet(variant, num_classes, padding=padding)


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


def initialize_for_short_run(model: Network) -> None:
    """Start every residual block as the identity and the classifier undecided.

    The scale of each residual block's last norm is 0 (Goyal et al. 2017, §5.1): 40 blocks begin as a shallow network;
    70 steps of S at 36 px on the digits end at 93 % with it and at 45 … 61 % without. The classifier's weights are 0:
    the paper's ±1/√classes is meant for a thousand classes, with ten the first loss is 3.5 instead of ln 10 = 2.3.
    """
    for norm in model.residual_norms():
        nn.init.zeros_(norm.weight)
    nn.init.zeros_(model.classifier.weight)


class FromPictures(nn.Module):
    """A network with its preprocessing inside: uint8 pictures in, logits out.

    Input (N, S, S, 3) uint8 in RGB order, already S pixels a side; output (N, K) float32. The order of operations is
    what TensorRT accepts: cast before the permute (it rejects a uint8 Transpose), then one affine that folds
    mean and std, then a contiguous permute.
    """

    def __init__(self, model: nn.Module, preprocessing: Preprocessing) -> None:
        super().__init__()
        self.model = model
        std = torch.tensor(preprocessing.std)
        self.register_buffer("scale", 1.0 / std, persistent=False)
        self.register_buffer("shift", -torch.tensor(preprocessing.mean) / std, persistent=False)

    def forward(self, pictures: Tensor) -> Tensor:
        """Normalise, rearrange, classify."""
        scale, shift = self.get_buffer("scale"), self.get_buffer("shift")
        x = pictures.to(torch.float32) * scale + shift
        logits: Tensor = self.model(x.permute(0, 3, 1, 2).contiguous())
        return logits
