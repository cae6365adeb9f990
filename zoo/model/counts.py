"""Owns the arithmetic of a row: parameters, multiply-adds and map sizes of every part; it builds no module.

MACs count convolutions, squeeze-and-excitation and the classifier, as the published figures do; normalisation,
activations and pooling are left out.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from zoo.model.spec import Padding, Stage, Variant


@dataclass(frozen=True, kw_only=True)
class Part:
    """One line of a network's table: the stem, a stage, or the head with the classifier.

    `size` is the side of the output map in pixels; `num_params` are trainable ones.
    """

    index: int
    operator: str
    kernel_size: int
    stride: int
    expand_ratio: int
    se_ratio: float
    in_channels: int
    out_channels: int
    num_layers: int
    size: int
    num_params: int
    macs: int


@dataclass(frozen=True)
class _Cost:
    num_params: int = 0
    macs: int = 0

    def __add__(self, other: _Cost) -> _Cost:
        return _Cost(self.num_params + other.num_params, self.macs + other.macs)


def squeeze_channels(in_channels: int, se_ratio: float) -> int:
    """Width of the squeeze, from the block's *input* channels: max(1, ⌊C·ratio⌋) (automl effnetv2_model.py)."""
    return max(1, int(in_channels * se_ratio))


def output_size(size: int, stride: int) -> int:
    """Side of the map after a stride, halves rounded up; the same for "same" and symmetric padding of odd kernels."""
    return -(-size // stride)


def padding_of(kernel_size: int, stride: int, size: int, padding: Padding) -> tuple[int, int]:
    """Pixels added before and after each side.

    "same" is TensorFlow's rule, total = max((⌈size/stride⌉ − 1)·stride + k − size, 0) with the odd pixel last:
    kernel 3, stride 2 on 224 px gives (0, 1). "symmetric" gives (1, 1).
    """
    if padding == "symmetric":
        return kernel_size // 2, kernel_size // 2
    total = max((output_size(size, stride) - 1) * stride + kernel_size - size, 0)
    return total // 2, total - total // 2


def _conv(in_channels: int, out_channels: int, kernel_size: int, size: int, *, groups: int = 1) -> _Cost:
    """A convolution without bias, followed by a batch norm (scale and shift)."""
    weights = in_channels // groups * out_channels * kernel_size**2
    return _Cost(weights + 2 * out_channels, weights * size**2)


def _block(stage: Stage, in_channels: int, out_channels: int, in_size: int, size: int) -> _Cost:
    if stage.operator == "bottleneck":
        return _bottleneck(stage, in_channels, in_size, size)
    expanded = in_channels * stage.expand_ratio
    if stage.operator == "fused_mbconv" and stage.expand_ratio == 1:
        cost = _conv(in_channels, out_channels, stage.kernel_size, size)
    elif stage.operator == "fused_mbconv":
        cost = _conv(in_channels, expanded, stage.kernel_size, size) + _conv(expanded, out_channels, 1, size)
    else:
        cost = _conv(expanded, expanded, stage.kernel_size, size, groups=expanded)
        cost += _conv(expanded, out_channels, 1, size)
        if stage.expand_ratio > 1:
            cost += _conv(in_channels, expanded, 1, in_size)
    if stage.se_ratio:
        squeezed = squeeze_channels(in_channels, stage.se_ratio)
        cost += _Cost(2 * expanded * squeezed + squeezed + expanded, 2 * expanded * squeezed)
    return cost


def _bottleneck(stage: Stage, in_channels: int, in_size: int, size: int) -> _Cost:
    """torchvision's form: the stride is in the 3×3 convolution, and a changed shape has a 1×1 shortcut."""
    out_channels, width = stage.out_channels, stage.out_channels // stage.expand_ratio
    cost = _conv(in_channels, width, 1, in_size) + _conv(width, width, stage.kernel_size, size)
    cost += _conv(width, out_channels, 1, size)
    if in_channels != out_channels or in_size != size:
        cost += _conv(in_channels, out_channels, 1, size)
    return cost


def stage_cost(stage: Stage, in_channels: int, in_size: int) -> tuple[int, int]:
    """Parameters and MACs of one stage for an input of `in_channels` and `in_size` pixels a side, batch 1."""
    size = output_size(in_size, stage.stride)
    cost = _block(stage, in_channels, stage.out_channels, in_size, size)
    for _ in range(stage.num_layers - 1):
        cost += _block(stage, stage.out_channels, stage.out_channels, size, size)
    return cost.num_params, cost.macs


def parts(variant: Variant, *, image_size: int | None = None, num_classes: int = 1000) -> Iterator[Part]:
    """Yield stem (index 0), stages (1…) and head of `variant` at `image_size` (default: its eval size)."""
    kernel_size = 7 if variant.is_resnet else 3
    size = output_size(image_size or variant.eval_size, 2)
    stem = _conv(variant.channels, variant.stem_channels, kernel_size, size)
    if variant.is_resnet:
        size = output_size(size, 2)  # its max-pool
    yield Part(
        index=0,
        operator="conv",
        kernel_size=kernel_size,
        stride=4 if variant.is_resnet else 2,
        expand_ratio=1,
        se_ratio=0,
        in_channels=variant.channels,
        out_channels=variant.stem_channels,
        num_layers=1,
        size=size,
        num_params=stem.num_params,
        macs=stem.macs,
    )
    channels = variant.stem_channels
    for index, stage in enumerate(variant.stages, start=1):
        num_params, macs = stage_cost(stage, channels, size)
        size = output_size(size, stage.stride)
        yield Part(
            index=index,
            operator=stage.operator,
            kernel_size=stage.kernel_size,
            stride=stage.stride,
            expand_ratio=stage.expand_ratio,
            se_ratio=stage.se_ratio,
            in_channels=channels,
            out_channels=stage.out_channels,
            num_layers=stage.num_layers,
            size=size,
            num_params=num_params,
            macs=macs,
        )
        channels = stage.out_channels
    features = variant.num_features
    head = _conv(channels, features, 1, size) if variant.head_channels else _Cost()
    total = head + _Cost((features + 1) * num_classes, features * num_classes)
    yield Part(
        index=len(variant.stages) + 1,
        operator="head",
        kernel_size=1,
        stride=1,
        expand_ratio=1,
        se_ratio=0,
        in_channels=channels,
        out_channels=num_classes,
        num_layers=1,
        size=size,
        num_params=total.num_params,
        macs=total.macs,
    )


def largest_map(variant: Variant, image_size: int) -> int:
    """Numbers in the largest tensor of one picture: its input, or what a convolution makes of it.

    S at 384 px: 48 · 4 channels of 96 × 96 px in stage 2 are 1,769,472.
    """
    stem_size = output_size(image_size, 2)
    maps = [variant.channels * image_size**2, variant.stem_channels * stem_size**2]
    size = output_size(stem_size, 2) if variant.is_resnet else stem_size  # its max-pool
    channels = variant.stem_channels
    for stage in variant.stages:
        out_size = output_size(size, stage.stride)
        if stage.operator == "bottleneck":
            maps += [stage.out_channels // stage.expand_ratio * size**2, stage.out_channels * out_size**2]
        else:
            # An MBConv expands before its stride, a Fused-MBConv with it.
            maps.append(channels * stage.expand_ratio * (size if stage.operator == "mbconv" else out_size) ** 2)
            widest = stage.expand_ratio if stage.num_layers > 1 else 1
            maps.append(stage.out_channels * widest * out_size**2)
        channels, size = stage.out_channels, out_size
    return max(*maps, variant.num_features * size**2)


def count_params(variant: Variant, num_classes: int = 1000) -> int:
    """Trainable parameters."""
    return sum(part.num_params for part in parts(variant, num_classes=num_classes))


def count_macs(variant: Variant, image_size: int | None = None, num_classes: int = 1000) -> int:
    """Multiply-adds of one picture at `image_size` (default: the eval size)."""
    return sum(part.macs for part in parts(variant, image_size=image_size, num_classes=num_classes))
