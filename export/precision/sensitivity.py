"""Owns which blocks of a network cannot bear 8 bits: each measured alone, then the cheapest set that stays in float.

It knows no pictures' classes: it compares a quantized graph with the float graph it was made from.
"""

from __future__ import annotations

from collections.abc import Callable, Collection

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import ModelProto, TensorProto

from export.precision.scores import BlockScore, Choice, Score
from export.precision.statistics import Inputs, open_session
from export.precision.wiring import Wiring, copied

# (N, K) logits of the float graph and of a candidate → which of N answers are the same, (N,) bool.
Agrees = Callable[[NDArray[np.float32], NDArray[np.float32]], NDArray[np.bool_]]
# (the modules that stay in float) → the graph.
Quantized = Callable[[Collection[str]], ModelProto]
# A block is worth keeping only if it makes so much of the squared error that is left.
SMALLEST_SHARE = 0.03
# Added to a block's share of the multiply-adds: a block of next to none would be kept whatever its error is.
SMALL_BLOCK = 0.02
# How far off logits may be, whatever the agreement: that is of calibration pictures, and others are less like them.
# Lite0 with its ImageNet weights, calibrated on food, on 221 other pictures, of food and crops of three photographs: at
# 0.039 96.8 % of the first classes stay, at 0.034 98.2 %, at 0.028, with 31 % of the MACs in float, 97.3 %.
MOST_ERROR = 0.035
BATCH_SIZE = 8


class Scale:
    """Scores quantized forms of a graph against itself, on the same pictures."""

    def __init__(self, model: ModelProto, quantized: Quantized, pictures: Inputs, agrees: Agrees) -> None:
        self.quantized = quantized
        self.pictures = pictures
        self.agrees = agrees
        self.reference = infer(model, pictures)
        self._scores: dict[frozenset[str], Score] = {}

    def score(self, kept: Collection[str]) -> Score:
        """Score the graph with the modules `kept` in float, once."""
        key = frozenset(kept)
        if key not in self._scores:
            logits = infer(self.quantized(kept), self.pictures)
            self._scores[key] = Score(
                agreement=float(self.agrees(self.reference, logits).mean()),
                relative_rms_error=relative_rms_error(self.reference, logits),
            )
        return self._scores[key]


def relative_rms_error(reference: NDArray[np.float32], logits: NDArray[np.float32]) -> float:
    """√(mean squared error ÷ variance of the reference): a constant added to all logits changes no answer's place."""
    error = np.square(logits.astype(np.float64) - reference).mean()
    spread = float(reference.var(dtype=np.float64)) or 1.0
    return float(np.sqrt(error / spread))


def infer(model: ModelProto, pictures: Inputs) -> NDArray[np.float32]:
    """Logits (N, K) of a graph of ours on the processor."""
    taken, logits, opened = model.graph.input[0].name, model.graph.output[0].name, model
    if logits == "probabilities":  # see `export.contract.Form`; the classifier makes what they are made of
        logits, opened = Wiring(model).logits, copied(model)
        opened.graph.output.append(onnx.helper.make_tensor_value_info(logits, TensorProto.FLOAT, None))
    session = open_session(opened)
    parts = [
        session.run([logits], {taken: pictures[start : start + BATCH_SIZE]})[0]
        for start in range(0, len(pictures), BATCH_SIZE)
    ]
    return np.concatenate(parts)


def choose_kept(
    scale: Scale,
    blocks: dict[str, int],
    parts: dict[str, int],
    *,
    target: float,
    on_progress: Callable[[int, int], None] = lambda done, total: None,
) -> Choice:
    """Measure every block alone, then keep in float the cheapest modules with which the network agrees often enough.

    Errors of blocks add up nearly as independent ones do, in squares. So the next block to keep is the one with the
    largest squared error for its multiply-adds, of those that make a telling share of what is left; when the target is
    met, each kept block is narrowed to the one part of it that suffices. If nothing telling is left, the target is
    missed, and the choice says so.

    Args:
        scale: what scores.
        blocks: multiply-adds of every block, in order; `parts` of every part of them.
        parts: as `blocks`.
        target: share of answers that have to stay; the error is then at most `MOST_ERROR` too. 0 keeps nothing.
        on_progress: called with blocks measured, of all.
    """
    total, scores = sum(blocks.values()), list[BlockScore]()
    everything = scale.score(())
    for block, macs in blocks.items():
        alone = scale.score([other for other in blocks if other != block])
        scores.append(BlockScore(block=block, macs_share=macs / total, alone=alone))
        on_progress(len(scores), len(blocks))
    kept, chosen = list[str](), everything
    while target and not _is_enough(chosen, target):
        telling = by_error([row for row in scores if row.block not in kept])
        if not telling or len(kept) >= len(blocks) // 2:
            break
        kept.append(telling[0])
        chosen = scale.score(kept)
    if target and _is_enough(chosen, target):
        kept, chosen = _narrowed(scale, kept, chosen, parts, target)
    return _choice(everything, scores, kept, chosen, parts, target, len(scale.pictures))


def _is_enough(score: Score, target: float) -> bool:
    return score.agreement >= target and score.relative_rms_error <= MOST_ERROR


def by_error(scores: Collection[BlockScore]) -> list[str]:
    """Blocks by squared error for their multiply-adds, the largest first; only those with a telling share of it."""
    errors = {row.block: row.alone.relative_rms_error**2 for row in scores}
    telling = [row for row in scores if errors[row.block] >= SMALLEST_SHARE * sum(errors.values())]
    return [row.block for row in sorted(telling, key=lambda row: -errors[row.block] / (row.macs_share + SMALL_BLOCK))]


def keep_named(scale: Scale, kept: Collection[str], parts: dict[str, int]) -> Choice:
    """The score of a network whose kept modules somebody else chose; no block is measured alone."""
    return _choice(scale.score(()), [], list(kept), scale.score(kept), parts, None, len(scale.pictures))


def _narrowed(
    scale: Scale, kept: list[str], chosen: Score, parts: dict[str, int], target: float
) -> tuple[list[str], Score]:
    """Keep of each block only its cheapest part with which the target is met, where there is one."""
    for block in list(kept):
        own = sorted((part for part in parts if part.startswith(f"{block}.")), key=lambda part: parts[part])
        for part in own[:-1] if len(own) > 1 else ():
            narrowed = [part if path == block else path for path in kept]
            found = scale.score(narrowed)
            if _is_enough(found, target):
                kept, chosen = narrowed, found
                break
    return kept, chosen


def _choice(
    everything: Score,
    scores: list[BlockScore],
    kept: list[str],
    chosen: Score,
    parts: dict[str, int],
    target: float | None,
    n: int,
) -> Choice:
    held = sum(
        macs for part, macs in parts.items() if any(part == path or part.startswith(f"{path}.") for path in kept)
    )
    return Choice(
        all=everything,
        blocks=tuple(scores),
        kept=tuple(kept),
        kept_macs_share=held / sum(parts.values()),
        chosen=chosen,
        target=target,
        n=n,
    )
