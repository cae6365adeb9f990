"""Owns the one seam for inference: whatever runs an artifact is a `Runner`, and everything else knows only that."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any, Literal, Protocol, Self

import numpy as np
from numpy.typing import NDArray

from zoo.errors import ArtifactError
from zoo.model.spec import Preprocessing
from zoo.weights.resolve import CHECKPOINT_SUFFIX, ROW_SUFFIX
from zoo.weights.table import is_weights_id

Device = Literal["auto", "cpu", "cuda"]
# Where a graph carries its contract: JSON under this key of the ONNX metadata.
GRAPH_KEY = "zoo"
GRAPH_FORMAT = "zoo-graph-1"


@dataclass(frozen=True, kw_only=True)
class Contract:
    """What a client must know of an artifact: which network, which classes, which pictures it takes."""

    model: str
    classes: tuple[str, ...]
    preprocessing: Preprocessing

    def to_dict(self) -> dict[str, Any]:
        """Return plain JSON types."""
        return {
            "model": self.model,
            "classes": list(self.classes),
            "preprocessing": self.preprocessing.to_dict(),
        }

    @classmethod
    def from_dict(cls, fields: Mapping[str, Any]) -> Self:
        """Read what `to_dict` wrote."""
        return cls(
            model=fields["model"],
            classes=tuple(fields["classes"]),
            preprocessing=Preprocessing.from_dict(fields["preprocessing"]),
        )


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

    def infer(self, pictures: NDArray[np.uint8]) -> NDArray[np.float32]:
        """Classify (N, S, S, 3) uint8 RGB pictures already at the contract's size: logits (N, K) float32."""
        ...

    def __enter__(self) -> Self: ...

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None: ...


def open_runner(artifact: str, *, device: Device = "auto", threads: int | None = None) -> Runner:
    """Open a checkpoint, a model id, an .onnx or a .plan.

    Args:
        artifact: a path, a model's id (its run's checkpoint, else its published weights), or published weights' id.
        device: "auto" takes the GPU where there is one that works; "cuda" insists and "cpu" declines.
        threads: intra-op threads on a CPU; None leaves it to the back end.

    Raises:
        ArtifactError: missing, foreign or changed. MissingCapabilityError: the device or a package is not there.
        CheckpointError, UnknownNameError: as `zoo.weights.resolve.load_model`.
    """
    suffix = Path(artifact).suffix
    if suffix == ".onnx":
        from export.runners.onnx_runtime import OnnxRunner

        return OnnxRunner(Path(artifact), device=device, threads=threads)
    if suffix == ".plan":
        from export.runners.tensorrt import TensorRTRunner

        return TensorRTRunner(Path(artifact), device=device)
    if suffix not in ("", CHECKPOINT_SUFFIX, ROW_SUFFIX) and not is_weights_id(artifact):
        raise ArtifactError(
            f"{artifact} is none of .safetensors, .onnx and .plan.", "`zoo export MODEL` makes the last two."
        )
    from export.runners.pytorch import TorchRunner

    return TorchRunner.from_model(artifact, device=device, threads=threads)
