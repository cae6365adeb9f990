"""Owns what an artifact promises its clients: which network, which classes, which pictures; it runs nothing."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated

from zoo.model.spec import Preprocessing
from zoo.rows import Row, Some, Text

# Where a graph carries its contract: JSON under this key of the ONNX metadata.
GRAPH_KEY = "zoo"
GRAPH_FORMAT = "zoo-graph-1"


@dataclass(frozen=True, kw_only=True)
class Contract(Row):
    """What a client must know of an artifact: which network, which classes, which pictures it takes."""

    model: Text
    classes: Annotated[tuple[str, ...], Some()]
    preprocessing: Preprocessing
