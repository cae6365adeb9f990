"""Owns the parts of a network that are no stage as networks of their own: stem, head, and a call of nothing.

A block is a stage of one layer, and `serve.bench.measure.forms` makes that. Everything here is built as it builds.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from export.contract import Contract
from serve.bench.measure.forms import NUM_ANSWERS, build_form, contract_of, form_contract, picture_side, settle
from serve.bench.measure.places import StagePlace
from zoo.model.blocks import Block
from zoo.model.counts import output_size
from zoo.model.efficientnet import initialize
from zoo.model.layers import ConvNormAct
from zoo.model.network import Network
from zoo.model.spec import Stage, Variant

_SEED = 0
# A call that computes next to nothing: one channel of the smallest picture, 16 answers.
_NOTHING = Stage(operator="mbconv", kernel_size=1, stride=1, expand_ratio=1, out_channels=1, num_layers=1)
NOWHERE = StagePlace(index=1, stage=_NOTHING, in_channels=1, in_size=4, out_size=4)


@dataclass(frozen=True, kw_only=True)
class Form:
    """A network that a runner can run, and what it promises."""

    network: Network
    contract: Contract

    @property
    def size(self) -> int:
        """The side of its pictures, px."""
        return self.contract.preprocessing.image_size


class PictureEnd(Network):
    """A stem, or a head behind the map that it takes: (N, 3, S, S) normalised to (N, num_answers)."""

    def __init__(self, variant: Variant, block: Block, num_answers: int) -> None:
        super().__init__(variant, num_answers, variant.padding)
        self.entry: nn.Module = nn.Identity()
        if block.operator == "head":
            stride = picture_side(block.in_size) // block.in_size
            self.entry = nn.Conv2d(3, block.in_channels, 1, stride=stride)
        self.part = ConvNormAct(
            variant,
            block.in_channels,
            block.out_channels,
            block.kernel_size,
            stride=block.stride,
            activation=variant.activation,
            padding=variant.padding,
        )
        self.dropout = nn.Dropout(0.0)
        self.classifier = nn.Linear(block.out_channels, num_answers)
        initialize(self)

    def features(self, x: Tensor) -> Tensor:
        """One number a channel (N, C)."""
        return F.adaptive_avg_pool2d(self.part(self.entry(x)), 1).flatten(1)

    def blocks(self) -> list[nn.Module]:
        """None: it is no stage."""
        return []

    def residual_norms(self) -> list[nn.BatchNorm2d]:
        """None."""
        return []


def form_of_block(variant: Variant, block: Block, num_classes: int) -> Form:
    """A part of a network as a network: settled, in evaluation mode; a head has its classifier of `num_classes`."""
    if block.operator in ("stem", "head"):
        return _end(variant, block, num_classes if block.operator == "head" else NUM_ANSWERS)
    return _form(variant, _place(block), block.stage)


def frame_of_block(variant: Variant, block: Block) -> Form:
    """What is around a part: of a stem a call of nothing, else the map that reaches it with pooling and answers."""
    if block.operator == "stem":
        return _form(variant, NOWHERE, None)
    return _form(variant, _place(block), None)


def frame_key(block: Block) -> tuple[int, int]:
    """Parts with the same key have the same frame: channels and side of the map that reaches them; (0, 0) of stems."""
    return (0, 0) if block.operator == "stem" else (block.in_channels, block.in_size)


def _form(variant: Variant, place: StagePlace, stage: Stage | None) -> Form:
    network = build_form(variant, place, stage)
    return Form(network=network, contract=contract_of(network, place))


def _place(block: Block) -> StagePlace:
    stage = _NOTHING if block.operator in ("stem", "head") else block.stage
    return StagePlace(
        index=1,
        stage=stage,
        in_channels=block.in_channels,
        in_size=block.in_size,
        out_size=output_size(block.in_size, block.stride),
    )


def _end(variant: Variant, block: Block, num_answers: int) -> Form:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(_SEED)
        network = PictureEnd(variant, block, num_answers)
    size = block.in_size if block.operator == "stem" else picture_side(block.in_size)
    settle(network, size, output_size(block.in_size, block.stride))
    return Form(network=network, contract=form_contract(f"{variant.id}-{block.operator}", size, num_answers))
