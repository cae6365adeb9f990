"""Owns training for 8 bits: a network whose weights and activations are rounded where an engine will round them.

The places are those of ONNX Runtime's form (`export/precision/qdq.py`): what every layer reads and makes, both sides of
a residual addition and the sum. TensorRT's form rounds some of these. A range is named after the module that makes the
tensor, as the graph's nodes are, so that export finds it; a test holds both to the same places.

It trains nothing. Weights keep their keys and stay float: a step is the gradient's as if nothing were rounded (Bengio
et al., arXiv 1308.3432), where nothing is clipped.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from zoo.errors import ZooError
from zoo.model.efficientnet import EfficientNet
from zoo.model.eight_bits import INT8_MAX, SMALLEST_SCALE, UINT8_MAX
from zoo.model.layers import Block, Conv2dSame, ConvNormAct, SqueezeExcite
from zoo.model.network import Network

# How far a range moves towards that of the batch in a step: 63 % of the way in 50 steps.
RANGE_MOMENTUM = 0.02
# Values of a batch that its range is chosen by, and the shares of the whole range that are tried at each end.
SAMPLED_VALUES = 4096
SHARES = (0.4, 0.5, 0.6, 0.7, 0.8, 0.9, 1.0)
# The points that are no module's own output: what the stem reads, and what the classifier reads.
INPUT, POOLED = "preprocessing", "pool"
SUFFIX_OF_POOLED = "pooled"  # of what a squeeze-and-excitation pools


class FakeQuantize(nn.Module):
    """Rounds a tensor to 255 steps of a range, which follows the batches while it trains.

    The range of a batch is the one with the smallest squared error; `low` ≤ 0 ≤ `high` are its moving average. Before
    the first batch there is none, and nothing is rounded.
    """

    low: Tensor
    high: Tensor

    def __init__(self, point: str) -> None:
        super().__init__()
        self.point = point
        self.register_buffer("low", torch.zeros(()))
        self.register_buffer("high", torch.zeros(()))

    def forward(self, x: Tensor) -> Tensor:
        """Round a tensor of any shape."""
        if self.training:
            self._follow(x.detach())
        elif not self.has_range:
            return x
        scale = ((self.high - self.low) / UINT8_MAX).clamp(min=SMALLEST_SCALE).half().float()
        zero = (-self.low / scale).round().clamp(0, UINT8_MAX).int()
        rounded: Tensor = torch.fake_quantize_per_tensor_affine(x.float(), scale, zero, 0, UINT8_MAX)
        return rounded.to(x.dtype)

    @property
    def has_range(self) -> bool:
        """Whether a batch was seen. A host–device synchronisation: asked outside training only."""
        return bool(self.high > self.low)

    @torch.no_grad()
    def _follow(self, x: Tensor) -> None:
        low, high = least_error_range(x)
        known = self.high > self.low
        self.low.copy_(torch.where(known, torch.lerp(self.low, low, RANGE_MOMENTUM), low))
        self.high.copy_(torch.where(known, torch.lerp(self.high, high, RANGE_MOMENTUM), high))


def least_error_range(x: Tensor) -> tuple[Tensor, Tensor]:
    """The range (low ≤ 0 ≤ high) in whose 255 steps a tensor's values have the smallest squared error, of those tried.

    First its upper end is chosen, then its lower one: 14 trials instead of 49.
    """
    x = x.float()
    low, high = (end.reshape(()) for end in x.aminmax())
    low, high = low.clamp(max=0.0), high.clamp(min=0.0)
    high = torch.where(high > low, high, torch.ones_like(high))  # all zeros: any range will do
    flat = x.reshape(-1)
    values = flat[:: max(1, flat.numel() // SAMPLED_VALUES) | 1]  # an odd step does not stay on one column of a map
    shares = torch.tensor(SHARES, device=x.device)
    high = (shares * high)[_squared_errors(values, low.expand(len(shares)), shares * high).argmin()]
    low = (shares * low)[_squared_errors(values, shares * low, high.expand(len(shares))).argmin()]
    return low, high


def _squared_errors(values: Tensor, low: Tensor, high: Tensor) -> Tensor:
    """Summed over values (N,), of every range (T,)."""
    scale = ((high - low) / UINT8_MAX).clamp(min=SMALLEST_SCALE)[:, None]
    zero = (-low[:, None] / scale).round()
    rounded = ((values / scale).round() + zero).clamp(0, UINT8_MAX) - zero
    return (rounded * scale - values).square().sum(1)


def rounded_weight(weight: Tensor) -> Tensor:
    """A weight (O, …) in 127 steps to each side of zero, a scale a filter.

    A batch norm behind it scales whole filters, so these are the steps of the folded weight too.
    """
    scale = (weight.detach().flatten(1).abs().amax(1) / INT8_MAX).clamp(min=torch.finfo(torch.float32).tiny)
    zeros = torch.zeros_like(scale, dtype=torch.int32)
    rounded: Tensor = torch.fake_quantize_per_channel_affine(weight, scale, zeros, 0, -INT8_MAX, INT8_MAX)
    return rounded


class RoundedConv2d(nn.Conv2d):
    """A convolution with a rounded weight."""

    def forward(self, x: Tensor) -> Tensor:
        """As `nn.Conv2d`."""
        convolved: Tensor = self._conv_forward(x, rounded_weight(self.weight), self.bias)
        return convolved


class RoundedConv2dSame(RoundedConv2d, Conv2dSame):
    """The same with TensorFlow's padding."""


