"""Which blocks stay in float: on errors that are known, and on the trained tiny network."""

from __future__ import annotations

from collections.abc import Collection

import numpy as np
import pytest
from numpy.typing import NDArray
from onnx import ModelProto

from export.precision.qdq import ONNX_RUNTIME
from export.precision.quantize import calibrate
from export.precision.scores import Score
from export.precision.sensitivity import Scale, choose_kept, keep_named, relative_rms_error

# Multiply-adds, and the error each makes alone; `b.depthwise` makes all of b's.
PARTS = {"a": 10, "b.depthwise": 5, "b.project": 20, "c": 40}
ERRORS = {"a": 0.01, "b.depthwise": 0.3, "b.project": 0.0, "c": 0.02}
BLOCKS = {"a": 10, "b": 25, "c": 40}


class KnownScale(Scale):
    """Errors add up in squares; an answer in ten changes for every 0.1 of error."""

    def __init__(self) -> None:
        self.pictures = np.zeros((20, 1, 1, 3), np.uint8)

    def score(self, kept: Collection[str]) -> Score:
        """Of the parts that are not kept."""
        left = [part for part in PARTS if not any(part == path or part.startswith(f"{path}.") for path in kept)]
        error = float(np.sqrt(sum(ERRORS[part] ** 2 for part in left)))
        return Score(agreement=1 - error, relative_rms_error=error)


def test_the_block_with_the_largest_error_for_its_work_stays_and_only_the_part_that_makes_it() -> None:
    choice = choose_kept(KnownScale(), BLOCKS, PARTS, target=0.9)
    assert choice.kept == ("b.depthwise",)
    assert choice.met and choice.chosen.agreement > 0.94
    assert choice.kept_macs_share == 5 / 75
    assert [row.block for row in choice.blocks] == ["a", "b", "c"]
    assert choice.blocks[1].alone.relative_rms_error == 0.3


def test_nothing_stays_where_nothing_is_asked_for() -> None:
    choice = choose_kept(KnownScale(), BLOCKS, PARTS, target=0.0)
    assert choice.kept == () and choice.kept_macs_share == 0 and choice.all == choice.chosen


def test_a_large_error_is_too_much_even_where_the_answers_stay() -> None:
    assert choose_kept(KnownScale(), BLOCKS, PARTS, target=0.5).kept == ("b.depthwise",)


def test_a_target_beyond_reach_is_told_and_not_chased_to_the_last_block() -> None:
    choice = choose_kept(KnownScale(), BLOCKS, PARTS, target=1.0)
    assert not choice.met
    assert len(choice.kept) <= 1


def test_named_modules_are_scored_and_no_block_is_measured() -> None:
    choice = keep_named(KnownScale(), ("c",), PARTS)
    assert choice.kept == ("c",) and choice.blocks == () and choice.target is None and choice.met
    assert choice.kept_macs_share == 40 / 75


def test_a_constant_in_all_logits_is_an_error_too_but_of_the_spread() -> None:
    reference = np.array([[1.0, 3.0], [5.0, 7.0]], np.float32)
    assert relative_rms_error(reference, reference) == 0
    assert relative_rms_error(reference, reference + np.float32(np.sqrt(5))) == pytest.approx(1.0)


def test_the_tiny_networks_blocks_are_all_measured(tiny_graph: ModelProto, digit_pictures: NDArray[np.uint8]) -> None:
    calibrated = calibrate(tiny_graph, digit_pictures)
    scale = Scale(
        tiny_graph,
        lambda kept: calibrated.quantized(layout=ONNX_RUNTIME, kept=kept),
        digit_pictures,
        lambda reference, logits: reference.argmax(axis=1) == logits.argmax(axis=1),
    )
    blocks = calibrated.macs()
    choice = choose_kept(scale, blocks, calibrated.macs(parts=True), target=0.5)
    assert tuple(row.block for row in choice.blocks) == tuple(blocks)
    assert choice.n == 12 and 0 < choice.all.relative_rms_error < 0.3
    assert sum(row.macs_share for row in choice.blocks) == pytest.approx(1.0)
