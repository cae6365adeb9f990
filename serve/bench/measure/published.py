"""Owns what others published of these networks: accuracy on ImageNet and time on GPUs, each with its source."""

from __future__ import annotations

from dataclasses import dataclass

from zoo.rows import Count, Positive, Row, Text

README = "google/automl efficientnetv2/README.md"
TPU = "tensorflow/tpu models/official/efficientnet/README.md, AutoAugment"
LITE = "tensorflow/tpu models/official/efficientnet/lite/README.md"
TORCHVISION = "pytorch/vision torchvision/models/resnet.py, IMAGENET1K_V2"


@dataclass(frozen=True, kw_only=True)
class PublishedAccuracy(Row):
    """Top-1 on ImageNet's validation pictures, percent, of weights trained on ImageNet-1k alone, at the usual size."""

    model: Text
    top1_percent: Positive
    source: Text


@dataclass(frozen=True, kw_only=True)
class PublishedTime(Row):
    """Milliseconds of a batch, as measured elsewhere; where pictures a second were published, what follows of them."""

    model: Text
    setup: Text
    image_size: Count
    batch_size: Count
    ms: Positive
    source: Text


@dataclass(frozen=True, kw_only=True)
class PublishedPair(Row):
    """A network of V1 and the one of V2 that is about as accurate, and how many times as fast that is elsewhere."""

    old: Text
    new: Text
    speedup: Positive


# EfficientNetV2, arXiv 2104.00298v3, Table 11: V100, fp16, batch 128.
PAIRS_SOURCE = "Table 11 of the paper, V100, batch 128"
PAIRS = tuple(
    PublishedPair(old=old, new=new, speedup=speedup)
    for old, new, speedup in (("v1-b1", "b0", 2.1), ("v1-b2", "b1", 2.0), ("v1-b4", "b3", 2.7), ("v1-b5", "s", 3.1))
)


@dataclass(frozen=True, kw_only=True)
class PublishedTraining(Row):
    """Pictures a second that a device trained, one size and one batch; None where they did not fit into its memory."""

    model: Text
    device: Text
    image_size: Count
    batch_size: Count
    pictures_per_second: Positive | None


# EfficientNetV2, arXiv 2104.00298v3, Table 2: EfficientNet-B6, a core of a TPUv3 and a V100.
TRAINING_SOURCE = "Table 2 of the paper"
TRAINING = tuple(
    PublishedTraining(model="v1-b6", device=device, image_size=size, batch_size=batch, pictures_per_second=rate)
    for device, size, batch, rate in (
        ("TPUv3 core", 380, 32, 76.0),
        ("TPUv3 core", 380, 128, 93.0),
        ("TPUv3 core", 512, 32, 42.0),
        ("TPUv3 core", 512, 128, None),
        ("V100", 380, 12, 37.0),
        ("V100", 380, 24, 52.0),
        ("V100", 512, 12, 29.0),
        ("V100", 512, 24, None),
    )
)

_TOP1: tuple[tuple[str, dict[str, float]], ...] = (
    (README, {"b0": 78.7, "b1": 79.8, "b2": 80.5, "b3": 82.1, "s": 83.9, "m": 85.2, "l": 85.7}),
    (
        TPU,
        {
            "v1-b0": 77.1,
            "v1-b1": 79.1,
            "v1-b2": 80.1,
            "v1-b3": 81.6,
            "v1-b4": 82.9,
            "v1-b5": 83.6,
            "v1-b6": 84.0,
            "v1-b7": 84.3,
        },
    ),
    (LITE, {"lite0": 75.1, "lite1": 76.7, "lite2": 77.6, "lite3": 79.8, "lite4": 81.5}),
    (TORCHVISION, {"resnet50": 80.858, "resnet152": 82.284}),
)
ACCURACIES = {
    model: PublishedAccuracy(model=model, top1_percent=top1, source=source)
    for source, rows in _TOP1
    for model, top1 in rows.items()
}

# Sides in pixels that these were measured at: the networks' own.
_SIZES = {
    **{"b0": 224, "b1": 240, "b2": 260, "b3": 300, "s": 384, "m": 480, "l": 480},
    **{"v1-b0": 224, "v1-b1": 240, "v1-b2": 260, "v1-b3": 300, "v1-b4": 380},
    **{"v1-b5": 456, "v1-b6": 528, "v1-b7": 600},
}
PAPER_SETUP = "V100, fp16, timm, batch 16"
A100_SETUP = "A100, fp16, TensorRT 8, batch 1"
TIMM_SETUP = "RTX 4090, AMP, timm, per picture of large batches"
_PAPER_MS = {
    "v1-b3": 19.0,
    "v1-b4": 30.0,
    "v1-b5": 60.0,
    "v1-b6": 97.0,
    "v1-b7": 170.0,
    "s": 24.0,
    "m": 57.0,
    "l": 98.0,
}
_A100_MS = {"s": 1.8, "v1-b4": 2.2, "m": 3.1, "l": 4.9, "v1-b7": 7.1}
_TIMM_PER_SECOND = {
    **{"b0": 13704.0, "b1": 8621.0, "b2": 6194.0, "b3": 3732.0, "s": 1634.0, "m": 636.0, "l": 358.0},
    **{"v1-b0": 8542.0, "v1-b1": 5299.0, "v1-b2": 4100.0, "v1-b3": 2361.0, "v1-b4": 990.0},
    **{"v1-b5": 518.0, "v1-b6": 303.0, "v1-b7": 182.0},
}


def _times(setup: str, source: str, batch_size: int, ms: dict[str, float]) -> list[PublishedTime]:
    return [
        PublishedTime(
            model=model, setup=setup, image_size=_SIZES[model], batch_size=batch_size, ms=value, source=source
        )
        for model, value in ms.items()
    ]


TIMES = (
    *_times(PAPER_SETUP, "EfficientNetV2, arXiv 2104.00298v3, Table 7", 16, _PAPER_MS),
    *_times(
        A100_SETUP, "google/automl efficientnetv2/g3doc, NVIDIA TensorRT 8.0, CUDA graph, no transfers", 1, _A100_MS
    ),
    *_times(
        TIMM_SETUP,
        "huggingface/pytorch-image-models results/benchmark-infer-amp-nhwc-*-rtx4090.csv",
        1,
        {model: 1000 / rate for model, rate in _TIMM_PER_SECOND.items()},
    ),
)
SETUPS = tuple(dict.fromkeys(row.setup for row in TIMES))