class RoundedLinear(nn.Linear):
    """A classifier with a rounded weight."""

    def forward(self, x: Tensor) -> Tensor:
        """As `nn.Linear`."""
        return F.linear(x, rounded_weight(self.weight), self.bias)


class RoundedDropout(nn.Dropout):
    """Rounds what the classifier reads, before some of it is dropped, which makes the rest larger."""

    reads: FakeQuantize

    def forward(self, x: Tensor) -> Tensor:
        """As `nn.Dropout`."""
        return super().forward(self.reads(x))


class RoundedSqueezeExcite(SqueezeExcite):
    """A gate whose two layers read and make rounded numbers."""

    pooled: FakeQuantize
    reduced: nn.Module
    activated: FakeQuantize
    expanded: FakeQuantize
    product: FakeQuantize

    def forward(self, x: Tensor) -> Tensor:
        """As `SqueezeExcite`."""
        pooled = self.pooled(F.adaptive_avg_pool2d(x, 1))
        squeezed = self.activated(self.act(self.reduced(self.reduce(pooled))))
        product: Tensor = self.product(x * self.gate(self.expanded(self.expand(squeezed))))
        return product


class RoundedBlock(Block):
    """A residual block whose sum is rounded."""

    sum: FakeQuantize

    def forward(self, x: Tensor) -> Tensor:
        """As `Block`."""
        branch = x
        for name, module in self.named_children():
            branch = branch if name == "sum" else module(branch)
        rounded: Tensor = self.sum(branch.add_(x))
        return rounded


# The class that rounds in place of another: parameters, keys and hooks stay, so that optimizer and checkpoint see
# the network they know.
ROUNDED: dict[type[nn.Module], type[nn.Module]] = {
    nn.Conv2d: RoundedConv2d,
    Conv2dSame: RoundedConv2dSame,
    nn.Linear: RoundedLinear,
}


def fake_quantize(network: Network) -> None:
    """Let a network train and answer as its 8-bit form will, in place.

    Raises:
        ZooError: it is a ResNet, or has a fused block without expansion and with squeeze-and-excitation, whose places
            are others.
    """
    if not isinstance(network, EfficientNet):
        raise ZooError(
            f"{network.variant.name} is no EfficientNet: training for 8 bits knows their blocks alone.",
            "Leave --qat out: `zoo export --precision int8` calibrates any network after training.",
        )
    for name, module in list(network.named_modules()):
        if isinstance(module, Block):
            _round_block(name, module)
        elif isinstance(module, SqueezeExcite):
            _round_gate(name, module)
    _round_layer("stem", network.stem, is_read_rounded=True)
    _put(network.stem, INPUT, before="conv")
    _round_layer("head", network.head, is_read_rounded=False)  # a mean is what reads it
    network.dropout.__class__ = RoundedDropout
    network.dropout.add_module("reads", FakeQuantize(POOLED))
    for module in network.modules():
        module.__class__ = ROUNDED.get(type(module), type(module))


