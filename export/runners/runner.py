"""Owns the one seam for inference: whatever runs an artifact is a `Runner`; all other code knows only that."""

from __future__ import annotations

import math
from collections.abc import Mapping
from contextlib import AbstractContextManager
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from export.contract import Contract
from zoo.errors import ArtifactError


class Runner(AbstractContextManager["Runner"], Protocol):
    """An artifact loaded on a device. A context manager: leaving it frees the device.

    Not thread-safe: one caller at a time. `max_batch_size` is None where a batch of any size is taken; `backend` and
    `device` are for people ("onnxruntime 1.31 CPUExecutionProvider", "NVIDIA H200").
    """

    artifact: str
    contract: Contract
    backend: str
    device: str
    max_batch_size: int | None
    temperature: float | None  # what its weights were calibrated to; None where nothing was recorded
    threads: int | None  # of the processor, in effect and not as asked for; None on a GPU, or where nobody can tell

    def infer(self, pictures: NDArray[np.uint8]) -> NDArray[np.float32]:
        """Classify (N, S, S, C) uint8 pictures, already of the contract's size and planes: (N, K) float32.

        These are logits or probabilities as the contract's form says; `export.interface.scores_of` reads both. An
        artifact that takes normalised planes gets them: the runner normalises.
        """
        ...

    def outputs(self, pictures: NDArray[np.uint8]) -> dict[str, NDArray[Any]]:
        """The same, with every output of the artifact by its name; the first is that of `infer`."""
        ...


def recorded_temperature(provenance: Mapping[str, Any]) -> float | None:
    """The temperature that `zoo train` fitted to the validation pictures, as a checkpoint's provenance has it."""
    found = provenance.get("temperature")
    if isinstance(found, int | float) and math.isfinite(found) and found > 0:
        return float(found)
    return None


def are_finite(logits: NDArray[np.float32]) -> NDArray[np.bool_]:
    """Which of N answers can be used: those without NaN and infinity. (N, K) → (N,).

    Every comparison with NaN is false: ranked among others, such an answer would count as right.
    """
    return np.asarray(np.isfinite(logits).all(axis=1))


def not_finite(artifact: str, count: int, total: int) -> ArtifactError:
    """The error of an artifact whose answers to `count` of `total` pictures cannot be used."""
    return ArtifactError(
        f"{artifact} answers {count} of {total} pictures with logits that are not finite.",
        "Its weights have diverged, or its precision is too narrow for them: look at the training, or export fp32.",
    )
