"""Owns what an artifact promises its clients: which network, which classes, which pictures; it runs nothing."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, Any

from zoo.model.spec import Preprocessing, Thresholds, check_thresholds, task_of, without_thresholds
from zoo.rows import Row, Some, Text

# Where a graph carries its contract: JSON under this key of the ONNX metadata.
GRAPH_KEY = "zoo"
GRAPH_FORMAT = "zoo-graph-1"


@dataclass(frozen=True, kw_only=True)
class Contract(Row):
    """What a client must know of an artifact: which network, which classes, which pictures it takes.

    `thresholds` (K,), if a picture may have several labels, are the scores, the sigmoid of the logits, from which on
    each class is answered; without them a picture has one class, and scores are the softmax.
    """

    written_too = ("task",)

    model: Text
    classes: Annotated[tuple[str, ...], Some()]
    preprocessing: Preprocessing
    thresholds: Thresholds = None

    def __post_init__(self) -> None:
        super().__post_init__()
        check_thresholds(self.thresholds, self.classes)

    def to_dict(self) -> dict[str, Any]:
        """Return plain JSON types; of one class a picture they are what earlier versions read too."""
        return without_thresholds(super().to_dict())

    @property
    def task(self) -> str:
        """“multi-label” or “single-label”, for those who read it as JSON."""
        return task_of(self.thresholds)
