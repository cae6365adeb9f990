"""Owns the pictures that forms are timed on: random numbers, the same for everything compared."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

_SEED = 0


def random_pictures(batch_size: int, size: int, channels: int = 3) -> NDArray[np.uint8]:
    """(N, S, S, C) uint8, every value as likely."""
    return np.random.default_rng(_SEED).integers(0, 256, (batch_size, size, size, channels), np.uint8)
