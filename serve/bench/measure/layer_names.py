"""Owns which part of a network a profiler's layer belongs to, by its name; it runs no profiler.

Nodes of our graphs are named after modules (`stages.3.block.5.depthwise.conv/Conv`), and engines keep these names in
what they make of them: ONNX Runtime appends (`…/Conv_nchwc`), TensorRT joins (`A + PWN(B, C)`, `{ForeignNode[A...B]}`).
A name that holds nothing of ours, or parts of several, belongs to none of them: that is shown, and never guessed.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Literal

# `stages.N` or one of the parts beside the stages, at the beginning of a path.
_PATH = re.compile(
    r"(?:(?<![\w.])|(?<=\.\.\.))"  # not inside a longer name; behind the dots of a span
    r"(?:stages\.(\d+)(?:\.block\.(\d+)(?:\.([a-z_]+))?)?"
    r"|(preprocessing|stem|head|pool|dropout|classifier))\b"
)
# A block's own operations, outside of its layers: the residual's sum.
RESIDUAL = "residual"
_BESIDE: dict[str, Literal["before", "after"]] = {
    "preprocessing": "before",
    "stem": "before",
    "head": "after",
    "pool": "after",
    "dropout": "after",
    "classifier": "after",
}


@dataclass(frozen=True)
class LayerPlace:
    """Where a layer is: its stage, its block from 0, its operator; None of what it is not, or is several of.

    `beside` is "before" or "after" for what is outside of all stages. Of what cannot be told all are None or empty.
    """

    stage: int | None = None
    block: int | None = None
    operator: str | None = None
    beside: Literal["", "before", "after"] = ""

    @property
    def known(self) -> bool:
        """Whether it can be told at all."""
        return self.stage is not None or bool(self.beside)


def place_of(name: str) -> LayerPlace:
    """Where a layer is by its name: `stages.3.block.5.depthwise.conv/Conv_nchwc` → stage 3, block 5, depthwise."""
    found = list(_PATH.finditer(name))
    stages = {match[1] for match in found}
    if not found or len(stages) > 1:
        return LayerPlace()
    (stage,) = stages
    if stage is None:
        beside = {_BESIDE[match[4]] for match in found}
        return LayerPlace(beside=beside.pop()) if len(beside) == 1 else LayerPlace()
    # A span (`[A...B]`) holds what lies between its ends too, which are named alone.
    block = _only(match[2] for match in found)
    operator = _operator(match[3] for match in found) if block is not None and "..." not in name else None
    return LayerPlace(stage=int(stage), block=None if block is None else int(block), operator=operator)


def _operator(values: Iterable[str | None]) -> str | None:
    """The layer that all of a name is; a sum that is fused into a layer is that layer's."""
    layers = {value for value in values if value}
    return layers.pop() if len(layers) == 1 else None if layers else RESIDUAL


def _only(values: Iterable[str | None]) -> str | None:
    """The one value that all are, else None."""
    distinct = set(values)
    return distinct.pop() if len(distinct) == 1 else None
