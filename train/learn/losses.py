"""Owns what a run minimises: soft targets, cross-entropy, BCE or focal loss, class weights, a teacher; no network."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional as F

from train.learn.distill import Teacher, distillation_loss
from train.progressive.recipe import LossName, Recipe
from zoo.errors import DataError


@dataclass(frozen=True, kw_only=True)
class Objective:
    """The loss of a run. `class_weights` is (K,) or None; `teacher` adds distillation; with 0, `focal_gamma` is off.

    `prior` (K,), of pictures that may have several labels, are the logits of who only knows how frequent they are.
    """

    num_classes: int
    kind: LossName
    label_smoothing: float
    class_weights: Tensor | None = None
    teacher: Teacher | None = None
    prior: Tensor | None = None
    focal_gamma: float = 0.0

    def targets(self, labels: Tensor) -> Tensor:
        """Smoothed one-hot targets (N, K) of labels (N,): 1 − s + s/K for the class, s/K for the others.

        Of several labels (N, K) bool: 1 − s/2 for what is there, s/2 for what is not.
        """
        if labels.dim() == 2:
            return labels.float() * (1.0 - self.label_smoothing) + self.label_smoothing / 2
        hot = F.one_hot(labels, self.num_classes).float()
        return hot * (1.0 - self.label_smoothing) + self.label_smoothing / self.num_classes

    def loss(self, logits: Tensor, targets: Tensor, teacher_logits: Tensor | None = None) -> Tensor:
        """Scalar loss of logits (N, K) float32 against targets (N, K), which may be mixed.

        cross_entropy   mean over pictures of −Σ_k w_k t_k log p_k
        bce             mean over pictures of Σ_k w_k BCE(sigmoid(logit_k), t_k): classes are summed, as in big_vision's
                        sigmoid_xent (and in the loss of ASL, Ridnik et al. 2021, arXiv 2009.14119), so that the rate
                        need not grow with the number of classes
        With a `focal_gamma` γ each term counts less the surer the network is of it (Lin et al. 2017, arXiv 1708.02002):
        −w_k t_k (1 − p_k)^γ log p_k, and of BCE −w_k (t_k (1 − p_k)^γ log p_k + (1 − t_k) p_k^γ log(1 − p_k)). Both are
        linear in t: a mixed picture costs the mean of what its labels cost, as without γ. Guessing among K classes
        costs (1 − 1/K)^γ ln K: with γ 2 and 10 classes 1.87, not 2.30. The α of the paper is what class weights are.
        With a teacher: (1 − α) of that and α of `distillation_loss`.
        """
        hard = self._hard(logits, targets)
        if self.teacher is None or teacher_logits is None:
            return hard
        soft = distillation_loss(logits, teacher_logits, self.teacher.temperature)
        return torch.lerp(hard, soft, self.teacher.alpha)

    def _hard(self, logits: Tensor, targets: Tensor) -> Tensor:
        """The loss against the targets alone."""
        if self.focal_gamma:
            focal = focal_bce if self.kind == "bce" else focal_cross_entropy
            each = focal(logits, targets, self.focal_gamma)
            return (each if self.class_weights is None else each * self.class_weights).sum(1).mean()
        if self.kind == "bce":
            each = F.binary_cross_entropy_with_logits(logits, targets, weight=self.class_weights, reduction="none")
            return each.sum(1).mean()
        return F.cross_entropy(logits, targets, weight=self.class_weights)

    def guess(self, logits: Tensor) -> Tensor:
        """The logits (N, K) of who has not looked at the pictures: all alike, or the `prior`."""
        guessed = torch.zeros_like(logits, dtype=torch.float32)
        return guessed if self.prior is None else guessed + self.prior


def focal_cross_entropy(logits: Tensor, targets: Tensor, gamma: float) -> Tensor:
    """−t (1 − p)^γ log p of each class, (N, K), p the softmax of logits (N, K); targets (N, K) may be mixed."""
    log_p = logits.log_softmax(1)
    # Where p is 1 in float32, the gradient of a power below 1 would be infinite times 0; below ε nothing is learnt.
    missing = (-torch.expm1(log_p)).clamp_min(torch.finfo(log_p.dtype).eps)
    return -targets * missing.pow(gamma) * log_p


def focal_bce(logits: Tensor, targets: Tensor, gamma: float) -> Tensor:
    """−t (1 − p)^γ log p − (1 − t) p^γ log(1 − p) of each class, (N, K), p the sigmoid of logits (N, K).

    Powers of p are exponentials of γ log p, so that nothing is lost where p is near 0 or 1.
    """
    log_p, log_not_p = F.logsigmoid(logits), F.logsigmoid(-logits)
    return -targets * (gamma * log_not_p).exp() * log_p - (1 - targets) * (gamma * log_p).exp() * log_not_p


def prior_logits(counts: NDArray[np.float64], total: int) -> Tensor:
    """log((n + 1) / (N − n + 1)) of each class that n of N pictures have: the logits that cost least without a look.

    With balanced sampling n is how many of N draws have the class, on average. A classifier that begins there need not
    first learn that most labels are rare (Lin et al. 2017, arXiv 1708.02002, §4.1). Of 9 in 98 pictures:
    log(10 / 90) = −2.20.
    """
    return torch.from_numpy(np.log((counts + 1) / (total - counts + 1))).float()


def make_objective(
    recipe: Recipe,
    num_classes: int,
    device: torch.device,
    teacher: Teacher | None = None,
    prior: Tensor | None = None,
) -> Objective:
    """The recipe's loss on a device; its class weights are numbers already (`resolve_class_weights`)."""
    weights = recipe.class_weights
    return Objective(
        num_classes=num_classes,
        kind=recipe.loss,
        label_smoothing=recipe.label_smoothing,
        class_weights=torch.tensor(weights, device=device) if isinstance(weights, tuple) else None,
        teacher=teacher,
        prior=None if prior is None else prior.to(device),
        focal_gamma=recipe.focal_gamma,
    )


