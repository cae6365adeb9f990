"""Owns the table of networks, one row each, to be compared with the papers' tables; it builds nothing.

Sources, by the names that the rows use:
    V2   Tan & Le, "EfficientNetV2" (ICML 2021, arXiv 2104.00298v3), Table 4, as released in google/automl
         `efficientnetv2/effnetv2_configs.py`. Where paper v1 and code differ, its author says that the code is right
         (google/automl#999): 256 channels in stage 6 of S, head 1280.
    V1   Tan & Le, "EfficientNet" (ICML 2019), Table 1, as released in tensorflow/tpu `models/official/efficientnet`.
    Lite tensorflow/tpu `models/official/efficientnet/lite`: no squeeze-and-excitation, ReLU6, stem and head not scaled.
"""

from __future__ import annotations

from dataclasses import replace
from functools import partial

from zoo.errors import ZooError, unknown_name
from zoo.model.scaling import scale
from zoo.model.spec import Operator, Preprocessing, Stage, Variant


def stage(
    operator: Operator,
    out_channels: int,
    num_layers: int,
    *,
    stride: int,
    expand_ratio: int,
    kernel_size: int = 3,
    se_ratio: float = 0.0,
) -> Stage:
    """A row in the order of the papers' tables."""
    return Stage(
        operator=operator,
        kernel_size=kernel_size,
        stride=stride,
        expand_ratio=expand_ratio,
        out_channels=out_channels,
        num_layers=num_layers,
        se_ratio=se_ratio,
    )


fused = partial(stage, "fused_mbconv")  # without squeeze-and-excitation, as in V2 Table 4 and in the released code
mbconv = partial(stage, "mbconv", se_ratio=0.25)
bottleneck = partial(stage, "bottleneck", expand_ratio=4)  # a quarter as wide inside as its output

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
V2_M = replace(
    V2_S,
    id="m",
    name="efficientnetv2_m",
    stages=(
        fused(24, 3, stride=1, expand_ratio=1),
        fused(48, 5, stride=2, expand_ratio=4),
        fused(80, 5, stride=2, expand_ratio=4),
        mbconv(160, 7, stride=2, expand_ratio=4),
        mbconv(176, 14, stride=1, expand_ratio=6),
        mbconv(304, 18, stride=2, expand_ratio=6),
        mbconv(512, 5, stride=1, expand_ratio=6),
    ),
    dropout=0.3,
    train_size=384,
    eval_size=480,
    preprocessing=Preprocessing(image_size=480),
    source="google/automl efficientnetv2/effnetv2_configs.py",
)
V2_L = replace(
    V2_M,
    id="l",
    name="efficientnetv2_l",
    stem_channels=32,
    stages=(
        fused(32, 4, stride=1, expand_ratio=1),
        fused(64, 7, stride=2, expand_ratio=4),
        fused(96, 7, stride=2, expand_ratio=4),
        mbconv(192, 10, stride=2, expand_ratio=4),
        mbconv(224, 19, stride=1, expand_ratio=6),
        mbconv(384, 25, stride=2, expand_ratio=6),
        mbconv(640, 7, stride=1, expand_ratio=6),
    ),
    dropout=0.4,
)
V2_XL = replace(
    V2_L,
    id="xl",
    name="efficientnetv2_xl",
    stages=(
        fused(32, 4, stride=1, expand_ratio=1),
        fused(64, 8, stride=2, expand_ratio=4),
        fused(96, 8, stride=2, expand_ratio=4),
        mbconv(192, 16, stride=2, expand_ratio=4),
        mbconv(256, 24, stride=1, expand_ratio=6),
        mbconv(512, 32, stride=2, expand_ratio=6),
        mbconv(640, 8, stride=1, expand_ratio=6),
    ),
    eval_size=512,
    max_size=512,  # the released code evaluates XL beyond the paper's own cap of 480
    preprocessing=Preprocessing(image_size=512),
)

# ImageNet statistics on the 0…255 scale (0.485, 0.456, 0.406 and 0.229, 0.224, 0.225 of it).
IMAGENET_MEAN = (123.675, 116.28, 103.53)
IMAGENET_STD = (58.395, 57.12, 57.375)


