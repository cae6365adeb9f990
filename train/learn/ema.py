"""Owns the exponential moving average of the weights, batch-norm statistics included; evaluation uses it."""

from __future__ import annotations

from copy import deepcopy

import torch
from torch import Tensor

from train.progressive.schedule import ema_decay
from zoo.model.network import Network


class WeightAverage:
    """An averaged copy of a model, in evaluation mode.

    Batch-norm statistics are averaged like the weights, as in google/automl: averaged weights need averaged statistics.
    With a decay of 0 it is a copy that follows the model, bit for bit.
    """

    def __init__(self, model: Network, decay: float) -> None:
        self.model = deepcopy(model).eval().requires_grad_(False)
        self.decay = decay
        self._pairs: tuple[list[Tensor], list[Tensor]] | None = None

    @torch.no_grad()
    def update(self, model: Network, step: int) -> None:
        """Move the average towards `model` after step `step` (from 0)."""
        if self._pairs is None:  # only the tensors' values change: they are paired once
            pairs = zip(self.model.state_dict().values(), model.state_dict().values(), strict=True)
            floats = [pair for pair in pairs if pair[0].is_floating_point()]
            self._pairs = [own for own, _ in floats], [other for _, other in floats]
        if self.decay:
            torch._foreach_lerp_(*self._pairs, 1.0 - ema_decay(self.decay, step))
        else:
            torch._foreach_copy_(*self._pairs)
