"""Owns a model's statistics as the protocol's extension counts them; `/metrics` has others.

Source: triton-inference-server/server docs/protocol/extension_statistics.md. Times are sums in nanoseconds.
"""

from __future__ import annotations

import threading
import time
from collections import defaultdict
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

# The extension's words for the stages of a request.
STAGES = {
    "success": "total",
    "queue": "queue",
    "compute_input": "decode",
    "compute_infer": "compute",
    "compute_output": "encode",
}


@dataclass(slots=True)
class _Duration:
    count: int = 0
    ms: float = 0.0

    def add(self, took_ms: float) -> None:
        self.count += 1
        self.ms += took_ms

    def to_dict(self) -> dict[str, int]:
        return {"count": self.count, "ns": round(self.ms * 1e6)}


class Statistics:
    """Counts of one version of a model since it was loaded. Thread-safe: batches are counted by runners' threads."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._last_ms = 0
        self._pictures = self._executions = 0
        self._sums: defaultdict[str, _Duration] = defaultdict(_Duration)
        self._batches: defaultdict[int, _Duration] = defaultdict(_Duration)

    def observe_batch(self, batch_size: int, compute_s: float) -> None:
        """Count one inference."""
        with self._lock:
            self._executions += 1
            self._batches[batch_size].add(compute_s * 1000.0)

    def observe_success(self, pictures: int, taken_ms: Mapping[str, float]) -> None:
        """Count one answered request.

        Args:
            pictures: those of it that were computed, and not kept from earlier ones.
            taken_ms: decode, queue, compute, total and, where it is known, encode.
        """
        with self._lock:
            self._last_ms = round(time.time() * 1000.0)
            self._pictures += pictures
            for name, stage in STAGES.items():
                self._sums[name].add(taken_ms.get(stage, 0.0))

    def observe_failure(self, began_s: float) -> None:
        """Count a request that was not answered; it began at `began_s` (on `time.monotonic`)."""
        with self._lock:
            self._sums["fail"].add((time.monotonic() - began_s) * 1000.0)

    def to_dict(self, name: str, version: str, look_ups: Mapping[str, dict[str, int]]) -> dict[str, Any]:
        """One element of `model_stats`; `look_ups` are those of the cache, by the extension's words."""
        with self._lock:
            return {
                "name": name,
                "version": version,
                "last_inference": self._last_ms,
                "inference_count": self._pictures,
                "execution_count": self._executions,
                "inference_stats": {
                    **{each: self._sums[each].to_dict() for each in (*STAGES, "fail")},
                    **look_ups,
                },
                "batch_stats": [
                    {
                        "batch_size": size,
                        "compute_input": {"count": spent.count, "ns": 0},
                        "compute_infer": spent.to_dict(),
                        "compute_output": {"count": spent.count, "ns": 0},
                    }
                    for size, spent in sorted(self._batches.items())
                ],
            }
