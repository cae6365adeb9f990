"""Owns what an artifact promises its clients: which network, which classes, which pictures; it runs nothing."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated

from zoo.model.spec import Card, Preprocessing, Thresholds
from zoo.rows import Some, Text

# Where a graph carries its contract: JSON under this key of the ONNX metadata.
GRAPH_KEY = "zoo"
GRAPH_FORMAT = "zoo-graph-1"


@dataclass(frozen=True, kw_only=True)
class Contract(Card):
    """What a client must know of an artifact: which network, which classes, which pictures it takes.

    `thresholds` (K,), if a picture may have several labels, are the scores, the sigmoid of the logits, from which on
    each class is answered; without them a picture has one class, and scores are the softmax.
    """

    written_too = ("task",)

    model: Text
    classes: Annotated[tuple[str, ...], Some()]
    preprocessing: Preprocessing
    thresholds: Thresholds = None
