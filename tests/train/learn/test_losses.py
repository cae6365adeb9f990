from __future__ import annotations

import json
import math
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from train.learn.distill import Teacher, affine_between, distillation_loss, load_teacher
from train.learn.losses import Objective, prior_logits, resolve_class_weights
from zoo.errors import DataError, ZooError
from zoo.model.spec import Preprocessing
from zoo.weights.checkpoint import load_checkpoint, read_card

LOGITS = torch.tensor([[2.0, 0.0, -1.0], [0.5, 0.5, 3.0]])
TARGETS = torch.tensor([[0.9, 0.05, 0.05], [0.3, 0.0, 0.7]])


def objective(**changes: object) -> Objective:
    return replace(Objective(num_classes=3, kind="cross_entropy", label_smoothing=0.0), **changes)


def test_smoothed_targets_keep_their_sum() -> None:
    targets = objective(label_smoothing=0.3).targets(torch.tensor([2, 0]))
    torch.testing.assert_close(targets, torch.tensor([[0.1, 0.1, 0.8], [0.8, 0.1, 0.1]]))


def test_cross_entropy_takes_soft_targets() -> None:
    by_hand = -(TARGETS * LOGITS.log_softmax(1)).sum(1).mean()
    torch.testing.assert_close(objective().loss(LOGITS, TARGETS), by_hand)


def test_bce_sums_the_classes() -> None:
    p = LOGITS.sigmoid()
    by_hand = -(TARGETS * p.log() + (1 - TARGETS) * (1 - p).log()).sum(1).mean()
    torch.testing.assert_close(objective(kind="bce").loss(LOGITS, TARGETS), by_hand)


def test_class_weights_count_a_mixed_picture_by_its_shares() -> None:
    weights = torch.tensor([1.0, 2.0, 4.0])
    by_hand = -(weights * TARGETS * LOGITS.log_softmax(1)).sum(1).mean()
    torch.testing.assert_close(objective(class_weights=weights).loss(LOGITS, TARGETS), by_hand)
    doubled = objective(kind="bce", class_weights=torch.full((3,), 2.0)).loss(LOGITS, TARGETS)
    torch.testing.assert_close(doubled, 2 * objective(kind="bce").loss(LOGITS, TARGETS))


def test_balanced_classes_count_the_same() -> None:
    labels = np.array([0] * 6 + [1] * 3 + [2], np.int64)
    weights = resolve_class_weights("balanced", ("a", "b", "c"), np.bincount(labels))
    assert weights is not None
    np.testing.assert_allclose(np.bincount(labels) * weights, [10 / 3] * 3)
    assert np.mean(np.array(weights)[labels]) == pytest.approx(1.0)


def test_a_file_of_weights_is_read_by_class(tmp_path: Path) -> None:
    path = tmp_path / "weights.json"
    path.write_text(json.dumps({"c": 3, "a": 0.5}))
    assert resolve_class_weights(str(path), ("a", "b", "c"), np.zeros(1, np.int64)) == (0.5, 1.0, 3.0)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ('{"z": 1}', "names z, which the pictures do not have"),
        ('{"a": -1}', "not a table of numbers"),
        ("[1, 2]", "not a table of numbers"),
        ("{", "not a readable JSON file"),
        ('{"a": 0, "b": 0}', "one above"),
    ],
)
def test_wrong_weights_are_refused(content: str, message: str, tmp_path: Path) -> None:
    path = tmp_path / "weights.json"
    path.write_text(content)
    with pytest.raises(DataError, match=message):
        resolve_class_weights(str(path), ("a", "b"), np.zeros(1, np.int64))


def test_weights_in_order_are_as_many_as_classes() -> None:
    with pytest.raises(DataError, match="3 numbers for 2 classes"):
        resolve_class_weights((1.0, 2.0, 1.0), ("a", "b"), np.zeros(1, np.int64))


def test_a_class_without_pictures_cannot_be_balanced() -> None:
    with pytest.raises(DataError, match="b has no training pictures"):
        resolve_class_weights("balanced", ("a", "b"), np.array([3, 0]))


def test_distillation_is_zero_for_the_same_answer_and_scales_with_temperature() -> None:
    assert distillation_loss(LOGITS, LOGITS, 2.0).item() == pytest.approx(0, abs=1e-6)
    teacher = torch.tensor([[0.0, 1.0, 0.0], [1.0, 0.0, 0.0]])
    t = 3.0
    p, q = (teacher / t).softmax(1), (LOGITS / t).softmax(1)
    by_hand = t * t * (p * (p.log() - q.log())).sum(1).mean()
    torch.testing.assert_close(distillation_loss(LOGITS, teacher, t), by_hand)


