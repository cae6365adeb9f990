"""Owns the blocks of the EfficientNet families as modules; which blocks make a network is a row's business.

Semantics follow google/automl `efficientnetv2/effnetv2_model.py`. Attribute names become node names of the exported
graph (`stages.3.block.5.depthwise`), so they are the papers' words.
"""

from __future__ import annotations

from collections import OrderedDict

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from zoo.model.counts import padding_of, squeeze_channels
from zoo.model.spec import Activation, Padding, Stage, Variant

ACTIVATIONS: dict[Activation, type[nn.Module]] = {"silu": nn.SiLU, "relu6": nn.ReLU6, "relu": nn.ReLU}


class Conv2dSame(nn.Conv2d):
    """A strided convolution with TensorFlow's "same" padding: the odd pixel goes to the right and the bottom.

    Input (N, C, H, W), output (N, K, ⌈H/stride⌉, ⌈W/stride⌉). At a fixed size the exporter folds the padding into
    the convolution, so an engine pays nothing for it.
    """

    def _conv_forward(self, input: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
        """Pad by the size at hand, then convolve."""
        (kernel_h, kernel_w), (stride_h, stride_w) = self.kernel_size, self.stride
        top, bottom = padding_of(kernel_h, stride_h, input.shape[-2], "same")
        left, right = padding_of(kernel_w, stride_w, input.shape[-1], "same")
        padded = F.pad(input, (left, right, top, bottom))
        return F.conv2d(padded, weight, bias, self.stride, 0, self.dilation, self.groups)


class ConvNormAct(nn.Sequential):
    """Convolution without bias, batch norm, and the activation unless `activation` is None."""

    def __init__(
        self,
        variant: Variant,
        in_channels: int,
        out_channels: int,
        kernel_size: int,
        *,
        stride: int = 1,
        groups: int = 1,
        activation: Activation | None,
        padding: Padding,
    ) -> None:
        # At stride 1 an odd kernel's "same" padding is symmetric, so only strided convolutions differ.
        asymmetric = padding == "same" and stride > 1
        conv = (Conv2dSame if asymmetric else nn.Conv2d)(
            in_channels,
            out_channels,
            kernel_size,
            stride,
            padding=0 if asymmetric else kernel_size // 2,
            groups=groups,
            bias=False,
        )
        norm = nn.BatchNorm2d(out_channels, eps=variant.batch_norm_eps, momentum=variant.batch_norm_momentum)
        parts: list[tuple[str, nn.Module]] = [("conv", conv), ("norm", norm)]
        if activation:
            parts.append(("act", ACTIVATIONS[activation](inplace=True)))
        super().__init__(OrderedDict(parts))


class SqueezeExcite(nn.Module):
    """Channel gate: pool, reduce, activate, expand, sigmoid, multiply. Both 1×1 convolutions have a bias.

    `in_place` says that its input is the layer before's output and nobody else's, so that it may be written over.
    """

    def __init__(self, channels: int, squeezed: int, activation: Activation, *, in_place: bool) -> None:
        super().__init__()
        self.in_place = in_place
        self.reduce = nn.Conv2d(channels, squeezed, 1)
        self.act = ACTIVATIONS[activation](inplace=True)
        self.expand = nn.Conv2d(squeezed, channels, 1)
        self.gate = nn.Sigmoid()

    def forward(self, x: Tensor) -> Tensor:
        """Scale every channel of (N, C, H, W) by a gate in 0…1."""
        pooled = F.adaptive_avg_pool2d(x, 1)
        gate: Tensor = self.gate(self.expand(self.act(self.reduce(pooled))))
        # The gradient needs x as it was.
        return x.mul_(gate) if self.in_place and not torch.is_grad_enabled() else x * gate


class StochasticDepth(nn.Module):
    """Drop the residual branch of whole pictures while training, scaling the kept ones by 1 / (1 − prob).

    `prob` is set per block and training stage. With a float on the module rather than a call argument the
    evaluation graph never sees it.
    """

    def __init__(self) -> None:
        super().__init__()
        self.prob = 0.0

    def forward(self, x: Tensor) -> Tensor:
        """Return (N, C, H, W) with some pictures' branches zeroed."""
        if not self.training or self.prob == 0.0:
            return x
        keep = 1.0 - self.prob
        mask = torch.empty((x.shape[0], 1, 1, 1), dtype=x.dtype, device=x.device).bernoulli_(keep).div_(keep)
        return x * mask


class Block(nn.Module):
    """One MBConv or Fused-MBConv block with its residual.

    MBConv: 1×1 `expand` (unless the ratio is 1) → `depthwise` k×k with the stride → `se` → 1×1 `project`.
    Fused-MBConv: `fused` k×k with the stride → `se` → 1×1 `project`; with ratio 1 `se` → a single `fused` convolution
    that keeps its activation, where every other block ends without one. SE stands before the last convolution in both
    (google/automl `FusedMBConvBlock`): with ratio 1 that is the block's input.
    """

    def __init__(self, variant: Variant, stage: Stage, in_channels: int, stride: int, padding: Padding) -> None:
        super().__init__()
        act = variant.activation
        expanded = in_channels * stage.expand_ratio
        kernel = stage.kernel_size

        def conv(
            cin: int, cout: int, k: int, *, stride: int = 1, groups: int = 1, act: Activation | None = act
        ) -> ConvNormAct:
            return ConvNormAct(variant, cin, cout, k, stride=stride, groups=groups, activation=act, padding=padding)

        fused = stage.operator == "fused_mbconv"
        branch: list[tuple[str, nn.Module]] = []
        if fused and stage.expand_ratio > 1:
            branch.append(("fused", conv(in_channels, expanded, kernel, stride=stride)))
        elif not fused:
            if stage.expand_ratio > 1:
                branch.append(("expand", conv(in_channels, expanded, 1)))
            branch.append(("depthwise", conv(expanded, expanded, kernel, stride=stride, groups=expanded)))
        if stage.se_ratio:
            squeezed = squeeze_channels(in_channels, stage.se_ratio)
            branch.append(("se", SqueezeExcite(expanded, squeezed, act, in_place=bool(branch))))
        if fused and stage.expand_ratio == 1:
            branch.append(("fused", conv(in_channels, stage.out_channels, kernel, stride=stride)))
        else:
            branch.append(("project", conv(expanded, stage.out_channels, 1, act=None)))
        self.residual = stride == 1 and in_channels == stage.out_channels
        if self.residual:
            branch.append(("stochastic_depth", StochasticDepth()))
        for name, module in branch:
            self.add_module(name, module)

    def forward(self, x: Tensor) -> Tensor:
        """Map (N, C, H, W) to (N, K, ⌈H/stride⌉, ⌈W/stride⌉)."""
        branch = x
        for module in self.children():
            branch = module(branch)
        # In place: no layer needs its own output for the gradient, and a training step saves an allocation a block.
        return branch.add_(x) if self.residual else branch


class StageModule(nn.Module):
    """The blocks of one stage, as `block.0`, `block.1`, …"""

    def __init__(self, variant: Variant, stage: Stage, in_channels: int, padding: Padding) -> None:
        super().__init__()
        self.block = nn.Sequential(
            *(
                Block(
                    variant,
                    stage,
                    in_channels if index == 0 else stage.out_channels,
                    stage.stride if index == 0 else 1,
                    padding,
                )
                for index in range(stage.num_layers)
            )
        )

    def forward(self, x: Tensor) -> Tensor:
        """Run the blocks in turn."""
        out: Tensor = self.block(x)
        return out
