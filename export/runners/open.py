"""Owns which runner opens an artifact: by its suffix, or as a model."""

from __future__ import annotations

from pathlib import Path

from export.passport import provenance_of
from export.runners.mirrored import Mirrored, check_flip
from export.runners.runner import Runner
from zoo.errors import ZooError
from zoo.machine import Device
from zoo.weights.mistaken import ARTIFACT
from zoo.weights.resolve import check_name, checkpoint_path


def open_runner(artifact: str, *, device: Device = "auto", threads: int | None = None, flip: bool = False) -> Runner:
    """Open a checkpoint, a model id, an .onnx or a .plan.

    Args:
        artifact: a path, a model's id (its run's checkpoint, else its published weights), or published weights' id.
        device: "auto" takes the GPU where there is one that works; "cuda" insists and "cpu" declines.
        threads: intra-op threads on a CPU; None leaves it to the back end.
        flip: answers are the mean of those to the picture and to its mirror image (`Mirrored`), in twice the time.

    Raises:
        ArtifactError: missing, foreign or changed, or as `check_flip`. MissingCapabilityError: the device or a package
        is not there. CheckpointError, UnknownNameError: as `zoo.weights.resolve.load_model`. ZooError: `threads`, but
        the artifact runs on a GPU.
    """
    check_name(artifact)
    if flip:
        check_flip(artifact, provenance_of(artifact))
    runner = _open(artifact, device, threads)
    if threads and runner.threads is None:
        with runner:
            raise ZooError(
                f"--threads has no effect: {artifact} runs on {runner.device}, not on the processor.", "Leave it out."
            )
    return Mirrored(runner) if flip else runner


def _open(artifact: str, device: Device, threads: int | None) -> Runner:
    suffix = Path(artifact).suffix
    if suffix == ".onnx":
        from export.runners.onnx_runtime import OnnxRunner

        return OnnxRunner(Path(artifact), device=device, threads=threads)
    if suffix == ".plan":
        from export.runners.tensorrt import TensorRTRunner

        return TensorRTRunner(Path(artifact), device=device)
    checkpoint_path(artifact, ARTIFACT)  # a mistaken name is told before a framework is loaded
    from export.runners.pytorch import TorchRunner

    return TorchRunner.from_model(artifact, device=device, threads=threads)