def test_alpha_mixes_the_losses() -> None:
    own = Preprocessing(image_size=8)
    teacher_logits = torch.zeros(2, 3)
    losses = []
    for alpha in (0.0, 0.25, 1.0):
        teacher = Teacher(network=torch.nn.Identity(), preprocessing=own, alpha=alpha, temperature=2.0)
        losses.append(objective(teacher=teacher).loss(LOGITS, TARGETS, teacher_logits).item())
    hard, mixed, soft = losses
    assert hard == pytest.approx(objective().loss(LOGITS, TARGETS).item())
    assert soft == pytest.approx(distillation_loss(LOGITS, teacher_logits, 2.0).item())
    assert mixed == pytest.approx(0.75 * hard + 0.25 * soft)


def test_the_teacher_sees_the_pictures_as_it_expects_them() -> None:
    """A picture normalised for the student and shifted is the picture normalised for the teacher."""
    student = Preprocessing(image_size=4)
    expected = Preprocessing(image_size=4, mean=(123.0, 116.0, 103.0), std=(58.0, 57.0, 56.0))
    raw = torch.rand(2, 3, 4, 4) * 255

    def normalized(by: Preprocessing) -> torch.Tensor:
        return (raw - torch.tensor(by.mean)[:, None, None]) / torch.tensor(by.std)[:, None, None]

    scale, shift = affine_between(student, expected, torch.device("cpu"))
    torch.testing.assert_close(normalized(student) * scale + shift, normalized(expected), rtol=1e-4, atol=1e-4)
    teacher = Teacher(network=torch.nn.Identity(), preprocessing=expected, alpha=0.5, temperature=1.0)
    seen = teacher.answer(normalized(student), student)
    torch.testing.assert_close(seen, normalized(expected), rtol=1e-4, atol=1e-4)


def test_a_student_learns_from_a_run(zoo: Callable, in_folder: Path, tiny_run: Path) -> None:
    """All of the loss is the teacher's: the student comes to answer as it does, of labels it sees nothing."""
    answer = zoo(
        *("train", "tiny", "--teacher", tiny_run, "--distill-alpha", "1", "--temperature", "2", "--device", "cpu"),
        *("--epochs", "20", "--image-size", "32", "--batch-size", "32", "--lr", "5e-3", "-o", "student"),
    )
    assert answer.code == 0, answer.err
    card = read_card(Path("student/checkpoint.safetensors"))
    assert (card.recipe["teacher"], card.recipe["distill_alpha"]) == (str(tiny_run), 1.0)
    taught = read_card(tiny_run / "checkpoint.safetensors").provenance["val_top1"]
    assert card.provenance["val_top1"] > max(0.7 * taught, 0.3)  # chance is 0.1
    assert not math.isnan(card.provenance["val_loss"])


def test_a_teacher_of_other_classes_is_refused(tiny_run: Path) -> None:
    _, card = load_checkpoint(tiny_run / "checkpoint.safetensors")
    assert len(card.classes) == 10
    with pytest.raises(ZooError, match="knows 10 classes, not the 2"):
        load_teacher(str(tiny_run), ("cat", "dog"), torch.device("cpu"), alpha=0.5, temperature=1.0)


def test_several_labels_begin_at_their_frequencies_and_cost_less_than_guessing() -> None:
    """Of a class that 9 of 98 pictures have the prior is log(10 / 90); its loss is the entropy of that frequency."""
    prior = prior_logits(np.array([9, 49]), 98)
    assert prior.tolist() == pytest.approx([np.log(10 / 90), 0.0])
    objective = Objective(num_classes=2, kind="bce", label_smoothing=0.0, prior=prior)
    labels = torch.zeros(98, 2, dtype=torch.bool)
    labels[:9, 0] = labels[:49, 1] = True
    targets = objective.targets(labels)
    guessed = objective.loss(objective.guess(torch.ones(98, 2)), targets)
    share = torch.tensor([0.1, 0.5])
    expected = -(labels * share.log() + ~labels * (1 - share).log()).sum(1).mean()
    assert guessed.item() == pytest.approx(expected.item(), rel=1e-5)
    assert guessed < 2 * np.log(2)
    smoothed = Objective(num_classes=2, kind="bce", label_smoothing=0.2).targets(labels[:1])
    assert smoothed.tolist() == [[pytest.approx(0.9), pytest.approx(0.9)]]
