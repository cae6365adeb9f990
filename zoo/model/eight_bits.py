"""Owns the arithmetic of 8 bits: how large a step of a range is, and which one is zero; no graph, no training.

Export rounds by it (`export/precision/`), and training learns to bear it (`zoo/model/fake_quantize.py`).
"""

from __future__ import annotations

import numpy as np

INT8_MAX, UINT8_MAX = 127, 255
# Scales are float16 numbers, and at least this: the float part of a graph may become float16 afterwards.
SMALLEST_SCALE = 2.0**-20


def half_scale(scale: float) -> float:
    """The float16 nearest to a scale, and at least `SMALLEST_SCALE`."""
    return float(np.float16(max(scale, SMALLEST_SCALE)))


def symmetric_steps(low: float, high: float, largest: float = INT8_MAX) -> tuple[float, int]:
    """Scale and zero of a range that is covered alike on both sides: int8, or another type up to `largest`."""
    return half_scale(max(-low, high) / largest), 0


def steps_from_zero(low: float, high: float) -> tuple[float, int]:
    """Scale and zero of a range low ≤ 0 ≤ high in uint8: −1 … 5 are 255 steps of 0.0235, and step 42 is zero."""
    scale = half_scale((high - low) / UINT8_MAX)
    return scale, int(np.clip(np.rint(-low / scale), 0, UINT8_MAX))