def centre_crop(image_size: int) -> Preprocessing:
    """The legacy pipeline of V1 and V2-B: centre crop of size / (size + 32), bicubic, ImageNet statistics (automl)."""
    return Preprocessing(
        image_size=image_size,
        resize="crop",
        resize_size=image_size + 32,
        interpolation="bicubic",
        mean=IMAGENET_MEAN,
        std=IMAGENET_STD,
    )


# V2-B0: the B family is this network scaled, with the rounding of the V2 code, which has no 90 % rule.
V2_B0 = replace(
    V2_S,
    id="b0",
    name="efficientnetv2_b0",
    stem_channels=32,
    stages=(
        fused(16, 1, stride=1, expand_ratio=1),
        fused(32, 2, stride=2, expand_ratio=4),
        fused(48, 2, stride=2, expand_ratio=4),
        mbconv(96, 3, stride=2, expand_ratio=4),
        mbconv(112, 5, stride=1, expand_ratio=6),
        mbconv(192, 8, stride=2, expand_ratio=6),
    ),
    train_size=192,
    eval_size=224,
    preprocessing=centre_crop(224),
    source="google/automl efficientnetv2/effnetv2_configs.py",
)

# V1 Table 1; the strides of stages 4 and 5 are those of the code (its author in tensorflow/tpu#383).
V1_B0 = Variant(
    id="v1-b0",
    name="efficientnet_b0",
    family="EfficientNet",
    stem_channels=32,
    stages=(
        mbconv(16, 1, stride=1, expand_ratio=1),
        mbconv(24, 2, stride=2, expand_ratio=6),
        mbconv(40, 2, stride=2, expand_ratio=6, kernel_size=5),
        mbconv(80, 3, stride=2, expand_ratio=6),
        mbconv(112, 3, stride=1, expand_ratio=6, kernel_size=5),
        mbconv(192, 4, stride=2, expand_ratio=6, kernel_size=5),
        mbconv(320, 1, stride=1, expand_ratio=6),
    ),
    head_channels=1280,
    dropout=0.2,
    train_size=224,
    eval_size=224,
    max_size=600,
    preprocessing=centre_crop(224),
    source="V1 Table 1; tensorflow/tpu models/official/efficientnet",
)

# Lite: no squeeze-and-excitation, ReLU6, (x − 127) / 128.
LITE_0 = replace(
    V1_B0,
    id="lite0",
    name="efficientnet_lite0",
    family="EfficientNet-Lite",
    stages=tuple(replace(stage, se_ratio=0) for stage in V1_B0.stages),
    activation="relu6",
    max_size=480,
    preprocessing=replace(centre_crop(224), mean=(127.0, 127.0, 127.0), std=(128.0, 128.0, 128.0)),
    source="tensorflow/tpu models/official/efficientnet/lite",
)


_v2 = partial(scale, V2_B0, keep_90_percent=False)
_v1 = partial(scale, V1_B0, keep_90_percent=True)
_lite = partial(scale, LITE_0, keep_90_percent=True, fixed_ends=True)

V1_B4 = _v1("v1-b4", width=1.4, depth=1.8, train_size=380, eval_size=380, dropout=0.4)


def _b4_fused(last: int, kernel_sizes: dict[int, int], params: str) -> Variant:
    """Table 3 of V2: B4 with Fused-MBConv in stages 1 … `last`.

    The paper states neither the kernel nor the squeeze-and-excitation of the fused blocks. Here they keep their
    squeeze-and-excitation, and have the kernels that come nearest to the paper's parameter counts.
    """
    stages = tuple(
        replace(stage, operator="fused_mbconv", kernel_size=kernel_sizes.get(index, 3)) if index <= last else stage
        for index, stage in enumerate(V1_B4.stages, start=1)
    )
    return replace(
        V1_B4,
        id=f"v1-b4-fused1{last}",
        name=f"efficientnet_b4_fused1{last}",
        stages=stages,
        source=f"V2 Table 3 (“Fused stage1-{last}”, {params} M), which states neither kernels nor SE of fused blocks",
    )


