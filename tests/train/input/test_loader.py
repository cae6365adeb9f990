"""Batches on their way from the processes that decode."""

from __future__ import annotations

import pickle

import pytest
import torch

from train.input.loader import Batch


@pytest.mark.parametrize("draws", [None, torch.tensor([[1, 4, -1], [0, 2, 1]], dtype=torch.int8)])
def test_a_batch_arrives_as_it_was_sent(draws: torch.Tensor | None) -> None:
    pictures = torch.arange(24, dtype=torch.uint8).view(2, 2, 2, 3)
    sent = Batch(pictures, torch.tensor([3, 1]), ("broken.jpg is broken.",), torch.tensor([0, 2]), draws)
    came = pickle.loads(pickle.dumps(sent))
    assert came.broken == sent.broken
    for name in ("pictures", "labels", "positions", "draws"):
        before, after = getattr(sent, name), getattr(came, name)
        if before is None:
            assert after is None
        else:
            assert after.dtype == before.dtype
            assert torch.equal(after, before)
            after += 1  # writable, as tensors are
