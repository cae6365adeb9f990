"""Owns what a network and its input are, as rows; the networks themselves are in `variants.py`."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Annotated, Any, Literal, Self

from zoo.errors import RowError
from zoo.rows import Matching, Row, Share, Some, Text, Within

Operator = Literal["mbconv", "fused_mbconv", "bottleneck"]
Activation = Literal["silu", "relu6", "relu"]
Padding = Literal["same", "symmetric"]
Interpolation = Literal["bilinear", "bicubic"]
Resize = Literal["squash", "crop"]


ChannelCount = Annotated[int, Within(1, 8192)]
ImageSize = Annotated[int, Within(16, 4096)]  # pixels a side
DropProb = Annotated[float, Within(0, 0.95)]
ByteValues = tuple[float, float, float]  # one a channel, on the 0…255 scale


@dataclass(frozen=True, kw_only=True)
class Stage(Row):
    """A run of equal blocks; the first one has the stride and changes the number of channels.

    `se_ratio` is the width of the squeeze as a share of the block's *input* channels; 0 means no
    squeeze-and-excitation. A `bottleneck` (ResNet) is narrower inside: its width is `out_channels / expand_ratio`.
    """

    operator: Operator
    kernel_size: Annotated[int, Within(choices=(1, 3, 5, 7))]
    stride: Annotated[int, Within(choices=(1, 2))]
    expand_ratio: Annotated[int, Within(1, 12)]
    out_channels: ChannelCount
    num_layers: Annotated[int, Within(1, 256)]
    se_ratio: Share = 0.0


@dataclass(frozen=True, kw_only=True)
class Preprocessing(Row):
    """How a picture becomes an input. This row travels with the weights, the graph and the passport.

    `squash` resizes the whole picture to a square; `crop` resizes its short side to `resize_size` and keeps the
    centre. `mean` and `std` are on the 0…255 scale, per channel in `color_order`. `color_order` and `antialias` have
    one possible value each: clients in other languages read them, and a file with another value is refused.
    """

    image_size: Annotated[int, Within(4, 4096)]  # the early stages of training are smaller than any network's own size
    resize: Resize = "squash"
    resize_size: Annotated[int, Within(4, 8192)] | None = None
    interpolation: Interpolation = "bilinear"
    mean: Annotated[ByteValues, Within(0, 255)] = (128.0, 128.0, 128.0)
    std: Annotated[ByteValues, Within(above=0, high=255)] = (128.0, 128.0, 128.0)
    color_order: Literal["RGB"] = "RGB"
    antialias: Literal[True] = True

    def at(self, image_size: int) -> Self:
        """Return the same preprocessing for another size; a crop keeps its share of the picture."""
        resize_size = self.resize_size and round(self.resize_size * image_size / self.image_size)
        return replace(self, image_size=image_size, resize_size=resize_size)


@dataclass(frozen=True, kw_only=True)
class Variant(Row):
    """One network of the zoo.

    `id` is its name on the command line, `name` the long one. `dropout` and `stochastic_depth_prob` are the values at
    the end of training; progressive learning starts below them. `max_size` caps the inference resolution (paper §3.3:
    480 px). `head_channels` is 0 where the classifier follows the last stage directly.
    """

    id: Annotated[str, Matching(r"[\w-]+", "letters, digits, - and _")]
    name: Text
    family: Text
    stem_channels: ChannelCount
    stages: Annotated[tuple[Stage, ...], Some()]
    head_channels: Annotated[int, Within(0, 65536)]
    activation: Activation = "silu"
    padding: Padding = "symmetric"
    batch_norm_eps: Annotated[float, Within(above=0, high=1)] = 1e-3
    batch_norm_momentum: Share = 0.1
    dropout: DropProb
    stochastic_depth_prob: DropProb = 0.2
    train_size: ImageSize
    eval_size: ImageSize
    max_size: ImageSize = 480
    preprocessing: Preprocessing
    source: Text

    @property
    def is_resnet(self) -> bool:
        """A ResNet: bottleneck stages behind a 7×7 stem with a max-pool."""
        return any(stage.operator == "bottleneck" for stage in self.stages)

    @property
    def num_features(self) -> int:
        """Number of pooled features that the classifier takes."""
        return self.head_channels or self.stages[-1].out_channels


# The scores (sigmoid) from which on each class is answered, where a picture may have several labels.
Thresholds = tuple[Share, ...] | None


class Card(Row):
    """What the cards of a checkpoint and of an artifact say alike of what is answered; both write their `task` too."""

    classes: tuple[str, ...]
    thresholds: Thresholds

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.thresholds is not None and len(self.thresholds) != len(self.classes):
            raise RowError(
                f"There are {len(self.thresholds)} thresholds for {len(self.classes)} classes.", "Each class has one."
            )

    def to_dict(self) -> dict[str, Any]:
        """Return plain JSON types; of one class a picture they are what earlier versions read too.

        Whoever does not know the fields of several labels must not read such a card, and can read the others as before.
        """
        fields = super().to_dict()
        if self.thresholds is None:
            del fields["thresholds"], fields["task"]
        return fields

    @property
    def task(self) -> str:
        """“multi-label” or “single-label”, for those who read it as JSON."""
        return "single-label" if self.thresholds is None else "multi-label"
