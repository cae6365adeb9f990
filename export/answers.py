"""Owns the last step of an artifact as a module: logits to the outputs that its contract promises; it loads nothing."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from export.contract import Contract


class Answers(nn.Module):
    """Logits (N, K) to the outputs of `Form.output_names`, in their order.

    PyTorch's reference and every exported graph have this same module.
    """

    def __init__(self, contract: Contract) -> None:
        super().__init__()
        self.form = contract.form
        self.multi_label = contract.thresholds is not None

    def forward(self, logits: Tensor) -> tuple[Tensor, ...]:
        """Scores of all classes and, if asked for, the highest of them with their classes."""
        every = logits
        if self.form.output == "probabilities":
            every = torch.sigmoid(logits) if self.multi_label else torch.softmax(logits, dim=1)
        if self.form.topk is None:
            return (every,)
        top = every.topk(self.form.topk, dim=1)
        return every, top.values, top.indices
