"""Owns where a stage stands in its network, and what it is as the other operator; it costs and times nothing."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace

from serve.bench.stage_options import SeChoice
from zoo.model.counts import output_size
from zoo.model.spec import ChannelCount, Operator, Stage, Variant
from zoo.rows import Count, Row

OPERATORS: tuple[Operator, Operator] = ("mbconv", "fused_mbconv")
# Squeeze-and-excitation in EfficientNetV2, paper Table 4.
SE_RATIOS: dict[Operator, float] = {"mbconv": 0.25, "fused_mbconv": 0.0}


@dataclass(frozen=True, kw_only=True)
class StagePlace(Row):
    """One stage of a network at one image size: `in_size` and `out_size` are sides of its maps in pixels."""

    index: Count
    stage: Stage
    in_channels: ChannelCount
    in_size: Count
    out_size: Count


def places(variant: Variant, image_size: int) -> Iterator[StagePlace]:
    """Yield every stage with what reaches it when the network sees pictures of `image_size` pixels."""
    channels, size = variant.stem_channels, output_size(image_size, 2)
    for index, stage in enumerate(variant.stages, start=1):
        out_size = output_size(size, stage.stride)
        yield StagePlace(index=index, stage=stage, in_channels=channels, in_size=size, out_size=out_size)
        channels, size = stage.out_channels, out_size


def form_of(
    variant: Variant, stage: Stage, operator: Operator, *, se: SeChoice = "paper", kernel_size: int | None = None
) -> Stage:
    """`stage` as an operator, everything else kept: stride, expand ratio, channels, layers, and mostly the kernel.

    With `se` "paper" the stage's own form is its own row, and the other one gets the squeeze-and-excitation that the
    network's stages of that form have (0.25 for MBConv in EfficientNetV2, none in Lite), else the paper's (Table 4).
    With "both" and "none" both forms have it, or neither: what is compared is then the convolutions alone.
    """
    kernel = kernel_size or stage.kernel_size
    if se != "paper":
        ratio = SE_RATIOS["mbconv"] if se == "both" else 0.0
        return replace(stage, operator=operator, kernel_size=kernel, se_ratio=ratio)
    if stage.operator == operator:
        return replace(stage, kernel_size=kernel)
    own = next((other.se_ratio for other in variant.stages if other.operator == operator), SE_RATIOS[operator])
    return replace(stage, operator=operator, kernel_size=kernel, se_ratio=own)


def swapped(variant: Variant, index: int, *, se: SeChoice = "paper", kernel_size: int | None = None) -> Variant:
    """The network with stage `index`, from 1, as the operator that it is not, and all other stages as they are."""
    stage = variant.stages[index - 1]
    other: Operator = "mbconv" if stage.operator == "fused_mbconv" else "fused_mbconv"
    changed = form_of(variant, stage, other, se=se, kernel_size=kernel_size)
    return replace(variant, stages=(*variant.stages[: index - 1], changed, *variant.stages[index:]))
