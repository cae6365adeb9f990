"""Owns how each back end opens an artifact: the row that was chosen, to the runner that is its."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from export.backends import USUAL, Backend, BackendId, choose_backend
from export.passport import provenance_of
from export.runners.mirrored import Mirrored, check_flip
from export.runners.runner import Runner
from zoo.errors import ZooError
from zoo.machine import Device
from zoo.weights.mistaken import ARTIFACT
from zoo.weights.resolve import check_name, checkpoint_path


def open_runner(
    artifact: str,
    *,
    device: Device = "auto",
    threads: int | None = None,
    flip: bool = False,
    backend: BackendId = USUAL,
) -> Runner:
    """Open a checkpoint, a model id, an .onnx or a .plan.

    Args:
        artifact: a path, a model's id (its run's checkpoint, else its published weights), or published weights' id.
        device: "auto" takes the GPU where there is one that works; "cuda" insists and "cpu" declines.
        threads: intra-op threads on a CPU; None leaves it to the back end.
        backend: what runs it (`export.backends.BACKENDS`); "auto" takes the usual one of its kind.
        flip: answers are the mean of those to the picture and to its mirror image (`Mirrored`), in twice the time.

    Raises:
        ArtifactError: missing, foreign or changed, or as `check_flip`. MissingCapabilityError: the device or a package
        is not there. CheckpointError, UnknownNameError: as `zoo.weights.resolve.load_model`. ZooError: `threads`, but
        the artifact runs on a GPU; or as `export.backends.choose_backend`.
    """
    check_name(artifact)
    if flip:
        check_flip(artifact, provenance_of(artifact))
    runner = _open(choose_backend(artifact, backend, device=device), artifact, device, threads)
    if threads and runner.threads is None:
        with runner:
            raise ZooError(
                f"--threads has no effect: {artifact} runs on {runner.device}, not on the processor.", "Leave it out."
            )
    return Mirrored(runner) if flip else runner


def _open(backend: Backend, artifact: str, device: Device, threads: int | None) -> Runner:
    if backend.opens == "checkpoint":
        checkpoint_path(artifact, ARTIFACT)  # a mistaken name is told before a framework is loaded
    return _OPENERS[backend.id](artifact, device, threads)


def _torch(artifact: str, device: Device, threads: int | None) -> Runner:
    from export.runners.pytorch import TorchRunner

    return TorchRunner.from_model(artifact, device=device, threads=threads)


def _torch_compile(artifact: str, device: Device, threads: int | None) -> Runner:
    from export.runners.compiled import JUST_IN_TIME
    from export.runners.pytorch import TorchRunner

    return TorchRunner.from_model(artifact, device=device, threads=threads, compiler=JUST_IN_TIME)


def _torch_aot(artifact: str, device: Device, threads: int | None) -> Runner:
    from export.runners.compiled import AHEAD_OF_TIME
    from export.runners.pytorch import TorchRunner

    return TorchRunner.from_model(artifact, device=device, threads=threads, compiler=AHEAD_OF_TIME)


def _onnxruntime(artifact: str, device: Device, threads: int | None) -> Runner:
    from export.runners.onnx_runtime import OnnxRunner

    return OnnxRunner(Path(artifact), device=device, threads=threads)


def _onnxruntime_cuda_graph(artifact: str, device: Device, threads: int | None) -> Runner:
    from export.runners.onnx_runtime import OnnxRunner

    return OnnxRunner(Path(artifact), device="cuda", threads=threads, cuda_graph=True)


def _openvino(artifact: str, device: Device, threads: int | None) -> Runner:
    from export.runners.openvino import OpenVinoRunner

    return OpenVinoRunner(Path(artifact), threads=threads)


def _openvino_bf16(artifact: str, device: Device, threads: int | None) -> Runner:
    from export.runners.openvino import OpenVinoRunner

    return OpenVinoRunner(Path(artifact), threads=threads, hint="bf16")


def _tensorrt(artifact: str, device: Device, threads: int | None) -> Runner:
    from export.runners.tensorrt import TensorRTRunner

    return TensorRTRunner(Path(artifact), device=device)


_OPENERS: dict[str, Callable[[str, Device, int | None], Runner]] = {
    "torch": _torch,
    "torch-compile": _torch_compile,
    "torch-aot": _torch_aot,
    "onnxruntime": _onnxruntime,
    "onnxruntime-cuda-graph": _onnxruntime_cuda_graph,
    "openvino": _openvino,
    "openvino-bf16": _openvino_bf16,
    "tensorrt": _tensorrt,
}
