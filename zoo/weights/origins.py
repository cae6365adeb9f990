"""Owns what other projects' weights expect besides their keys: padding, batch-norm epsilon, layout, preprocessing.

One row per project serves import and export of weights. It touches no tensor and reads no file.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from typing import Annotated, Literal

from zoo.errors import ZooError
from zoo.model.spec import Padding, Preprocessing, Variant
from zoo.rows import Row, Text, Within
from zoo.weights.key_styles import GOOGLE, KERAS_V1, KERAS_V2, LUKEMELAS, TIMM, TORCHVISION, KeyStyle

OriginId = Literal["torchvision", "timm", "google", "lukemelas", "keras"]
# PyTorch stores convolutions as (out, in, k, k); TensorFlow as (k, k, in, out), depthwise ones as (k, k, in, 1).
Layout = Literal["pytorch", "tensorflow"]
BATCH_NORM_EPS = 1e-3


@dataclass(frozen=True, kw_only=True)
class Origin(Row):
    """A project whose weights we read, and may write.

    `networks` maps our ids to its own names, and so says which networks it has. `batch_norm_eps` lists the ids whose
    epsilon is not 1e-3. `preprocessing` is what its weights expect where no published row says it. `constructor` is the
    Python call that makes the network for weights converted to it, "" where we convert none. `padding_argument`,
    `eps_argument` and `channels_argument` are added to that call for weights that differ from the project's own, ""
    where it takes no such argument.
    """

    id: OriginId
    networks: Mapping[str, str]
    key_style: Callable[[Variant], KeyStyle]
    padding: Padding
    batch_norm_eps: Mapping[str, Annotated[float, Within(above=0)]] = field(default_factory=dict)
    layout: Layout = "pytorch"
    preprocessing: Callable[[Variant], Preprocessing] = lambda variant: variant.preprocessing
    constructor: str = ""
    padding_argument: str = ""
    eps_argument: str = ""
    channels_argument: str = ""
    source: Text

    def eps_of(self, variant: str) -> float:
        """The batch-norm epsilon of its network for our id `variant`."""
        return self.batch_norm_eps.get(variant, BATCH_NORM_EPS)

    def check_has(self, variant: Variant) -> None:
        """Refuse a network that the project does not have.

        Raises:
            ZooError: lists those it has.
        """
        if variant.id not in self.networks:
            raise ZooError(f"{self.id} has no {variant.id}.", f"It has {', '.join(self.networks)}.")


def short_side_to_size(variant: Variant) -> Preprocessing:
    """The whole short side is kept (lukemelas examples/imagenet/main.py); Lite has its own preprocessing."""
    if variant.family == "EfficientNet-Lite":
        return variant.preprocessing
    return replace(variant.preprocessing, resize_size=variant.preprocessing.image_size)


V1 = tuple(f"b{index}" for index in range(8))
LITE = tuple(f"lite{index}" for index in range(5))
RESNETS = ("resnet50", "resnet152")

TORCHVISION_ORIGIN = Origin(
    id="torchvision",
    networks={id: f"efficientnet_v2_{id}" for id in ("s", "m", "l")}
    | {f"v1-{b}": f"efficientnet_{b}" for b in V1}
    | {id: id for id in RESNETS},
    key_style=lambda variant: TORCHVISION,
    padding="symmetric",
    # Its builders set 1e-3 for V2 and for b5 … b7 only; the others have PyTorch's default.
    batch_norm_eps=dict.fromkeys((*(f"v1-b{index}" for index in range(5)), *RESNETS), 1e-5),
    constructor="torchvision.models.{network}(num_classes={num_classes})",
    eps_argument="norm_layer=partial(torch.nn.BatchNorm2d, eps={eps})",
    source="pytorch/vision torchvision/models/efficientnet.py",
)
TIMM_ORIGIN = Origin(
    id="timm",
    networks={id: f"tf_efficientnetv2_{id}" for id in ("s", "m", "l", "xl", "b0", "b1", "b2", "b3")}
    | {f"v1-{b}": f"tf_efficientnet_{b}" for b in V1}
    | {lite: f"tf_efficientnet_{lite}" for lite in LITE},
    key_style=lambda variant: TIMM,
    padding="same",
    constructor='timm.create_model("{network}", num_classes={num_classes})',
    padding_argument='pad_type=""',
    eps_argument="bn_eps={eps}",
    channels_argument="in_chans={channels}",
    source="huggingface/pytorch-image-models timm/models/efficientnet.py",
)
LUKEMELAS_ORIGIN = Origin(
    id="lukemelas",
    networks={f"v1-{b}": f"efficientnet-{b}" for b in V1} | {lite: f"efficientnet-{lite}" for lite in LITE},
    key_style=lambda variant: LUKEMELAS,
    padding="same",
    preprocessing=short_side_to_size,
    constructor='EfficientNet.from_name("{network}", num_classes={num_classes})',
    eps_argument="batch_norm_epsilon={eps}",
    channels_argument="in_channels={channels}",
    source="lukemelas/EfficientNet-PyTorch; its examples/imagenet/main.py for the preprocessing",
)
KERAS_ORIGIN = Origin(
    id="keras",
    networks={id: f"EfficientNetV2{id.upper()}" for id in ("s", "m", "l", "b0", "b1", "b2", "b3")}
    | {f"v1-{b}": f"EfficientNet{b.upper()}" for b in V1},
    key_style=lambda variant: KERAS_V1 if variant.family == "EfficientNet" else KERAS_V2,
    padding="same",
    layout="tensorflow",
    source="keras-team/keras keras/src/applications/efficientnet_v2.py, efficientnet.py (include_preprocessing)",
)
GOOGLE_ORIGIN = Origin(
    id="google",
    networks={id: f"efficientnetv2-{id}" for id in ("s", "m", "l", "xl", "b0", "b1", "b2", "b3")}
    | {f"v1-{b}": f"efficientnet-{b}" for b in V1}
    | {lite: f"efficientnet-{lite}" for lite in LITE},
    key_style=lambda variant: GOOGLE,
    padding="same",
    layout="tensorflow",
    source="google/automl efficientnetv2; tensorflow/tpu models/official/efficientnet",
)

ORIGINS: dict[str, Origin] = {
    origin.id: origin for origin in (TORCHVISION_ORIGIN, TIMM_ORIGIN, GOOGLE_ORIGIN, LUKEMELAS_ORIGIN, KERAS_ORIGIN)
}
# Weights can be converted to these: they have PyTorch networks of their own.
TARGETS = tuple(origin.id for origin in ORIGINS.values() if origin.constructor)
