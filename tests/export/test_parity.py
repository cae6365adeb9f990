from __future__ import annotations

import json
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray
from onnx import ModelProto

from export.contract import Contract
from export.parity import choose_pictures, infer_all, judge
from export.precision.rows import Tolerance, find_precision
from export.runners.onnx_runtime import OnnxRunner
from export.runners.pytorch import TorchRunner
from zoo.errors import DataError
from zoo.model.efficientnet import EfficientNet
from zoo.model.spec import Preprocessing
from zoo.weights.checkpoint import Checkpoint, read_card

LOOSE = Tolerance(max_error=0.1, mean_error=0.05, tie_margin=0.01)


def logits(*rows: tuple[float, ...]) -> NDArray[np.float32]:
    return np.array(rows, np.float32)


def test_equal_answers_pass() -> None:
    answers = logits((1, 2, 10), (3, 2, 1))
    parity = judge(answers, answers.copy(), LOOSE)
    assert parity.passed
    assert (parity.n, parity.scale, parity.max_abs_error, parity.top1_agreement) == (2, 10, 0, 1)


def test_one_large_error_fails_the_maximum() -> None:
    reference = logits((0, 0, 10), (10, 0, 0))
    parity = judge(reference, reference + logits((2, 0, 0), (0, 0, 0)), LOOSE)
    assert parity.relative_max_error == pytest.approx(0.2)
    assert [failure.split()[0] for failure in parity.failures] == ["max"]


def test_a_shift_everywhere_fails_the_mean() -> None:
    reference = logits((0, 0, 10), (10, 0, 0))
    parity = judge(reference, reference + 0.6, LOOSE)
    assert [failure.split()[0] for failure in parity.failures] == ["mean"]


@pytest.mark.parametrize("bad", [np.nan, np.inf])
def test_nan_and_infinity_fail(bad: float) -> None:
    reference = logits((0, 0, 10))
    assert not judge(reference, logits((0, bad, 10)), LOOSE).passed
    assert not judge(logits((0, bad, 10)), reference, LOOSE).passed


def test_a_picture_without_finite_logits_is_named_and_the_numbers_are_those_of_the_others() -> None:
    parity = judge(logits((0, 0, 10), (10, 0, 0)), logits((np.nan, 0, 10), (9.5, 0, 0)), LOOSE)
    assert parity.failures == ("1 of 2 pictures get logits that are not finite",)
    assert (parity.n, parity.max_abs_error, parity.top1_agreement) == (2, 0.5, 0.5)
    json.dumps(parity.to_dict(), allow_nan=False)


def test_another_class_fails_although_errors_are_small() -> None:
    # The reference prefers class 2 by 0.15 of 10, more than the tie margin of 0.1; errors stay within bounds.
    parity = judge(logits((0, 9.85, 10)), logits((0, 10, 9.9)), LOOSE)
    assert parity.relative_max_error < LOOSE.max_error
    assert (parity.top1_agreement, parity.ties) == (0, 0)
    assert len(parity.failures) == 1 and "another class" in parity.failures[0]


def test_a_tie_of_the_reference_does_not_fail() -> None:
    parity = judge(logits((0, 9.95, 10), (10, 0, 0)), logits((0, 10, 9.95), (10, 0, 0)), LOOSE)
    assert parity.passed
    assert (parity.top1_agreement, parity.ties) == (0.5, 1)


def test_a_reference_of_zeros_is_judged_by_absolute_errors() -> None:
    assert not judge(logits((0, 0)), logits((0.5, 0)), LOOSE).passed


@given(
    reference=st.lists(st.tuples(*[st.floats(-50, 50, width=32)] * 4), min_size=1, max_size=6),
    share=st.floats(0, 0.9),
    seed=st.integers(0, 2**16),
)
def test_errors_below_the_tie_margin_always_pass(reference: list[tuple[float, ...]], share: float, seed: int) -> None:
    """A candidate nowhere off by more than half the tie margin can only overturn ties."""
    expected = np.array(reference, np.float64)
    scale = np.abs(expected).max() or 1.0
    noise = np.random.default_rng(seed).uniform(-1, 1, expected.shape) * share * LOOSE.tie_margin / 2 * scale
    assert judge(expected, expected + noise, LOOSE).passed  # type: ignore[arg-type]


def test_parity_is_plain_json() -> None:
    fields = judge(logits((1, 2)), logits((1, 2)), LOOSE).to_dict()
    assert json.loads(json.dumps(fields)) == fields
    assert {"n", "max_abs_error", "mean_abs_error", "relative_max_error", "top1_agreement", "passed"} <= fields.keys()


