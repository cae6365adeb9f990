"""Owns PyTorch's threads while something is measured."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager


@contextmanager
def torch_threads(asked: int | None) -> Iterator[int]:
    """PyTorch's threads while the block runs, as they are in effect; they are put back afterwards."""
    import torch

    before = torch.get_num_threads()
    torch.set_num_threads(asked or before)
    try:
        yield torch.get_num_threads()
    finally:
        torch.set_num_threads(before)
