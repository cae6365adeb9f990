from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnx
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray
from onnx import ModelProto
from onnxruntime.quantization import CalibrationDataReader, QuantFormat, QuantType, quantize_static

from export.contract import Contract, Form
from export.graph import export_onnx
from export.options import ExportOptions
from export.pipeline import export_model
from export.runners.onnx_runtime import OnnxRunner
from export.runners.open import open_runner
from export.runners.openvino import LARGEST_CHUNK, OpenVinoRunner, chunks
from zoo.errors import ArtifactError, MissingCapabilityError, ZooError
from zoo.machine import usable_cores
from zoo.model.efficientnet import EfficientNet
from zoo.weights.checkpoint import Checkpoint


@pytest.fixture(scope="module")
def openvino() -> None:
    pytest.importorskip("openvino", reason="OpenVINO is not installed: pip install 'zoo[openvino]'")


@pytest.fixture
def bf16(openvino: None) -> None:
    from export.runners.openvino import import_openvino

    if "BF16" not in import_openvino().Core().get_property("CPU", "OPTIMIZATION_CAPABILITIES"):
        pytest.skip("this processor does not compute in bfloat16")


@given(st.integers(0, 300))
def test_a_batch_is_made_of_few_powers_of_two(count: int) -> None:
    made = list(chunks(count))
    assert sum(made) == count
    assert {*made} <= {1, 2, 4, 8} and made == sorted(made, reverse=True)
    assert sum(size < LARGEST_CHUNK for size in made) <= 3


def test_answers_are_those_of_onnx_runtime_at_any_batch(
    openvino: None, tiny_graph: ModelProto, digit_pictures: NDArray[np.uint8]
) -> None:
    graph = tiny_graph.SerializeToString()
    with OnnxRunner(graph, device="cpu") as reference, OpenVinoRunner(graph) as runner:
        assert runner.contract == reference.contract
        assert "f32" in runner.backend and runner.device == "CPU" and runner.max_batch_size is None
        for count in (1, 3, 12):
            pictures = digit_pictures[:count].copy()
            pictures.setflags(write=False)
            answers = runner.infer(pictures)
            assert answers.dtype == np.float32
            np.testing.assert_allclose(answers, reference.infer(pictures), rtol=1e-4, atol=1e-4)


def test_it_computes_in_float32_unless_bfloat16_is_asked_for(
    bf16: None, tiny_graph: ModelProto, tmp_path: Path, digit_pictures: NDArray[np.uint8]
) -> None:
    path = tmp_path / "tiny.onnx"
    path.write_bytes(tiny_graph.SerializeToString())
    with (
        open_runner(str(path), device="cpu") as reference,
        open_runner(str(path), backend="openvino") as full,
        open_runner(str(path), backend="openvino-bf16") as rounded,
    ):
        expected = reference.infer(digit_pictures)
        scale = np.abs(expected).max()
        assert np.abs(full.infer(digit_pictures) - expected).max() < 1e-4 * scale
        error = np.abs(rounded.infer(digit_pictures) - expected).max()
        assert 1e-4 * scale < error < 0.2 * scale
        assert "f32" in full.backend and "bf16" in rounded.backend


def test_bfloat16_that_the_processor_does_not_have_is_refused(
    openvino: None, tiny_graph: ModelProto, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules["export.runners.openvino"]._CAPABILITY, "bf16", "BF17")
    with pytest.raises(MissingCapabilityError, match="does not compute in bf16") as caught:
        OpenVinoRunner(tiny_graph.SerializeToString(), hint="bf16")
    assert "--backend openvino" in caught.value.hint


def test_threads_are_those_in_effect(openvino: None, tiny_graph: ModelProto) -> None:
    graph = tiny_graph.SerializeToString()
    with OpenVinoRunner(graph, threads=1) as one, OpenVinoRunner(graph) as usual:
        assert one.threads == 1
        assert usual.threads == usable_cores()


def test_answers_are_written_where_the_caller_says(
    openvino: None, tiny_graph: ModelProto, digit_pictures: NDArray[np.uint8]
) -> None:
    with OpenVinoRunner(tiny_graph.SerializeToString()) as runner:
        out = np.full((11, 10), np.nan, np.float32)
        assert runner.infer(digit_pictures[:11], out=out) is out
        np.testing.assert_array_equal(out, runner.infer(digit_pictures[:11]))
        with pytest.raises(ZooError, match="cannot be written into `out`"):
            runner.infer(digit_pictures[:2], out=out)


def test_planes_probabilities_and_the_highest_scores_come_out_by_name(
    openvino: None,
    tiny_model: tuple[EfficientNet, Checkpoint],
    tiny_contract: Contract,
    digit_pictures: NDArray[np.uint8],
) -> None:
    form = Form(input="float", output="probabilities", topk=3)
    contract = Contract(**{**vars(tiny_contract), "form": form})
    graph = export_onnx(tiny_model[0], contract, checkpoint={}).SerializeToString()
    with OnnxRunner(graph, device="cpu") as reference, OpenVinoRunner(graph) as runner:
        expected, found = reference.outputs(digit_pictures), runner.outputs(digit_pictures)
        assert list(found) == list(expected)
        for name, values in expected.items():
            assert found[name].dtype == values.dtype
            np.testing.assert_allclose(found[name], values, rtol=1e-3, atol=1e-5)
        np.testing.assert_allclose(runner.infer(digit_pictures), expected["probabilities"], rtol=1e-3, atol=1e-5)


