"""Owns what a network and its input are, as rows; the networks themselves are in `variants.py`."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Annotated, Any, Literal, Self

from zoo.errors import RowError
from zoo.rows import Matching, Row, Share, Some, Text, Within
from zoo.wording import joined

Operator = Literal["mbconv", "fused_mbconv", "bottleneck"]
Activation = Literal["silu", "relu6", "relu"]
Padding = Literal["same", "symmetric"]
Interpolation = Literal["bilinear", "bicubic"]
Resize = Literal["squash", "crop"]


ChannelCount = Annotated[int, Within(1, 8192)]
ImageSize = Annotated[int, Within(16, 4096)]  # pixels a side
DropProb = Annotated[float, Within(0, 0.95)]
ByteValues = tuple[float, ...]  # one a plane, on the 0…255 scale
ColorOrder = Literal["RGB", "grey", "RGBA"]
# What the planes of a picture are called, by their number; RGBA is any picture of four, whatever the last one holds.
COLOR_ORDERS: dict[int, ColorOrder] = {1: "grey", 3: "RGB", 4: "RGBA"}
RGB = 3
Channels = Annotated[int, Within(choices=tuple(COLOR_ORDERS))]


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
    centre. `mean` and `std` are on the 0…255 scale, per plane in `color_order`; how many planes a picture has is said
    here and nowhere else. `color_order` must name as many, and `antialias` has one possible value: clients in other
    languages read them, and a file with another value is refused.
    """

    image_size: Annotated[int, Within(4, 4096)]  # the early stages of training are smaller than any network's own size
    resize: Resize = "squash"
    resize_size: Annotated[int, Within(4, 8192)] | None = None
    interpolation: Interpolation = "bilinear"
    mean: tuple[Annotated[float, Within(0, 255)], ...] = (128.0, 128.0, 128.0)
    std: tuple[Annotated[float, Within(above=0, high=255)], ...] = (128.0, 128.0, 128.0)
    color_order: ColorOrder = "RGB"
    antialias: Literal[True] = True

    def __post_init__(self) -> None:
        super().__post_init__()
        if COLOR_ORDERS.get(len(self.mean)) != self.color_order or len(self.std) != len(self.mean):
            raise RowError(
                f"color_order is {self.color_order} with {len(self.mean)} values of mean and {len(self.std)} of std.",
                "Each plane has one of both: "
                + joined(f"{order} has {count}" for count, order in COLOR_ORDERS.items())
                + ".",
            )

    @property
    def channels(self) -> int:
        """Number of planes of a picture: 1, 3 or 4."""
        return len(self.mean)

    @property
    def planes(self) -> str:
        """“1 plane (grey)”, “4 planes (RGBA)”."""
        return f"{self.channels} plane{'s' * (self.channels > 1)} ({self.color_order})"

    def with_channels(self, channels: int) -> Self:
        """Return the same preprocessing for pictures of another number of planes.

        The colours keep their values. A plane that is no colour, grey or the fourth, gets the mean of theirs:
        ImageNet's (123.675, 116.28, 103.53) become 114.495. It is a rule, and measures nothing: a batch norm follows.
        """
        if channels == self.channels:
            return self
        mean, std = _for_planes(self.mean, channels), _for_planes(self.std, channels)
        return replace(self, mean=mean, std=std, color_order=COLOR_ORDERS[channels])

    def at(self, image_size: int) -> Self:
        """Return the same preprocessing for another size; a crop keeps its share of the picture."""
        resize_size = self.resize_size and round(self.resize_size * image_size / self.image_size)
        return replace(self, image_size=image_size, resize_size=resize_size)


def _for_planes(values: ByteValues, channels: int) -> ByteValues:
    colours = values[:RGB] if len(values) > 1 else values * RGB
    other = sum(colours) / RGB
    return {1: (other,), 3: colours, 4: (*colours, other)}[channels]


@dataclass(frozen=True, kw_only=True)
class Variant(Row):
    """One network of the zoo.

    `id` is its name on the command line, `name` the long one. `dropout` and `stochastic_depth_prob` are the values at
    the end of training; progressive learning starts below them. `max_size` caps the inference resolution (paper §3.3:
    480 px). `head_channels` is 0 where the classifier follows the last stage directly. Its stem takes the planes of
    `preprocessing`.
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
    def channels(self) -> int:
        """Number of planes of the pictures it takes."""
        return self.preprocessing.channels

    def with_channels(self, channels: int) -> Self:
        """Return the same network for pictures of another number of planes: its stem and preprocessing change."""
        return replace(self, preprocessing=self.preprocessing.with_channels(channels))

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
