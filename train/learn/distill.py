"""Owns the teacher of knowledge distillation: what it sees, and how its answer becomes a loss; it trains nothing."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from train.augment.transfer import send
from zoo.errors import ZooError
from zoo.model.spec import Preprocessing
from zoo.weights.resolve import load_model


@dataclass(frozen=True, kw_only=True)
class Teacher:
    """A trained classifier and how much its answer counts: `alpha` is the share of its loss.

    It sees the same pictures as the student, with the same crop, size and mixture (Beyer et al. 2022, arXiv 2106.05237:
    “consistent teaching”), normalised as it expects.
    """

    network: nn.Module
    preprocessing: Preprocessing
    alpha: float
    temperature: float

    @torch.no_grad()
    def answer(self, pictures: Tensor, student: Preprocessing) -> Tensor:
        """Logits (N, K) of pictures (N, C, S, S) that were normalised for the student."""
        scale, shift = affine_between(student, self.preprocessing, pictures.device)
        logits: Tensor = self.network(pictures * scale + shift)
        return logits


def affine_between(source: Preprocessing, target: Preprocessing, device: torch.device) -> tuple[Tensor, Tensor]:
    """Scale and shift (1, C, 1, 1) that turn a picture normalised by `source` into one normalised by `target`.

    x_t = (x_s σ_s + μ_s − μ_t) / σ_t
    """
    rows = np.array([source.mean, source.std, target.mean, target.std], np.float32)
    mean_s, std_s, mean_t, std_t = send(rows, device).view(4, 1, -1, 1, 1).unbind()
    return std_s / std_t, (mean_s - mean_t) / std_t


def distillation_loss(student: Tensor, teacher: Tensor, temperature: float) -> Tensor:
    """T² · KL(softmax(teacher / T) ‖ softmax(student / T)), mean over pictures (Hinton et al. 2015, arXiv 1503.02531).

    T² keeps the size of the gradient independent of T. Logits are (N, K).
    """
    answer = F.log_softmax(student.float() / temperature, dim=1)
    wanted = F.log_softmax(teacher.float() / temperature, dim=1)
    return temperature**2 * F.kl_div(answer, wanted, reduction="batchmean", log_target=True)


def load_teacher(
    model: str, classes: tuple[str, ...], device: torch.device, *, alpha: float, temperature: float
) -> Teacher:
    """Any model of the zoo with trained weights: a checkpoint, a run folder or published weights.

    Raises:
        ZooError: its classes are not those the student learns. CheckpointError: as `load_model`.
    """
    network, card, label = load_model(model)
    if card.thresholds is not None:
        raise ZooError(
            f"The teacher {label} answers several labels a picture, and distillation compares answers of one class.",
            "Choose a teacher that was trained on one class a picture.",
        )
    if card.classes != classes:
        theirs, ours = (", ".join(names[:3]) for names in (card.classes, classes))
        raise ZooError(
            f"The teacher {label} knows {len(card.classes)} classes, not the {len(classes)} of the pictures: "
            f"{theirs}, … instead of {ours}, ….",
            "Train the teacher on the same classes first: `zoo train TEACHER --data …`.",
        )
    network.requires_grad_(False).to(device, memory_format=torch.channels_last)  # type: ignore[call-overload]
    return Teacher(network=network.eval(), preprocessing=card.preprocessing, alpha=alpha, temperature=temperature)