class Digits(CalibrationDataReader):
    def __init__(self, pictures: NDArray[np.uint8]) -> None:
        self.batches = iter([{"pictures": pictures}])

    def get_next(self) -> dict[str, NDArray[np.uint8]] | None:
        return next(self.batches, None)


def test_a_graph_of_quantized_pairs_runs_in_eight_bits(
    openvino: None, tiny_graph: ModelProto, tmp_path: Path, digit_pictures: NDArray[np.uint8]
) -> None:
    plain, quantized = tmp_path / "tiny.onnx", tmp_path / "int8.onnx"
    plain.write_bytes(tiny_graph.SerializeToString())
    quantize_static(
        plain,
        quantized,
        Digits(digit_pictures),
        quant_format=QuantFormat.QDQ,
        per_channel=True,
        activation_type=QuantType.QInt8,
        weight_type=QuantType.QInt8,
        op_types_to_quantize=["Conv", "Gemm"],
        extra_options={"ActivationSymmetric": True, "WeightSymmetric": True, "QuantizeBias": False},
    )
    graph = quantized.read_bytes()
    with OnnxRunner(graph, device="cpu") as reference, OpenVinoRunner(graph) as runner:
        kinds = {
            info.exec_type.rpartition("_")[2]
            for info in _profiled(runner, digit_pictures[:1])
            if info.node_type == "Convolution"
        }
        assert "I8" in kinds
        expected, answers = reference.infer(digit_pictures), runner.infer(digit_pictures)
    assert (expected.argmax(1) == answers.argmax(1)).mean() >= 0.75
    assert np.corrcoef(expected.ravel(), answers.ravel())[0, 1] > 0.95


def test_eight_bits_of_an_export_pass_the_gate_in_openvino(
    openvino: None, tiny_checkpoint: Path, tmp_path: Path
) -> None:
    options = ExportOptions(
        model=str(tiny_checkpoint), out=tmp_path, precision="int8", num_pictures=60, backends=("openvino",)
    )
    result = export_model(options)
    (found,) = result.passport.parity.backends
    assert found.backend == "openvino" and found.parity.passed and found.parity.n == 60
    assert result.passport.files.onnx.precision == "int8"


def _profiled(runner: OpenVinoRunner, pictures: NDArray[np.uint8]) -> list:  # type: ignore[type-arg]
    """What each node of the network computed in."""
    core = runner._core
    core.set_property("CPU", {"PERF_COUNT": True})
    runner._requests[1] = runner._compile(1)
    runner.infer(pictures)
    return list(runner._requests[1].profiling_info)


@pytest.mark.parametrize(
    "damage", [lambda whole: b"", lambda whole: whole[:10], lambda whole: whole[: len(whole) // 2]]
)
def test_a_truncated_graph_is_one_error(
    openvino: None, damage: Callable[[bytes], bytes], tiny_graph: ModelProto, tmp_path: Path
) -> None:
    cut = tmp_path / "cut.onnx"
    cut.write_bytes(damage(tiny_graph.SerializeToString()))
    with pytest.raises(ArtifactError) as caught:
        OpenVinoRunner(cut)
    assert "\n" not in caught.value.problem and caught.value.hint
    with pytest.raises(ArtifactError, match="There is no file"):
        OpenVinoRunner(tmp_path / "none.onnx")


def test_a_graph_that_openvino_refuses_is_one_error(openvino: None, tiny_graph: ModelProto) -> None:
    graph = ModelProto()
    graph.CopyFrom(tiny_graph)
    graph.graph.node[3].op_type = "NoSuchOperator"
    with pytest.raises(ArtifactError, match="OpenVINO cannot load") as caught:
        OpenVinoRunner(graph.SerializeToString())
    assert "\n" not in caught.value.problem and "onnxruntime" in caught.value.hint
    onnx.helper.set_model_props(graph, {})
    with pytest.raises(ArtifactError, match="not exported by this project"):
        OpenVinoRunner(graph.SerializeToString())


def test_importing_it_calls_nobody(openvino: None, tmp_path: Path) -> None:
    """OpenVINO sends an event when it is imported, through a package that comes with it."""
    package = tmp_path / "openvino_telemetry"
    package.mkdir()
    (package / "__init__.py").write_text("raise SystemExit('telemetry was imported')")
    program = (
        f"import sys; sys.path.insert(0, {str(tmp_path)!r})\n"
        "from export.runners.openvino import import_openvino\n"
        "print(import_openvino().__version__, 'openvino_telemetry' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert done.stdout.split()[-1] == "False"


def test_where_it_is_not_installed_the_command_that_does_it_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    from export.runners.openvino import import_openvino

    monkeypatch.setitem(sys.modules, "openvino", None)
    with pytest.raises(MissingCapabilityError) as caught:
        import_openvino()
    assert "zoo[openvino]" in caught.value.hint