def test_batches_never_exceed_what_the_runner_takes(mean_colour_runner: type) -> None:
    runner = mean_colour_runner(("red", "green", "blue"), max_batch_size=3)
    pictures = np.random.default_rng(0).integers(0, 256, (8, 8, 8, 3), dtype=np.uint8)
    answers = infer_all(runner, pictures)
    assert runner.batches == [3, 3, 2]
    np.testing.assert_array_equal(answers, runner.infer(pictures))


def test_onnx_runtime_agrees_with_torch_on_real_pictures(
    tiny_graph: ModelProto,
    tiny_model: tuple[EfficientNet, Checkpoint],
    tiny_contract: Contract,
    digit_pictures: NDArray[np.uint8],
) -> None:
    with (
        TorchRunner(tiny_model[0], tiny_contract) as reference,
        OnnxRunner(tiny_graph.SerializeToString(), device="cpu") as candidate,
    ):
        logits = infer_all(reference, digit_pictures), infer_all(candidate, digit_pictures)
        names = (reference.backend, candidate.backend, "digits")
        parity = judge(*logits, find_precision("fp32").tolerance, names=names)
    assert parity.passed, parity.failures
    assert parity.reference.startswith("torch ") and parity.candidate.startswith("onnxruntime ")


def test_perturbed_weights_are_caught(
    tiny_model: tuple[EfficientNet, Checkpoint], tiny_contract: Contract, digit_pictures: NDArray[np.uint8]
) -> None:
    network = tiny_model[0]
    with TorchRunner(network, tiny_contract) as runner:
        before = runner.infer(digit_pictures)
        with torch.no_grad():
            network.classifier.weight[3] += 0.01
        after = runner.infer(digit_pictures)
    assert not judge(before, after, find_precision("fp32").tolerance).passed


SMALL = Preprocessing(image_size=16)


def test_the_checkpoints_own_data_is_the_default(tiny_checkpoint: Path) -> None:
    probe = choose_pictures(read_card(tiny_checkpoint), SMALL)
    assert probe.name == "digits"
    assert probe.pictures.shape == (64, 16, 16, 3)


def test_data_that_is_gone_gives_way_to_photographs(tiny_checkpoint: Path, tmp_path: Path) -> None:
    card = replace(read_card(tiny_checkpoint), provenance={"data": str(tmp_path / "gone"), "seed": 0})
    assert choose_pictures(card, SMALL).name == "sample photographs"
    assert choose_pictures(None, SMALL).name == "sample photographs"


def test_given_data_wins_and_its_path_is_not_recorded(tiny_checkpoint: Path, picture_folder: Path) -> None:
    probe = choose_pictures(read_card(tiny_checkpoint), SMALL, data=str(picture_folder), count=9)
    assert probe.name == "val"
    assert len(probe.pictures) == 9


def test_a_given_folder_that_is_missing_is_an_error(tiny_checkpoint: Path, tmp_path: Path) -> None:
    with pytest.raises(DataError, match="gone"):
        choose_pictures(read_card(tiny_checkpoint), SMALL, data=str(tmp_path / "gone"))


def test_broken_pictures_are_passed_over(picture_folder: Path, tmp_path: Path) -> None:
    folder = tmp_path / "copy"
    shutil.copytree(picture_folder, folder)
    victims = sorted((folder / "val").rglob("*.jpg"))
    victims[0].write_bytes(b"no picture")
    assert len(choose_pictures(None, SMALL, data=str(folder)).pictures) == len(victims) - 1
    for victim in victims:
        victim.write_bytes(b"no picture")
    with pytest.raises(DataError, match=f"None of {len(victims)} pictures"):
        choose_pictures(None, SMALL, data=str(folder))


def test_several_labels_are_compared_as_sets() -> None:
    """A label that is crossed is a difference, unless the reference is as near to its threshold as rounding."""
    tolerance = find_precision("fp32").tolerance
    reference = np.array([[4.0, -1.0], [2.0, 1e-5], [0.0, 3.0]], np.float32)
    same = judge(reference, reference, tolerance, thresholds=(0.5, 0.5))
    assert (same.top1_agreement, same.compared, same.passed) == (1.0, "labels", True)
    tie = judge(reference, reference - np.float32(2e-5), tolerance, thresholds=(0.3, 0.5))
    assert (tie.top1_agreement, tie.ties, tie.passed) == (pytest.approx(2 / 3), 1, True)
    # exp(1) / (1 + exp(1)) = 0.731: the logit 2 is one above that threshold.
    other = reference.copy()
    other[1, 0] = 0.9
    found = judge(reference, other, tolerance, thresholds=(0.7310586, 0.5))
    assert found.failures[-1] == "1 of 3 pictures get other labels, beyond any tie"
    assert "same labels on" in found.summary()
