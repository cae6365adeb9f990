"""Owns running an .onnx of ours in ONNX Runtime, on the processor or a CUDA GPU; it exports nothing.

`get_available_providers` lists what was compiled in, not what works: without a driver the CUDA provider is listed too,
and is then silently replaced by the CPU's. So the driver is asked first, and afterwards the session which one it has.
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext, redirect_stdout
from pathlib import Path
from typing import Any, Literal, Self

import numpy as np
import onnxruntime as ort
from numpy.typing import NDArray
from onnx import ModelProto
from onnxruntime.capi import onnxruntime_pybind11_state as ort_errors

from export.contract import GRAPH_KEY, read_metadata
from export.interface import as_input, outputs_of
from export.passport import check_exists
from export.precision.rows import NO_FUSED_CLIPS, NO_FUSED_PAIRS
from export.runners.apart import Laps, Parts
from export.runners.binding import BoundBatch
from export.runners.runner import check_out, recorded_temperature
from export.weights_apart import find_weights, lent_to
from zoo.errors import ArtifactError, MissingCapabilityError
from zoo.machine import Device, cuda_driver, usable_cores

CPU, CUDA = "CPUExecutionProvider", "CUDAExecutionProvider"
# TF32 would round the inputs of convolutions to 10 bits: an fp32 graph is computed as one.
CUDA_OPTIONS = {"use_tf32": "0"}
# Where the memory of a session on a GPU is.
DEVICE_MEMORY: Literal["cuda", "cpu"] = "cuda"
_SILENT = 4  # only fatal messages; what goes wrong below is raised as an error of ours

# Everything onnxruntime raises for a file it cannot load; these classes have no base of their own.
_LOAD_ERRORS = (
    ort_errors.EPFail,
    ort_errors.Fail,
    ort_errors.InvalidArgument,
    ort_errors.InvalidGraph,
    ort_errors.InvalidProtobuf,
    ort_errors.NoModel,
    ort_errors.NotImplemented,
    ort_errors.RuntimeException,
)


class OnnxRunner:
    """An .onnx of ours as a `Runner`. Takes any batch size."""

    max_batch_size: int | None = None

    def __init__(
        self,
        source: Path | bytes | ModelProto,
        *,
        device: Device = "auto",
        threads: int | None = None,
        artifact: str | None = None,
        cuda_graph: bool = False,
        profile: Path | None = None,
    ) -> None:
        """Load a file, or a graph that is none yet; `device` and `threads` are as in `open_runner`.

        Args:
            source: the file, its content, or a graph of any size.
            device: as in `open_runner`.
            threads: as in `open_runner`.
            artifact: what errors call it.
            cuda_graph: replay one CUDA graph for each batch size, captured when it first comes; needs "cuda".
            profile: let onnxruntime time every node of every call; what its file is called, but for the end.

        Raises:
            ArtifactError: missing, truncated, or not exported by this project; or as `find_weights`.
            MissingCapabilityError: "cuda" without a GPU that onnxruntime can use.
        """
        self.artifact = artifact or (str(source) if isinstance(source, Path) else "graph in memory")
        if isinstance(source, Path):
            check_exists(source)
            find_weights(source)
        ort.set_default_logger_severity(_SILENT)
        self._profile = profile
        self._cuda_options = CUDA_OPTIONS | ({"enable_cuda_graph": "1"} if cuda_graph else {})
        self._session = self._open(source, device, threads)
        stored = self._session.get_modelmeta().custom_metadata_map.get(GRAPH_KEY)
        self.contract, checkpoint = read_metadata(stored, self.artifact)
        self.temperature = recorded_temperature(checkpoint.get("provenance") or {})
        provider = self._session.get_providers()[0]
        driver = cuda_driver()
        self.backend = f"onnxruntime {ort.__version__} {provider}{' CUDA graph' if cuda_graph else ''}"
        self.device = driver.gpus[0].name if provider == CUDA and driver else "CPU"
        self._on_gpu, self._cuda_graph = provider == CUDA, cuda_graph
        self._bound: dict[int, BoundBatch] = {}

    def _open(self, source: Path | bytes | ModelProto, device: Device, threads: int | None) -> ort.InferenceSession:
        listed = cuda_driver() is not None and CUDA in ort.get_available_providers()
        if device == "cuda" and not listed:
            raise MissingCapabilityError(
                "onnxruntime has no CUDA GPU to run on here.",
                "`zoo doctor` says why; --device cpu runs on the processor.",
            )
        if device == "cpu" or not listed:
            return self._session_on(CPU, {}, source, threads)
        with redirect_stdout(sys.stderr):  # it prints the libraries it cannot find
            ort.preload_dlls()
        try:
            return self._session_on(CUDA, self._cuda_options, source, threads)
        except (ArtifactError, MissingCapabilityError) as error:
            # A broken file fails here again; a good one was refused because CUDA did not start.
            session = self._session_on(CPU, {}, source, threads)
            if device == "cuda":
                raise MissingCapabilityError(
                    "onnxruntime's CUDA provider does not start on this machine.",
                    "`zoo doctor` says why; --device cpu runs on the processor.",
                ) from error
            return session

    def _session_on(
        self, provider: str, provider_options: dict[str, str], source: Path | bytes | ModelProto, threads: int | None
    ) -> ort.InferenceSession:
        options = ort.SessionOptions()
        options.log_severity_level = _SILENT
        # onnxruntime would take every core of the machine, also those that this process may not use.
        options.intra_op_num_threads = threads or usable_cores()
        # Its threads would wait for the next call by spinning, tens of milliseconds long, on the cores that a server
        # needs to read the next request.
        options.add_session_config_entry("session.force_spinning_stop", "1")
        if provider != CPU:
            options.add_session_config_entry("session.disable_cpu_ep_fallback", "1")
        if self._profile:
            options.enable_profiling, options.profile_file_prefix = True, str(self._profile)
        try:
            with _loadable(source, options) as model:
                try:
                    session = ort.InferenceSession(model, options, providers=[(provider, provider_options)])
                except _LOAD_ERRORS:
                    # A broken file fails here again; one in float8 was refused because of fused pairs.
                    options.add_session_config_entry(NO_FUSED_PAIRS, "1")
                    session = ort.InferenceSession(
                        model, options, providers=[(provider, provider_options)], disabled_optimizers=NO_FUSED_CLIPS
                    )
        except ort_errors.NotImplemented as error:
            raise MissingCapabilityError(
                f"onnxruntime {ort.__version__} has no operators for {self.artifact} on the "
                f"{'processor' if provider == CPU else 'GPU'}: {_one_line(error)}",
                "It has no bf16 on a processor; --backend openvino does. Or export in another --precision, or with an "
                "earlier --opset.",
            ) from error
        except _LOAD_ERRORS as error:
            raise ArtifactError(
                f"onnxruntime cannot load {self.artifact}: {_one_line(error)}",
                "The file is truncated or not an ONNX graph; `zoo export MODEL` writes it again.",
            ) from error
        # A provider that fails later is an error; onnxruntime would print a line and go on on the processor.
        session.disable_fallback()
        if session.get_providers()[0] != provider:
            raise ArtifactError(
                f"onnxruntime took {session.get_providers()[0]} instead of {provider}.",
                "`zoo doctor` says what works here.",
            )
        self.threads: int | None = options.intra_op_num_threads if provider == CPU else None
        return session

    def infer(self, pictures: NDArray[np.uint8], out: NDArray[np.float32] | None = None) -> NDArray[np.float32]:
        """Classify (N, S, S, C) uint8 pictures: (N, K) float32. Waits for the device.

        On the processor onnxruntime writes into `out` itself.
        """
        every = outputs_of(self.contract)[0]
        if out is not None:
            check_out(out, (len(pictures), *every.shape))
        if self._on_gpu:
            found: NDArray[np.float32] = self._run_on_gpu(pictures, outputs=1)[0]
            if out is None:
                return found
            out[...] = found
            return out
        taken = as_input(pictures, self.contract)
        if out is None:
            found = self._session.run([every.name], {self.contract.form.input_name: taken})[0]
            return found
        binding = self._session.io_binding()
        binding.bind_cpu_input(self.contract.form.input_name, np.ascontiguousarray(taken))
        binding.bind_output(every.name, "cpu", 0, np.float32, out.shape, out.ctypes.data)
        self._session.run_with_iobinding(binding)
        return out

    def outputs(self, pictures: NDArray[np.uint8]) -> dict[str, NDArray[Any]]:
        """Every output by its name."""
        names = self.contract.form.output_names
        if self._on_gpu:
            found = self._run_on_gpu(pictures)
        else:
            taken = {self.contract.form.input_name: as_input(pictures, self.contract)}
            found = self._session.run(list(names), taken)
        return dict(zip(names, found, strict=True))

    def infer_apart(self, pictures: NDArray[np.uint8]) -> tuple[NDArray[np.float32], Parts]:
        """The same answers on a GPU, and how long each part of the call took."""
        laps = Laps()
        answers = self._run_on_gpu(pictures, outputs=1, lap=laps.lap)[0]
        return answers, laps.parts()

    def _run_on_gpu(
        self, pictures: NDArray[np.uint8], outputs: int | None = None, lap: Callable[[], None] = lambda: None
    ) -> list[NDArray[Any]]:
        size = len(pictures)
        if size not in self._bound:
            self._bound[size] = BoundBatch(
                self._session, self.contract, size, device=DEVICE_MEMORY, graph=self._cuda_graph
            )
        return self._bound[size].run(as_input(pictures, self.contract), outputs=outputs, lap=lap)

    def finish_profile(self) -> Path:
        """Write the profile of all calls so far, in Chrome's trace format, and return its file."""
        return Path(self._session.end_profiling())

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *raised: object) -> None:
        self._bound.clear()
        del self._session


def _loadable(source: Path | bytes | ModelProto, options: ort.SessionOptions) -> AbstractContextManager[str | bytes]:
    """A source as a session takes it."""
    if isinstance(source, ModelProto):
        return lent_to(options, source)
    return nullcontext(str(source) if isinstance(source, Path) else source)


def _one_line(error: Exception) -> str:
    """onnxruntime's text after its own prefix: "[ONNXRuntimeError] : 7 : INVALID_PROTOBUF : …"."""
    return " ".join(str(error).split(" : ")[-1].split())[:300]
