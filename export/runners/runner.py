"""Owns the one seam for inference: whatever runs an artifact is a `Runner`, and everything else knows only that."""

from __future__ import annotations

from types import TracebackType
from typing import Protocol, Self

import numpy as np
from numpy.typing import NDArray

from export.contract import Contract


class Runner(Protocol):
    """An artifact loaded on a device. A context manager: leaving it frees the device.

    Not thread-safe: one caller at a time. `max_batch_size` is None where any batch is taken; `backend` and `device`
    are for people ("onnxruntime 1.31 CPUExecutionProvider", "NVIDIA H200").
    """

    artifact: str
    contract: Contract
    backend: str
    device: str
    max_batch_size: int | None
    threads: int | None  # of the processor, in effect and not as asked for; None on a GPU, or where nobody can tell

    def infer(self, pictures: NDArray[np.uint8]) -> NDArray[np.float32]:
        """Classify (N, S, S, 3) uint8 RGB pictures already at the contract's size: logits (N, K) float32."""
        ...

    def __enter__(self) -> Self: ...

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None: ...
