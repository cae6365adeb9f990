"""Owns a stage as a network that a runner can run: pictures in, the stage's map in between, a few answers out.

A runner takes pictures, and an engine lays tensors out as its own layers like them. So the map that reaches a stage is
made inside, by one 1×1 convolution of a small picture, as in a network the layer before makes it, and behind the stage
is what is behind a network's last one: pooling and a small classifier.
What these cost is measured by the same network without the stage, the frame, and taken off. It times nothing.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from export.contract import Contract
from export.source import BRANCH_SCALE
from serve.bench.measure.places import StagePlace
from zoo.model.efficientnet import initialize
from zoo.model.layers import Block, StageModule
from zoo.model.network import Network
from zoo.model.norms import settle_batch_norms
from zoo.model.spec import Preprocessing, Stage, Variant

_SEED = 0
# Enough to compare, and next to nothing to compute.
NUM_ANSWERS = 16
# Values per channel that batch-norm statistics are taken from; with 8 (two maps of 2 × 2) fifteen blocks amplify
# the error of each other's statistics a thousandfold.
_STATISTICS_VALUES = 1024
# The smallest side that a row of preprocessing speaks of; a smaller map is taken from a picture so many times as large.
LEAST_SIZE = 4


class PictureStage(Network):
    """`entry` → one stage, or none → pooling → `classifier`: (N, 3, S, S) normalised to (N, NUM_ANSWERS).

    `place` says what reaches the stage. Its modules have the paths they have in the network, `stages.3.block.0.…`.
    """

    def __init__(self, variant: Variant, place: StagePlace, stage: Stage | None) -> None:
        super().__init__(variant, NUM_ANSWERS, variant.padding)
        self.entry = nn.Conv2d(3, place.in_channels, 1, stride=picture_size(place) // place.in_size)
        self.stages = nn.ModuleDict()
        if stage:
            self.stages[str(place.index)] = StageModule(variant, stage, place.in_channels, variant.padding)
        self.dropout = nn.Dropout(0.0)
        self.classifier = nn.Linear(stage.out_channels if stage else place.in_channels, NUM_ANSWERS)
        initialize(self)

    def features(self, x: Tensor) -> Tensor:
        """One number a channel (N, C)."""
        x = self.entry(x)
        for stage in self.stages.values():
            x = stage(x)
        return F.adaptive_avg_pool2d(x, 1).flatten(1)

    def blocks(self) -> list[nn.Module]:
        """The blocks of the stage."""
        return [module for module in self.modules() if isinstance(module, Block)]

    def residual_norms(self) -> list[nn.BatchNorm2d]:
        """The last norm of every residual branch."""
        branches = (block for block in self.modules() if isinstance(block, Block) and block.residual)
        return [[m for m in branch.modules() if isinstance(m, nn.BatchNorm2d)][-1] for branch in branches]


def picture_size(place: StagePlace) -> int:
    """The side of the pictures that a stage as a network takes, pixels: that of its map, if there are such pictures."""
    return picture_side(place.in_size)


def picture_side(in_size: int) -> int:
    """The same of a map."""
    return in_size if in_size >= LEAST_SIZE else LEAST_SIZE * in_size


def build_form(variant: Variant, place: StagePlace, stage: Stage | None) -> PictureStage:
    """Build a stage at its place, or the frame without one: seeded, settled, in evaluation mode on the processor.

    Residual branches are damped and norms settled on random pictures, as in a whole network with random weights
    (`export.source.make_random_network`): activations keep the scale of a trained network, and fp32 is accurate
    enough to be compared. The global random state is left as it was.
    """
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(_SEED)
        module = PictureStage(variant, place, stage)
    for norm in module.residual_norms():
        nn.init.constant_(norm.weight, BRANCH_SCALE)
    settle(module, picture_size(place), place.out_size)
    return module


def settle(module: Network, size: int, out_size: int) -> None:
    """Settle a form's norms on random pictures of `size` px, whose maps end with a side of `out_size` px."""
    count = -(-_STATISTICS_VALUES // out_size**2)
    noise = torch.randn(count, 3, size, size, generator=torch.Generator().manual_seed(_SEED))
    settle_batch_norms(module, [noise])


def contract_of(module: PictureStage, place: StagePlace) -> Contract:
    """What a stage as a network promises: and NUM_ANSWERS answers."""
    return form_contract(f"{module.variant.id}-stage-{place.index}", picture_size(place), NUM_ANSWERS)


def form_contract(model: str, size: int, num_answers: int) -> Contract:
    """What any form promises: so many answers to pictures of `size` px."""
    return Contract(
        model=model,
        classes=tuple(f"answer {index}" for index in range(num_answers)),
        preprocessing=Preprocessing(image_size=size),
    )