# The baselines of V2 Table 12, made of torchvision's blocks (with the stride in the 3×3 convolution).
RESNET_50 = Variant(
    id="resnet50",
    name="resnet50",
    family="ResNet",
    stem_channels=64,
    stages=tuple(
        bottleneck(channels, layers, stride=stride)
        for channels, layers, stride in ((256, 3, 1), (512, 4, 2), (1024, 6, 2), (2048, 3, 2))
    ),
    head_channels=0,
    activation="relu",
    batch_norm_eps=1e-5,
    dropout=0.2,
    train_size=224,
    eval_size=224,
    preprocessing=replace(centre_crop(224), interpolation="bilinear"),
    source="He et al. 2016, as pytorch/vision torchvision/models/resnet.py; V2 Table 12",
)
RESNET_152 = replace(
    RESNET_50,
    id="resnet152",
    name="resnet152",
    stages=tuple(
        replace(stage, num_layers=layers) for stage, layers in zip(RESNET_50.stages, (3, 8, 36, 3), strict=True)
    ),
)


def check_resnet(variant: Variant) -> None:
    """Refuse a row with bottleneck stages that torchvision's class cannot build: only the number of layers is free.

    Raises:
        ZooError: says what the row must be.
    """
    published = zip(RESNET_50.stages, variant.stages, strict=False)
    stages = tuple(replace(stage, num_layers=own.num_layers) for stage, own in published)
    ends = [
        (row.stem_channels, row.head_channels, row.activation, row.padding, row.stages)
        for row in (variant, replace(RESNET_50, stages=stages))
    ]
    if ends[0] != ends[1] or len(stages) != len(RESNET_50.stages):
        raise ZooError(
            f"The row {variant.id} has bottleneck stages but is not one of torchvision's ResNets.",
            "Only num_layers of resnet50's row may differ: stem 64, no head, ReLU, symmetric padding; stages of kernel "
            "3, strides 1 2 2 2, expand ratio 4, channels 256 512 1024 2048, no squeeze-and-excitation.",
        )


# For tests and a first try: three stages, every kind of block, 32 px.
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
    V2_M,
    V2_L,
    V2_XL,
    V2_B0,
    _v2("b1", width=1.0, depth=1.1, train_size=192, eval_size=240, dropout=0.2),
    _v2("b2", width=1.1, depth=1.2, train_size=208, eval_size=260, dropout=0.3),
    _v2("b3", width=1.2, depth=1.4, train_size=240, eval_size=300, dropout=0.3),
    V1_B0,
    _v1("v1-b1", width=1.0, depth=1.1, train_size=240, eval_size=240, dropout=0.2),
    _v1("v1-b2", width=1.1, depth=1.2, train_size=260, eval_size=260, dropout=0.3),
    _v1("v1-b3", width=1.2, depth=1.4, train_size=300, eval_size=300, dropout=0.3),
    V1_B4,
    _v1("v1-b5", width=1.6, depth=2.2, train_size=456, eval_size=456, dropout=0.4),
    _v1("v1-b6", width=1.8, depth=2.6, train_size=528, eval_size=528, dropout=0.5),
    _v1("v1-b7", width=2.0, depth=3.1, train_size=600, eval_size=600, dropout=0.5),
    _b4_fused(3, {}, "20.0"),
    _b4_fused(5, {5: 5}, "43.4"),
    _b4_fused(7, {5: 5, 6: 5}, "132.0"),
    LITE_0,
    _lite("lite1", width=1.0, depth=1.1, train_size=240, eval_size=240, dropout=0.2),
    _lite("lite2", width=1.1, depth=1.2, train_size=260, eval_size=260, dropout=0.3),
    _lite("lite3", width=1.2, depth=1.4, train_size=280, eval_size=280, dropout=0.3),
    _lite("lite4", width=1.4, depth=1.8, train_size=300, eval_size=300, dropout=0.3),
    replace(
        V2_S, id="s-relu6", name="efficientnetv2_s_relu6", activation="relu6", source="S with ReLU6 (automl g3doc)"
    ),
    RESNET_50,
    RESNET_152,
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
