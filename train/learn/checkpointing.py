"""Owns activation checkpointing: what a block computed is not kept for its gradient but computed again; no loop.

A training step keeps the output of every layer for its gradient. With this, it keeps each block's input alone, and one
block's layers while its gradient is made: less memory for one more forward pass, a third more computing (Chen et al.
2016, arXiv 1604.06174).
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from functools import partial

import torch
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from zoo.model.network import Network


def checkpoint_blocks(model: Network) -> None:
    """Let every block of a network compute its activations again in the backward pass, with the same numbers.

    Stochastic depth and dropout draw what they drew; batch norms move their running statistics once. Parameters and
    buffers keep their names. A copy of the model made before does not share it.
    """
    for block in model.blocks():
        norms = [module for module in block.modules() if isinstance(module, nn.BatchNorm2d | nn.SyncBatchNorm)]
        block.forward = partial(_forward, block, norms)


def _forward(block: nn.Module, norms: list[nn.BatchNorm2d | nn.SyncBatchNorm], x: Tensor) -> Tensor:
    forward = partial(type(block).forward, block)
    # Validation, and a frozen backbone, keep nothing for a gradient anyway.
    if not torch.is_grad_enabled() or not any(parameter.requires_grad for parameter in block.parameters()):
        plain: Tensor = forward(x)
        return plain
    out: Tensor = checkpoint(forward, x, use_reentrant=False, context_fn=partial(_contexts, norms))
    return out


def _contexts(
    norms: list[nn.BatchNorm2d | nn.SyncBatchNorm],
) -> tuple[AbstractContextManager[None], AbstractContextManager[None]]:
    """What the first computation happens in, and the second."""
    return nullcontext(), _statistics_kept(norms)


@contextmanager
def _statistics_kept(norms: list[nn.BatchNorm2d | nn.SyncBatchNorm]) -> Iterator[None]:
    """Batch norms normalise as ever, but their running statistics stay: they have moved in the first computation.

    A momentum of 0 adds 0 · the batch's to 1 · their own, which changes no bit; the counter that moves is a spare one.
    (Without the statistics they would save other tensors than the first time, which PyTorch refuses.)
    """
    before = [(norm, norm.momentum, norm.num_batches_tracked) for norm in norms]
    for norm, _, counter in before:
        norm.momentum = 0.0
        norm.num_batches_tracked = None if counter is None else counter.clone()
    try:
        yield
    finally:
        for norm, momentum, counter in before:
            norm.momentum, norm.num_batches_tracked = momentum, counter
