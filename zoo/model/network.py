"""Owns what every network of the zoo is: features, dropout, classifier; which layers they are is its subclasses'."""

from __future__ import annotations

from abc import ABC, abstractmethod

from torch import Tensor, nn

from zoo.model.layers import StochasticDepth
from zoo.model.spec import Padding, Variant


class Network(nn.Module, ABC):
    """Any network of the zoo: features, dropout, classifier; what a row, a checkpoint and a recipe need of it.

    Input (N, C, H, W) float, the planes of the variant's preprocessing, normalised by it; output logits
    (N, num_classes).
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

    def norms(self) -> list[nn.BatchNorm2d | nn.SyncBatchNorm]:
        """Every batch norm, in order."""
        return [module for module in self.modules() if isinstance(module, (nn.BatchNorm2d, nn.SyncBatchNorm))]

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
