from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import onnx
import pytest
import torch
from numpy.typing import NDArray
from onnx import ModelProto

from export.contract import Contract
from export.runners.mirrored import Mirrored
from export.runners.onnx_runtime import OnnxRunner
from export.runners.open import open_runner
from export.runners.pytorch import TorchRunner
from export.runners.runner import Runner
from zoo.errors import ArtifactError, CheckpointError, MissingCapabilityError, UnknownNameError, ZooError
from zoo.machine import usable_processors
from zoo.model.efficientnet import EfficientNet
from zoo.weights.checkpoint import Checkpoint


@pytest.fixture(scope="session")
def onnx_file(tiny_graph: ModelProto, tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("graph") / "tiny.onnx"
    path.write_bytes(tiny_graph.SerializeToString())
    return path


def test_a_checkpoint_and_its_graph_give_the_same_answers(
    tiny_checkpoint: Path, onnx_file: Path, digit_pictures: NDArray[np.uint8]
) -> None:
    with (
        open_runner(str(tiny_checkpoint), device="cpu") as reference,
        open_runner(str(onnx_file), device="cpu") as candidate,
    ):
        assert reference.contract == candidate.contract
        assert (reference.artifact, candidate.artifact) == (str(tiny_checkpoint), str(onnx_file))
        assert reference.device == candidate.device == "CPU"
        assert reference.max_batch_size is candidate.max_batch_size is None
        expected, answered = reference.infer(digit_pictures), candidate.infer(digit_pictures)
    assert expected.dtype == answered.dtype == np.float32
    np.testing.assert_allclose(answered, expected, rtol=1e-4, atol=1e-5)


def test_read_only_pictures_are_taken(tiny_checkpoint: Path, digit_pictures: NDArray[np.uint8]) -> None:
    frozen = digit_pictures[:2].copy()
    frozen.setflags(write=False)
    with open_runner(str(tiny_checkpoint), device="cpu") as runner:
        assert runner.infer(frozen).shape == (2, 10)


def test_answers_are_written_where_the_caller_says(
    tiny_checkpoint: Path, onnx_file: Path, digit_pictures: NDArray[np.uint8]
) -> None:
    for artifact in (tiny_checkpoint, onnx_file):
        with open_runner(str(artifact), device="cpu") as runner:
            _check_out(runner, digit_pictures)
            _check_out(Mirrored(runner), digit_pictures)


def _check_out(runner: Runner, pictures: NDArray[np.uint8]) -> None:
    room = np.full((14, 10), np.nan, np.float32)
    out = room[1:13]
    assert runner.infer(pictures, out=out) is out
    np.testing.assert_array_equal(out, runner.infer(pictures))
    assert np.isnan(room[[0, 13]]).all()
    frozen = np.empty((12, 10), np.float32)
    frozen.setflags(write=False)
    wrong = (np.empty((11, 10), np.float32), np.empty((12, 10)), np.empty((24, 10), np.float32)[::2], frozen)
    for cannot in wrong:
        with pytest.raises(ZooError, match="cannot be written into `out`") as caught:
            runner.infer(pictures, out=cannot)
        assert "(12, 10)" in caught.value.hint


def test_threads_are_the_callers_again_when_a_torch_runner_closes(
    tiny_model: tuple[EfficientNet, Checkpoint], tiny_contract: Contract
) -> None:
    before = torch.get_num_threads()
    with TorchRunner(tiny_model[0], tiny_contract, threads=before + 1):
        assert torch.get_num_threads() == before + 1
    assert torch.get_num_threads() == before


def test_runners_say_the_threads_that_are_in_effect(tiny_checkpoint: Path, onnx_file: Path) -> None:
    before = torch.get_num_threads()
    for artifact in (tiny_checkpoint, onnx_file):
        with open_runner(str(artifact), device="cpu", threads=3) as runner:
            assert runner.threads == 3
    with open_runner(str(tiny_checkpoint), device="cpu") as runner:
        assert runner.threads == min(before, usable_processors())
    listed = Path("/proc/self/task")
    threads = len(list(listed.iterdir())) if listed.is_dir() else None
    with open_runner(str(onnx_file), device="cpu") as runner:
        expected = threads and len(list(listed.iterdir())) - threads + 1
        assert runner.threads == expected


def test_truncated_graph_is_one_error(onnx_file: Path, tmp_path: Path) -> None:
    whole = onnx_file.read_bytes()
    for size in (0, 10, len(whole) // 2, len(whole) - 100):
        cut = tmp_path / "cut.onnx"
        cut.write_bytes(whole[:size])
        with pytest.raises(ArtifactError) as caught:
            OnnxRunner(cut, device="cpu")
        assert "\n" not in caught.value.problem and caught.value.hint


def test_somebody_elses_graph_is_one_error_with_a_hint(tmp_path: Path) -> None:
    values = [onnx.helper.make_tensor_value_info(name, onnx.TensorProto.FLOAT, [1]) for name in ("x", "y")]
    node = onnx.helper.make_node("Relu", ["x"], ["y"])
    foreign = onnx.helper.make_model(
        onnx.helper.make_graph([node], "theirs", values[:1], values[1:]),
        opset_imports=[onnx.helper.make_opsetid("", 20)],
        ir_version=10,
    )
    path = tmp_path / "theirs.onnx"
    path.write_bytes(foreign.SerializeToString())
    with pytest.raises(ArtifactError, match="not exported by this project") as caught:
        open_runner(str(path), device="cpu")
    assert "zoo export" in caught.value.hint


@pytest.mark.parametrize("stored", ["", "{", "{}", "[]", '{"format": "zoo-graph-1"}', '{"format": "zoo-graph-9"}'])
def test_damaged_metadata_is_one_error(stored: str, tiny_graph: ModelProto, tmp_path: Path) -> None:
    graph = ModelProto()
    graph.CopyFrom(tiny_graph)
    onnx.helper.set_model_props(graph, {"zoo": stored})
    with pytest.raises(ArtifactError):
        OnnxRunner(graph.SerializeToString(), device="cpu")


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"color_order": "BGR"}, "contract.preprocessing.color_order is 'BGR'; expected RGB"),
        ({"antialias": False}, "contract.preprocessing.antialias is false; expected True"),
        ({"image_size": 10**9}, "contract.preprocessing.image_size is 1000000000; expected a whole number from 4"),
    ],
)
def test_a_contract_that_promises_what_no_client_here_does_is_refused_by_file_and_field(
    change: dict[str, object], said: str, tiny_graph: ModelProto, tmp_path: Path
) -> None:
    graph = ModelProto()
    graph.CopyFrom(tiny_graph)
    fields = json.loads(graph.metadata_props[0].value)
    fields["contract"]["preprocessing"] |= change
    onnx.helper.set_model_props(graph, {"zoo": json.dumps(fields)})
    path = tmp_path / "theirs.onnx"
    path.write_bytes(graph.SerializeToString())
    with pytest.raises(ArtifactError) as caught:
        OnnxRunner(path, device="cpu")
    assert str(path) in caught.value.problem and said in caught.value.problem


