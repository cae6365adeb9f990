"""Owns running an .onnx of ours in OpenVINO, on the processor; it exports nothing.

Left to itself OpenVINO computes a float32 graph in bfloat16 wherever the processor can. Here it computes in float32
unless bfloat16 is asked for, and afterwards the compiled network is asked which one it has.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Literal, Self

import numpy as np
import onnx
from google.protobuf.message import DecodeError
from numpy.typing import NDArray

from export.contract import GRAPH_KEY, read_metadata
from export.interface import as_input, input_of, outputs_of
from export.passport import check_exists
from export.runners.runner import check_out, recorded_temperature
from export.weights_apart import find_weights
from zoo.errors import ArtifactError, MissingCapabilityError
from zoo.machine import processor_name, usable_cores

# OpenVINO's names of a hint, and of the capability that a processor needs for it.
Hint = Literal["f32", "bf16"]
_CAPABILITY: dict[Hint, str] = {"f32": "FP32", "bf16": "BF16"}
_TELEMETRY = "openvino_telemetry"
# A network of a fixed batch is up to twice as fast as one whose batch is open (lite0 at 224 px, one thread: 5.2 and
# 9.4 ms). So there is one for each power of two up to this, made when it is first needed, and a batch goes through as
# few of them as make it up: 13 pictures are 8 + 4 + 1. Beyond 8 a processor gains nothing (`serve.engine`).
LARGEST_CHUNK = 8


class OpenVinoRunner:
    """An .onnx of ours as a `Runner`. Takes any batch size, in chunks of powers of two."""

    max_batch_size: int | None = None
    device = "CPU"

    def __init__(
        self, source: Path | bytes, *, hint: Hint = "f32", threads: int | None = None, artifact: str | None = None
    ) -> None:
        """Load a file, or a serialised graph that is not a file yet; `threads` is as in `open_runner`.

        Args:
            hint: what float32 layers compute in. 8-bit layers, between Q/DQ pairs, stay what they are.

        Raises:
            ArtifactError: missing, truncated, or not exported by this project; or as `find_weights`.
            MissingCapabilityError: OpenVINO is not installed, or the processor does not compute in `hint`.
        """
        self.artifact = artifact or (str(source) if isinstance(source, Path) else "graph in memory")
        if isinstance(source, Path):
            check_exists(source)
        apart = find_weights(source) if isinstance(source, Path) else None
        content = source.read_bytes() if isinstance(source, Path) else source
        self.contract, checkpoint = read_metadata(_metadata(content, self.artifact), self.artifact)
        self.temperature = recorded_temperature(checkpoint.get("provenance") or {})
        self._openvino = import_openvino()
        self._core: Any = self._openvino.Core()
        self._hint = hint
        self._asked_threads = threads or usable_cores()
        if _CAPABILITY[hint] not in self._core.get_property("CPU", "OPTIMIZATION_CAPABILITIES"):
            raise MissingCapabilityError(
                f"OpenVINO does not compute in {hint} on this processor ({processor_name()}).",
                "--backend openvino computes in float32.",
            )
        try:
            # OpenVINO looks for the weights beside a file only, and does not take a file's name of any letters.
            given = {"model": str(source)} if apart else {"model": content, "weights": b""}
            self._model: Any = self._core.read_model(**given)
            self._requests: dict[int, Any] = {1: self._compile(1)}
        except RuntimeError as error:  # what OpenVINO raises for everything
            raise ArtifactError(
                f"OpenVINO cannot load {self.artifact}: {' '.join(str(error).split())[-300:]}",
                "--backend onnxruntime runs it; `zoo export MODEL` writes it again.",
            ) from error
        self.backend = f"openvino {self._openvino.__version__.partition('-')[0]} CPU {hint}"

    def _compile(self, batch_size: int) -> Any:
        """The network for batches of one size, ready to be called; in float32, or as `hint` says, or not at all."""
        self._model.reshape([batch_size, *input_of(self.contract).shape])
        settings = {
            "INFERENCE_PRECISION_HINT": self._hint,
            "INFERENCE_NUM_THREADS": self._asked_threads,
            "NUM_STREAMS": 1,
            # Bound to processors, the threads of two instances would share the first ones.
            "ENABLE_CPU_PINNING": False,
        }
        compiled = self._core.compile_model(self._model, "CPU", settings)
        used = compiled.get_property("INFERENCE_PRECISION_HINT").to_string()
        if used != self._hint:
            raise MissingCapabilityError(
                f"OpenVINO was asked to compute in {self._hint} and takes {used}.", "--backend onnxruntime runs it."
            )
        self.threads: int | None = int(compiled.get_property("INFERENCE_NUM_THREADS"))
        return compiled.create_infer_request()

    def infer(self, pictures: NDArray[np.uint8], out: NDArray[np.float32] | None = None) -> NDArray[np.float32]:
        """Classify (N, S, S, C) uint8 pictures: (N, K) float32, which OpenVINO writes into `out` itself."""
        every = outputs_of(self.contract)[0]
        answers = check_out(out, (len(pictures), *every.shape))
        self._run(pictures, {every.name: answers})
        return answers

    def outputs(self, pictures: NDArray[np.uint8]) -> dict[str, NDArray[Any]]:
        """Every output by its name."""
        found: dict[str, NDArray[Any]] = {
            tensor.name: np.empty((len(pictures), *tensor.shape), tensor.dtype) for tensor in outputs_of(self.contract)
        }
        self._run(pictures, found)
        return found

    def _run(self, pictures: NDArray[np.uint8], into: dict[str, NDArray[Any]]) -> None:
        taken = np.ascontiguousarray(as_input(pictures, self.contract))
        if not taken.flags.writeable:  # OpenVINO borrows only memory that it could write to
            taken = taken.copy()
        start = 0
        for size in chunks(len(pictures)):
            rows = slice(start, start + size)
            if size not in self._requests:
                self._requests[size] = self._compile(size)
            request = self._requests[size]
            request.set_input_tensor(self._borrow(taken[rows]))
            for name, array in into.items():
                request.set_tensor(name, self._borrow(array[rows]))
            request.infer()
            start += size

    def _borrow(self, array: NDArray[Any]) -> Any:
        return self._openvino.Tensor(array, shared_memory=True)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *raised: object) -> None:
        del self._requests, self._model, self._core


def _metadata(graph: bytes, artifact: str) -> str | None:
    try:
        stored = onnx.load_model_from_string(graph).metadata_props
    except DecodeError as error:
        raise ArtifactError(
            f"{artifact} cannot be read: {error}.",
            "The file is truncated or not an ONNX graph; `zoo export MODEL` writes it again.",
        ) from error
    return {entry.key: entry.value for entry in stored}.get(GRAPH_KEY)


def chunks(count: int) -> Iterator[int]:
    """Powers of two up to `LARGEST_CHUNK` that add up to `count`, the largest first: 13 → 8, 4, 1."""
    size = LARGEST_CHUNK
    while count:
        while size > count:
            size //= 2
        yield size
        count -= size


def import_openvino() -> Any:
    """OpenVINO's module.

    Its import would send an event to Intel's statistics where its package for that is installed, as it is by default.
    Nothing of this project calls home: that package is hidden while it is imported.

    Raises:
        MissingCapabilityError: it is not installed.
    """
    try:
        with _hidden(_TELEMETRY):
            import openvino
    except ImportError as error:
        raise MissingCapabilityError(f"OpenVINO cannot be used: {error}.", "pip install 'zoo[openvino]'") from error
    return openvino


@contextmanager
def _hidden(package: str) -> Iterator[None]:
    """Let imports of a package fail while the block runs, unless it has been imported before."""
    if package in sys.modules:
        yield
        return
    sys.modules[package] = None  # type: ignore[assignment]  # so Python is told that there is none
    try:
        yield
    finally:
        del sys.modules[package]
