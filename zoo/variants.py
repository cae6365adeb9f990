"""Owns the table of networks, one row each, to be held beside the papers' tables; it builds nothing.

Sources, by the marks used in the rows:
    V2   Tan & Le, "EfficientNetV2" (ICML 2021, arXiv 2104.00298v3), Table 4, as released in google/automl
         `efficientnetv2/effnetv2_configs.py`. Where paper v1 and code differ, its author calls the code the truth
         (google/automl#999): 256 channels in stage 6 of S, head 1280.
    V1   Tan & Le, "EfficientNet" (ICML 2019), Table 1, as released in tensorflow/tpu `models/official/efficientnet`.
    Lite tensorflow/tpu `models/official/efficientnet/lite`: no squeeze-and-excitation, ReLU6, stem and head not scaled.
"""

from __future__ import annotations

from dataclasses import replace

from zoo.errors import unknown_name
from zoo.spec import Preprocessing, Stage, Variant, round_channels, round_layers


def fused(out_channels: int, num_layers: int, *, stride: int, expand_ratio: int, kernel_size: int = 3) -> Stage:
    """Row of a Fused-MBConv stage (no squeeze-and-excitation in Table 4 nor in the released code)."""
    return Stage(
        operator="fused_mbconv",
        kernel_size=kernel_size,
        stride=stride,
        expand_ratio=expand_ratio,
        out_channels=out_channels,
        num_layers=num_layers,
    )


def mbconv(
    out_channels: int, num_layers: int, *, stride: int, expand_ratio: int, kernel_size: int = 3, se_ratio: float = 0.25
) -> Stage:
    """Row of an MBConv stage."""
    return Stage(
        operator="mbconv",
        kernel_size=kernel_size,
        stride=stride,
        expand_ratio=expand_ratio,
        out_channels=out_channels,
        num_layers=num_layers,
        se_ratio=se_ratio,
    )


# V2, Table 4: the whole picture is squashed to a square at 320 px and above, (x − 128) / 128 (automl preprocessing.py).
V2_S = Variant(
    id="s",
    name="efficientnetv2_s",
    family="EfficientNetV2",
    stem_channels=24,
    stages=(
        fused(24, 2, stride=1, expand_ratio=1),
        fused(48, 4, stride=2, expand_ratio=4),
        fused(64, 4, stride=2, expand_ratio=4),
        mbconv(128, 6, stride=2, expand_ratio=4),
        mbconv(160, 9, stride=1, expand_ratio=6),
        mbconv(256, 15, stride=2, expand_ratio=6),
    ),
    head_channels=1280,
    dropout=0.2,
    train_size=300,
    eval_size=384,
    preprocessing=Preprocessing(image_size=384),
    source="V2 Table 4; google/automl efficientnetv2/effnetv2_configs.py",
)

# Lite, unscaled: the V1 blocks without squeeze-and-excitation.
LITE_0 = Variant(
    id="lite0",
    name="efficientnet_lite0",
    family="EfficientNet-Lite",
    stem_channels=32,
    stages=(
        mbconv(16, 1, stride=1, expand_ratio=1, se_ratio=0),
        mbconv(24, 2, stride=2, expand_ratio=6, se_ratio=0),
        mbconv(40, 2, stride=2, expand_ratio=6, kernel_size=5, se_ratio=0),
        mbconv(80, 3, stride=2, expand_ratio=6, se_ratio=0),
        mbconv(112, 3, stride=1, expand_ratio=6, kernel_size=5, se_ratio=0),
        mbconv(192, 4, stride=2, expand_ratio=6, kernel_size=5, se_ratio=0),
        mbconv(320, 1, stride=1, expand_ratio=6, se_ratio=0),
    ),
    head_channels=1280,
    activation="relu6",
    dropout=0.2,
    train_size=224,
    eval_size=224,
    preprocessing=Preprocessing(
        image_size=224, resize="crop", resize_size=256, interpolation="bicubic", mean=(127.0, 127.0, 127.0)
    ),
    source="tensorflow/tpu models/official/efficientnet/lite",
)


def scale_lite(id: str, *, width: float, depth: float, image_size: int, dropout: float) -> Variant:
    """Scale Lite0: stem, head and the number of layers of the first and last stage stay as they are."""
    last = len(LITE_0.stages) - 1
    stages = tuple(
        replace(
            stage,
            out_channels=round_channels(stage.out_channels * width, keep_90_percent=True),
            num_layers=stage.num_layers if index in (0, last) else round_layers(stage.num_layers * depth),
        )
        for index, stage in enumerate(LITE_0.stages)
    )
    return replace(
        LITE_0,
        id=id,
        name=f"efficientnet_{id}",
        stages=stages,
        dropout=dropout,
        train_size=image_size,
        eval_size=image_size,
        preprocessing=replace(LITE_0.preprocessing, image_size=image_size, resize_size=image_size + 32),
    )


# For tests and for a first look: two stages, one of each operator, 8 channels, 32 px.
TINY = Variant(
    id="tiny",
    name="efficientnetv2_tiny",
    family="EfficientNetV2",
    stem_channels=8,
    stages=(
        fused(8, 1, stride=1, expand_ratio=1),
        fused(8, 2, stride=2, expand_ratio=2),
        mbconv(16, 2, stride=2, expand_ratio=2),
    ),
    head_channels=32,
    dropout=0.1,
    train_size=32,
    eval_size=40,
    preprocessing=Preprocessing(image_size=40),
    source="this project: the smallest network with every kind of block",
)

VARIANTS: tuple[Variant, ...] = (
    V2_S,
    LITE_0,
    scale_lite("lite1", width=1.0, depth=1.1, image_size=240, dropout=0.2),
    scale_lite("lite2", width=1.1, depth=1.2, image_size=260, dropout=0.3),
    TINY,
)


def find_variant(id: str) -> Variant:
    """Look a network up by its id or its long name.

    Raises:
        UnknownNameError: there is none; names the nearest.
    """
    for variant in VARIANTS:
        if id in (variant.id, variant.name):
            return variant
    raise unknown_name("model", id, [variant.id for variant in VARIANTS], "`zoo list` shows all.")
