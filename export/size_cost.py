"""Owns what an input size costs: multiply-adds beside those at the weights' own size, and what accuracy is known."""

from __future__ import annotations

import shlex
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from zoo.model.counts import count_macs
from zoo.model.spec import Variant
from zoo.rows import Count, Row

# What provenance calls an accuracy, the best judge of unseen pictures first, and people.
ACCURACIES = {
    "test_top1": "test top-1",
    "test_map": "test mAP",
    "val_top1": "val top-1",
    "val_map": "val mAP",
    "published_top1": "published top-1",
}


@dataclass(frozen=True, kw_only=True)
class SizeCost(Row):
    """The MACs of one picture at the size that was exported, and at the weights' own."""

    image_size: Count
    macs: Count
    own_size: Count
    own_macs: Count

    def summary(self) -> str:
        """What leaving the own size costs in multiply-adds."""
        return (
            f"At {self.image_size} px a picture takes {self.macs / 1e6:,.4g} MMACs, "
            f"{self.macs / self.own_macs:.2f} × the {self.own_macs / 1e6:,.4g} at {self.own_size} px, the weights' own "
            "size."
        )

    def accuracy_summary(self, artifact: str, accuracy: str) -> str:
        """What it costs of the accuracy of trained weights; `accuracy` is as `recorded_accuracy` has it."""
        there = f"{accuracy} is of {self.own_size} px" if accuracy else f"none is recorded at {self.own_size} px either"
        evaluate = shlex.join(["zoo", "evaluate", artifact])
        return f"What it costs in accuracy is not known: {there}; `{evaluate} --data …` measures it."


def size_cost(variant: Variant, image_size: int, own_size: int, *, num_classes: int) -> SizeCost:
    """Count what `variant` costs at a size of so many pixels, and at its weights' own."""
    macs, own_macs = (count_macs(variant, size, num_classes) for size in (image_size, own_size))
    return SizeCost(image_size=image_size, macs=macs, own_size=own_size, own_macs=own_macs)


def recorded_accuracy(provenance: Mapping[str, Any]) -> str:
    """The accuracy a checkpoint's provenance records, as “test top-1 93.2 %”; "" where it records none."""
    for name, words in ACCURACIES.items():
        if isinstance(share := provenance.get(name), int | float):
            return f"{words} {share:.1%}"
    return ""