def _round_block(name: str, block: Block) -> None:
    children = dict(block.named_children())
    following = list(children.values())[1:]
    if isinstance(next(iter(children.values())), SqueezeExcite):
        raise ZooError(
            f"{name} begins with squeeze-and-excitation: training for 8 bits does not know such a block.",
            "Leave --qat out, or give it an expand_ratio above 1.",
        )
    for (part, layer), after in zip(children.items(), [*following, None], strict=True):
        if isinstance(layer, ConvNormAct):
            _round_layer(f"{name}.{part}", layer, is_read_rounded=not isinstance(after, SqueezeExcite))
    if block.residual:
        block.__class__ = RoundedBlock
        block.add_module("sum", FakeQuantize(name))


def _round_layer(name: str, layer: ConvNormAct, *, is_read_rounded: bool) -> None:
    """Round what a convolution makes: with a ReLU what that makes, which costs nothing there, else before it."""
    activation = getattr(layer, "act", None)
    if activation is None or _is_smooth(activation):
        _put(layer, f"{name}.conv", after="norm")
    if activation is not None and (is_read_rounded or not _is_smooth(activation)):
        _put(layer, f"{name}.act", after="act")


def _round_gate(name: str, gate: SqueezeExcite) -> None:
    smooth = _is_smooth(gate.act)
    gate.__class__ = RoundedSqueezeExcite
    gate.add_module("pooled", FakeQuantize(f"{name}.{SUFFIX_OF_POOLED}"))
    gate.add_module("reduced", FakeQuantize(f"{name}.reduce") if smooth else nn.Identity())
    gate.add_module("activated", FakeQuantize(f"{name}.act"))
    gate.add_module("expanded", FakeQuantize(f"{name}.expand"))
    gate.add_module("product", FakeQuantize(name))


def _is_smooth(activation: nn.Module) -> bool:
    """SiLU, which is two nodes of a graph; a ReLU is part of the convolution before it."""
    return isinstance(activation, nn.SiLU)


def _put(layer: ConvNormAct, point: str, *, after: str = "", before: str = "") -> None:
    """Put a rounding into the sequence of a layer, behind or before one of its parts."""
    parts = list(layer.named_children())
    place = [name for name, _ in parts].index(after or before) + bool(after)
    parts.insert(place, (f"rounded_{after or before}", FakeQuantize(point)))
    for name, _ in list(layer.named_children()):
        delattr(layer, name)
    for name, part in parts:
        layer.add_module(name, part)


def roundings(network: nn.Module) -> Iterator[tuple[str, FakeQuantize]]:
    """Every rounding of activations, with the prefix of its keys."""
    return ((f"{name}.", module) for name, module in network.named_modules() if isinstance(module, FakeQuantize))


def ranges_of(network: Network) -> dict[str, tuple[float, float]]:
    """The ranges (low, high) that were learned, by point.

    Raises:
        ZooError: some were not: the network never saw a batch in training.
    """
    found = {module.point: (module.low.item(), module.high.item()) for _, module in roundings(network)}
    if missing := [point for point, (low, high) in found.items() if not high > low]:
        raise ZooError(
            f"No batch was seen while {missing[0]} trained, and {len(missing) - 1} others: there are no ranges.",
            "Let at least one stage train all layers: --set stages.all.freeze_backbone=false.",
        )
    return found


def float_state(network: Network, state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """What a network without rounding loads, of the state of one that may have it."""
    prefixes = tuple(prefix for prefix, _ in roundings(network))
    return {key: value for key, value in state.items() if not (prefixes and key.startswith(prefixes))}
