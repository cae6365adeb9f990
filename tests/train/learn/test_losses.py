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


@pytest.mark.parametrize("gamma", [0.5, 1.0, 2.0, 5.0])
def test_the_focal_loss_of_several_labels_is_torchvisions(gamma: float) -> None:
    from torchvision.ops import sigmoid_focal_loss

    logits = torch.randn(64, 5, generator=torch.Generator().manual_seed(0)).mul(6).requires_grad_()
    targets = (torch.rand(64, 5, generator=torch.Generator().manual_seed(1)) < 0.3).float()
    ours = objective(kind="bce", num_classes=5, focal_gamma=gamma).loss(logits, targets)
    theirs = sigmoid_focal_loss(logits, targets, alpha=-1, gamma=gamma, reduction="none").sum(1).mean()
    torch.testing.assert_close(ours, theirs)
    for mine, other in zip(torch.autograd.grad(ours, logits), torch.autograd.grad(theirs, logits), strict=True):
        torch.testing.assert_close(mine, other, rtol=1e-4, atol=1e-7)


def test_the_focal_loss_of_one_label_is_the_papers() -> None:
    """(1 − p_t)^γ · cross-entropy of each picture's own class."""
    labels = torch.tensor([0, 2])
    focal = objective(focal_gamma=2.0)
    cross_entropy = torch.nn.functional.cross_entropy(LOGITS, labels, reduction="none")
    by_hand = ((1 - (-cross_entropy).exp()) ** 2 * cross_entropy).mean()
    torch.testing.assert_close(focal.loss(LOGITS, focal.targets(labels)), by_hand)


@pytest.mark.parametrize("kind", ["cross_entropy", "bce"])
def test_a_mixed_picture_costs_the_mean_of_its_labels(kind: str) -> None:
    focal = objective(kind=kind, focal_gamma=2.0, class_weights=torch.tensor([1.0, 2.0, 4.0]))
    first, second = (torch.nn.functional.one_hot(torch.tensor(labels), 3).float() for labels in ([0, 2], [1, 1]))
    mixed = focal.loss(LOGITS, 0.3 * first + 0.7 * second)
    torch.testing.assert_close(mixed, 0.3 * focal.loss(LOGITS, first) + 0.7 * focal.loss(LOGITS, second))


@pytest.mark.parametrize("kind", ["cross_entropy", "bce"])
def test_a_small_gamma_is_nearly_none_and_none_is_exactly_that(kind: str) -> None:
    plain = objective(kind=kind).loss(LOGITS, TARGETS)
    torch.testing.assert_close(objective(kind=kind, focal_gamma=1e-6).loss(LOGITS, TARGETS), plain)
    assert torch.equal(objective(kind=kind, focal_gamma=0.0).loss(LOGITS, TARGETS), plain)


@pytest.mark.parametrize("kind", ["cross_entropy", "bce"])
def test_the_focal_loss_is_finite_for_a_network_that_is_sure(kind: str) -> None:
    logits = torch.tensor([[200.0, -200.0, 0.0], [-200.0, 200.0, 0.0]], requires_grad=True)
    loss = objective(kind=kind, focal_gamma=0.5).loss(logits, torch.tensor([[1.0, 0.0, 0.0]] * 2))
    loss.backward()
    assert math.isfinite(loss.item())
    assert logits.grad is not None and bool(logits.grad.isfinite().all())


@pytest.mark.parametrize(("gamma", "classes"), [(0.0, 10), (2.0, 10), (2.0, 2), (3.0, 1000)])
def test_guessing_costs_less_under_the_focal_loss(gamma: float, classes: int) -> None:
    focal = objective(num_classes=classes, focal_gamma=gamma, label_smoothing=0.1)
    logits = torch.randn(4, classes)
    chance = focal.loss(focal.guess(logits), focal.targets(torch.arange(4) % classes))
    assert chance.item() == pytest.approx((1 - 1 / classes) ** gamma * math.log(classes), rel=1e-5)


def test_guessing_several_labels_costs_what_their_frequencies_do() -> None:
    """Of 9 in 98 pictures, p = 0.1: 0.1 · 0.9² · −ln 0.1 and 0.9 · 0.1² · −ln 0.9 a class, by the smoothed p itself."""
    prior = prior_logits(np.array([9.0, 9.0, 9.0]), 98)
    focal = objective(kind="bce", focal_gamma=2.0, prior=prior)
    targets = torch.full((4, 3), 0.1)
    cost = 3 * (0.1 * 0.9**2 * -math.log(0.1) + 0.9 * 0.1**2 * -math.log(0.9))
    assert focal.loss(focal.guess(torch.zeros(4, 3)), targets).item() == pytest.approx(cost, rel=1e-5)
