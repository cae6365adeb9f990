"""Owns a checkpoint at another size than its own: exported in memory and opened in an engine; it times nothing."""

from __future__ import annotations

from collections.abc import Sequence

from export.backends import USUAL, BackendId, choose_backend, kind_of
from export.contract import Contract
from export.runners.runner import Runner
from export.source import at_size
from zoo.errors import ZooError
from zoo.machine import Device
from zoo.weights.resolve import load_model


def check_sizes(artifacts: Sequence[str], image_sizes: Sequence[int]) -> None:
    """Refuse sizes of artifacts that have theirs for good.

    Raises:
        ZooError: an .onnx or a .plan among the artifacts.
    """
    fixed = [artifact for artifact in artifacts if kind_of(artifact) != "checkpoint"]
    if image_sizes and fixed:
        raise ZooError(
            f"--image-size has no effect on {fixed[0]}: its size is the one it was exported at.",
            "Name the checkpoint or the model, or export once for each size (`zoo export MODEL --image-size N`) and "
            "name all files.",
        )


def open_at_size(
    artifact: str,
    image_size: int,
    *,
    device: Device = "auto",
    threads: int | None = None,
    backend: BackendId = USUAL,
) -> Runner:
    """Open a checkpoint or a model id for pictures of another size: in ONNX Runtime, or in PyTorch if asked for.

    Raises:
        ZooError: a size the network is not to be run at, or as `export.backends.choose_backend`.
        CheckpointError, UnknownNameError: as `zoo.weights.resolve.load_model`.
    """
    chosen = choose_backend(artifact, backend, device=device)
    network, card, _ = load_model(artifact)
    contract = Contract(
        model=card.variant.id,
        classes=card.classes,
        preprocessing=at_size(card.preprocessing, card.variant, image_size),
        thresholds=card.thresholds,
    )
    if backend != USUAL:
        from export.runners.compiled import AHEAD_OF_TIME, JUST_IN_TIME
        from export.runners.pytorch import TorchRunner

        compiler = {"torch-compile": JUST_IN_TIME, "torch-aot": AHEAD_OF_TIME}.get(chosen.id)
        return TorchRunner(network, contract, artifact=artifact, device=device, threads=threads, compiler=compiler)
    from export.graph import export_onnx
    from export.runners.onnx_runtime import OnnxRunner

    graph = export_onnx(network, contract, checkpoint={}).SerializeToString()
    return OnnxRunner(graph, device=device, threads=threads, artifact=artifact)
