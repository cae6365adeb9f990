"""ONNX Runtime on a GPU: bound memory, run here on the processor, and that nothing falls back without a word."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime as ort
import pytest
from numpy.typing import NDArray
from onnx import ModelProto

import export.runners.onnx_runtime as module
from export.runners.apart import Laps, Parts
from export.runners.binding import GRAPH_ID, BoundBatch
from export.runners.onnx_runtime import OnnxRunner
from export.runners.open import open_runner
from zoo.errors import ArtifactError, MissingCapabilityError
from zoo.machine import Driver, Gpu, cuda_driver

ADA = Driver("13.0", (Gpu("NVIDIA L4", 24 * 2**30, (8, 9)),))


class ProcessorAsGpu(ort.InferenceSession):  # type: ignore[misc]
    """A session that says it is CUDA's, with the memory of the processor; it records how it was opened and run."""

    opened: dict[str, Any]

    def __init__(self, model: Any, options: Any, *, providers: list[tuple[str, dict[str, str]]]) -> None:
        super().__init__(model, providers=["CPUExecutionProvider"])
        on_gpu = providers[0][0] == module.CUDA
        fallback = options.get_session_config_entry("session.disable_cpu_ep_fallback") if on_gpu else None
        self.opened = {"providers": providers, "fallback": fallback}
        self.runs: list[str] = []

    def get_providers(self) -> list[str]:
        return [self.opened["providers"][0][0]]

    def run(self, *args: Any, **kwargs: Any) -> Any:
        raise AssertionError("a GPU is fed through bound memory only")

    def run_with_iobinding(self, binding: Any, options: Any = None) -> None:
        self.runs.append(options.get_run_config_entry(GRAPH_ID))
        super().run_with_iobinding(binding, options)


@pytest.fixture
def as_gpu(monkeypatch: pytest.MonkeyPatch) -> None:
    """ONNX Runtime with a GPU that is the processor in disguise."""
    monkeypatch.setattr(module, "cuda_driver", lambda: ADA)
    monkeypatch.setattr(module.ort, "get_available_providers", lambda: [module.CUDA, module.CPU])
    monkeypatch.setattr(module.ort, "preload_dlls", lambda: None)
    monkeypatch.setattr(module.ort, "InferenceSession", ProcessorAsGpu)
    monkeypatch.setattr(module, "DEVICE_MEMORY", "cpu")


def test_batches_go_through_memory_that_is_bound_once_for_each_size(
    as_gpu: None, tiny_graph: ModelProto, digit_pictures: NDArray[np.uint8]
) -> None:
    with OnnxRunner(tiny_graph.SerializeToString(), device="cuda") as runner:
        assert runner.device == "NVIDIA L4" and runner.threads is None
        first, other = runner.infer(digit_pictures[:4]), runner.infer(digit_pictures[4:8])
        assert not np.array_equal(first, other)  # the first answers are not overwritten by the next batch
        np.testing.assert_array_equal(runner.infer(digit_pictures[:4]), first)
        out = np.empty((4, 10), np.float32)
        assert runner.infer(digit_pictures[:4], out=out) is out
        np.testing.assert_array_equal(out, first)
        np.testing.assert_array_equal(runner.outputs(digit_pictures[:4])["logits"], first)
        runner.infer(digit_pictures[:3])
        assert sorted(runner._bound) == [3, 4]
        session = runner._session
        assert {*session.runs} == {"-1"}
        assert session.opened["providers"] == [(module.CUDA, {"use_tf32": "0"})]
        assert session.opened["fallback"] == "1"
        assert not session._enable_fallback


def test_a_cuda_graph_is_captured_for_each_batch_size(
    as_gpu: None, tiny_graph: ModelProto, tmp_path: Path, digit_pictures: NDArray[np.uint8]
) -> None:
    path = tmp_path / "tiny.onnx"
    path.write_bytes(tiny_graph.SerializeToString())
    with open_runner(str(path), backend="onnxruntime-cuda-graph") as runner:
        for size in (1, 4, 1):
            runner.infer(digit_pictures[:size])
        session = runner._session  # type: ignore[attr-defined]
        assert session.runs == ["1", "4", "1"]
        assert session.opened["providers"][0][1]["enable_cuda_graph"] == "1"
        assert runner.backend.endswith("CUDA graph")


def test_a_session_that_took_another_provider_is_refused(
    as_gpu: None, tiny_graph: ModelProto, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(ProcessorAsGpu, "get_providers", lambda self: [module.CPU])
    with pytest.raises(MissingCapabilityError, match="does not start"):
        OnnxRunner(tiny_graph.SerializeToString(), device="cuda")


def test_a_cuda_graph_without_a_gpu_is_refused(no_gpu: None, tiny_graph: ModelProto, tmp_path: Path) -> None:
    path = tmp_path / "tiny.onnx"
    path.write_bytes(tiny_graph.SerializeToString())
    with pytest.raises(MissingCapabilityError, match="no CUDA GPU"):
        open_runner(str(path), backend="onnxruntime-cuda-graph")
    with pytest.raises(ArtifactError, match="There is no file"):
        open_runner(str(tmp_path / "none.onnx"), backend="onnxruntime-cuda-graph")


def test_bound_memory_holds_every_output(tiny_graph: ModelProto, digit_pictures: NDArray[np.uint8]) -> None:
    with OnnxRunner(tiny_graph.SerializeToString(), device="cpu") as runner:
        bound = BoundBatch(runner._session, runner.contract, 2, device="cpu")
        for start in (0, 2):
            pictures = digit_pictures[start : start + 2]
            np.testing.assert_array_equal(bound.run(pictures)[0], runner.infer(pictures))


def test_the_parts_of_a_call_are_told(as_gpu: None, tiny_graph: ModelProto, digit_pictures: NDArray[np.uint8]) -> None:
    with OnnxRunner(tiny_graph.SerializeToString(), device="cuda") as runner:
        answers, parts = runner.infer_apart(digit_pictures[:2])
        np.testing.assert_array_equal(answers, runner.infer(digit_pictures[:2]))
    assert parts.compute_ms > 0
    assert min(parts.host_to_device_ms, parts.device_to_host_ms) >= 0


def test_laps_are_between_moments() -> None:
    laps = Laps(clock=iter([0, 1_000_000, 5_000_000, 7_500_000]).__next__)
    for _ in range(4):
        laps.lap()
    assert laps.parts() == Parts(host_to_device_ms=1.0, compute_ms=4.0, device_to_host_ms=2.5)


@pytest.mark.gpu
@pytest.mark.parametrize("backend", ["onnxruntime", "onnxruntime-cuda-graph"])
def test_a_gpu_answers_as_the_processor(
    backend: str, tiny_graph: ModelProto, tmp_path: Path, digit_pictures: NDArray[np.uint8]
) -> None:
    if cuda_driver() is None:
        pytest.skip("this machine has no NVIDIA GPU")
    path = tmp_path / "tiny.onnx"
    path.write_bytes(tiny_graph.SerializeToString())
    with (
        open_runner(str(path), device="cpu") as reference,
        open_runner(str(path), device="cuda", backend=backend) as runner,
    ):
        for pictures in (digit_pictures, digit_pictures[:1], digit_pictures[::-1].copy()):
            np.testing.assert_allclose(runner.infer(pictures), reference.infer(pictures), rtol=1e-3, atol=1e-3)
