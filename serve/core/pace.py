"""Owns how long batches take, and so how long a picture will wait: from warm-up and the newest batches; it queues none.

Warm-up times each size of batch once, on an idle machine: that is the shape. How much longer the newest batches took
than warm-up said, because other threads work too, is the level. An estimate is shape times level, so a batch of any
size tells something about all sizes.
"""

from __future__ import annotations

# Weight of the newest batch in the running mean of the level: 0.2 forgets nine tenths in ten batches.
EWMA_WEIGHT = 0.2


class RunningMean:
    """A mean that forgets: each new value has `EWMA_WEIGHT`; 0 before the first."""

    def __init__(self) -> None:
        self.value = 0.0
        self._is_empty = True

    def note(self, value: float) -> None:
        """Take one more value into account."""
        self.value = value if self._is_empty else self.value + EWMA_WEIGHT * (value - self.value)
        self._is_empty = False


class Pace:
    """Seconds that a batch takes. Not thread-safe."""

    def __init__(self) -> None:
        self._shape: dict[int, float] = {}
        self._level = RunningMean()
        self._level.note(1.0)

    def learn(self, batch_size: int, took_s: float) -> None:
        """Note a batch of the warm-up. Of several instances the slowest counts."""
        self._shape[batch_size] = max(took_s, self._shape.get(batch_size, 0.0))

    def note(self, batch_size: int, took_s: float) -> None:
        """Note a batch at work."""
        if usual_s := self._usual_s(batch_size):
            self._level.note(took_s / usual_s)

    def batch_s(self, batch_size: int) -> float:
        """Seconds a batch of so many pictures takes now; 0 where nothing is known yet."""
        return self._level.value * self._usual_s(batch_size)

    def _usual_s(self, batch_size: int) -> float:
        """Warm-up's seconds, between two of its sizes by a straight line: 8 ms at 4, 12 ms at 8 → 10 ms at 6."""
        below = max((size for size in self._shape if size <= batch_size), default=None)
        above = min((size for size in self._shape if size >= batch_size), default=None)
        if below is None or above is None:
            nearest = above if below is None else below
            return 0.0 if nearest is None else self._shape[nearest] * batch_size / nearest
        if below == above:
            return self._shape[below]
        share = (batch_size - below) / (above - below)
        return self._shape[below] + share * (self._shape[above] - self._shape[below])