def test_missing_files_and_strange_suffixes_are_errors(in_folder: Path) -> None:
    with pytest.raises(ArtifactError, match="There is no file"):
        open_runner("missing.onnx")
    with pytest.raises(ArtifactError, match="There is no file"):
        open_runner("missing.plan")
    with pytest.raises(CheckpointError):
        open_runner("missing.safetensors")
    with pytest.raises(UnknownNameError, match="another project's weights file"):
        open_runner("model.pt")
    with pytest.raises(UnknownNameError):
        open_runner("no-such-model")


def test_cuda_that_is_not_there_is_refused_not_replaced(
    tiny_checkpoint: Path, onnx_file: Path, no_gpu: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("torch.cuda.is_available", lambda: False)
    for artifact in (tiny_checkpoint, onnx_file):
        with pytest.raises(MissingCapabilityError) as caught:
            open_runner(str(artifact), device="cuda")
        assert "--device cpu" in caught.value.hint
        with open_runner(str(artifact), device="auto") as runner:
            assert runner.device == "CPU"


def test_cuda_provider_that_does_not_start_is_noticed(
    onnx_file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A driver that answers and a provider that is listed are not enough: the session itself has to say CUDA."""
    import export.runners.onnx_runtime as module
    from zoo.machine import Driver, Gpu

    if module.cuda_driver():
        pytest.skip("this machine has a GPU, so the provider starts")
    monkeypatch.setattr(module, "cuda_driver", lambda: Driver("13.0", (Gpu("Imaginary", 1, (8, 9)),)))
    monkeypatch.setattr(module.ort, "get_available_providers", lambda: [module.CUDA, module.CPU])
    with pytest.raises(MissingCapabilityError, match="does not start"):
        OnnxRunner(onnx_file, device="cuda")
    with OnnxRunner(onnx_file, device="auto") as runner:
        assert runner.device == "CPU" and "CPU" in runner.backend
    cut = tmp_path / "cut.onnx"
    cut.write_bytes(b"no graph")
    with pytest.raises(ArtifactError):
        OnnxRunner(cut, device="cuda")
