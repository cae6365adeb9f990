"""Owns what an artifact promises its clients: which network, which classes, which pictures; it runs nothing."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Annotated, Any, Literal

from zoo.errors import ArtifactError, RowError
from zoo.model.spec import Card, Preprocessing, Thresholds
from zoo.rows import Count, Row, Some, Text, Within

# Where a graph carries its contract: JSON under this key of the ONNX metadata.
GRAPH_KEY = "zoo"
GRAPH_FORMAT = "zoo-graph-1"
# 20 is the exporter's own target (torch 2.11 and later); TensorRT 10.0 and later read it. The exporter has no operators
# below 18, and onnx 1.18, the oldest this project takes, knows none above 23.
OPSET = 20
Opset = Annotated[int, Within(18, 23)]


InputForm = Literal["uint8", "float"]
TOP_SCORES, TOP_CLASSES = "top_scores", "top_classes"


@dataclass(frozen=True, kw_only=True)
class Form(Row):
    """How much of the work around the network a graph does itself.

    `input`: "uint8" takes pictures (N, S, S, C), interleaved, and normalises them inside; "float" takes planes
    (N, C, S, S) float32 that the client has normalised, (value − mean) / std of the contract's preprocessing, where a
    value is 0…255. `output`: "probabilities" are the softmax of the logits or, of a network that answers several
    labels, their sigmoid. `topk`: the so many highest of the outputs follow as outputs of their own, highest first:
    (N, k) float32 and the indices of their classes (N, k) int64.
    """

    input: InputForm = "uint8"
    output: Literal["logits", "probabilities"] = "logits"
    topk: Count | None = None

    @property
    def input_name(self) -> str:
        """What the graph calls its input."""
        return "pictures" if self.input == "uint8" else "planes"

    @property
    def output_names(self) -> tuple[str, ...]:
        """What the graph calls its outputs: scores of all classes first."""
        return (self.output,) if self.topk is None else (self.output, TOP_SCORES, TOP_CLASSES)


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
    form: Form = Form()

    def to_dict(self) -> dict[str, Any]:
        """Return plain JSON types; of a graph of the usual form they are what earlier versions read too."""
        fields = super().to_dict()
        if self.form == Form():
            del fields["form"]
        return fields


def read_metadata(stored: str | None, artifact: str) -> tuple[Contract, Mapping[str, Any]]:
    """The contract that a graph of ours carries under `GRAPH_KEY` of its metadata, and its checkpoint's fields.

    Args:
        stored: the metadata's text; None where it has none.
        artifact: what errors call the graph.

    Raises:
        ArtifactError: there is none, or it is one this version does not read.
    """
    if stored is None:
        raise ArtifactError(
            f"{artifact} was not exported by this project: it does not say its classes and preprocessing.",
            "`zoo export MODEL` writes a graph that does.",
        )
    try:
        fields = json.loads(stored)
        if fields["format"] != GRAPH_FORMAT:
            raise ArtifactError(
                f"{artifact} has the format {fields['format']!r}; this version reads {GRAPH_FORMAT!r}.",
                "Export it again with this version.",
            )
        contract = Contract.from_dict(fields["contract"], "contract.")
        checkpoint = fields.get("checkpoint", {})
        (checkpoint.get("provenance") or {}).get("temperature")  # both are objects
        return contract, checkpoint
    except (AttributeError, KeyError, TypeError, ValueError) as error:
        said = error.problem if isinstance(error, RowError) else repr(error)
        raise ArtifactError(f"{artifact} carries damaged metadata: {said}", "Export it again.") from error
