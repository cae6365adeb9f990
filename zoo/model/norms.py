"""Owns how the batch norms of an untrained network get statistics worth having; it builds no network."""

from __future__ import annotations

from collections.abc import Iterable

import torch
from torch import Tensor, nn


def settle_batch_norms(module: nn.Module, batches: Iterable[Tensor]) -> None:
    """Replace the running statistics of every batch norm by their average over `batches`; end in evaluation mode.

    Without this an untrained network explodes or fades in evaluation: S reaches activations near 4e3 at 300 px. Only
    the norms are switched to training, so that dropout and stochastic depth take no part.

    Args:
        module: the network or a part of it, on the device of the batches.
        batches: what `module` takes, one forward pass each.
    """
    module.eval()
    momenta = {norm: norm.momentum for norm in module.modules() if isinstance(norm, nn.BatchNorm2d)}
    for norm in momenta:
        norm.reset_running_stats()
        norm.momentum = None  # PyTorch's plain average over all batches instead of a decaying one
        norm.train()
    with torch.no_grad():
        for batch in batches:
            module(batch)
    for norm, momentum in momenta.items():
        norm.momentum = momentum
    module.eval()