def resolve_class_weights(
    asked: str | tuple[float, ...] | None, classes: Sequence[str], counts: NDArray[np.int64]
) -> tuple[float, ...] | None:
    """Weights in the order of the classes.

    Args:
        asked: None; "balanced": pictures / (classes · pictures of the class), so that every class counts the same and
            the mean picture (of several labels, the mean label) counts 1; the path of a JSON file {"class": weight, …},
            in which missing classes get 1; or
            weights already in order.
        counts: training pictures of each class, (K,).

    Raises:
        DataError: a class to balance has no pictures; the file cannot be read, or names an unknown class.
    """
    if isinstance(asked, tuple) and (len(asked) != len(classes) or not max(asked, default=0.0) > 0 or min(asked) < 0):
        raise DataError(
            f"Class weights: {len(asked)} numbers for {len(classes)} classes; each must be ≥ 0, and one above.",
            f"In the order of the classes: {', '.join(classes[:10])}.",
        )
    if asked is None or isinstance(asked, tuple):
        return asked
    if asked != "balanced":
        return resolve_class_weights(_weights_of_file(Path(asked), classes), classes, counts)
    if not counts.all():
        empty = [name for name, count in zip(classes, counts, strict=True) if not count]
        raise DataError(f"Class weights: {', '.join(empty[:5])} has no training pictures.", "Add some.")
    return tuple(float(weight) for weight in counts.sum() / (len(classes) * counts))


def _weights_of_file(path: Path, classes: Sequence[str]) -> tuple[float, ...]:
    try:
        table = json.loads(path.read_text())
    except (OSError, ValueError) as error:
        raise DataError(
            f"Class weights: {path} is not a readable JSON file ({error}).", 'Write {"class": weight, …}, or balanced.'
        ) from error
    if not isinstance(table, dict) or not all(
        isinstance(weight, int | float) and weight >= 0 for weight in table.values()
    ):
        raise DataError(f"Class weights: {path} is not a table of numbers ≥ 0.", 'Write {"class": weight, …}.')
    unknown = sorted(table.keys() - set(classes))
    if unknown:
        raise DataError(
            f"Class weights: {path} names {', '.join(unknown[:5])}, which the pictures do not have.",
            f"They have {', '.join(classes[:10])}.",
        )
    return tuple(float(table.get(name, 1.0)) for name in classes)
