"""Histograms, ranges, rounding and pairs: on numbers that are known, and on the trained tiny network."""

from __future__ import annotations

from collections import Counter

import numpy as np
import onnx
import pytest
import torch
from numpy.typing import NDArray
from onnx import ModelProto, TensorProto, numpy_helper

from export.parity import judge
from export.precision.fp16 import to_fp16
from export.precision.qdq import ONNX_RUNTIME, TENSORRT
from export.precision.quantize import Calibrated, calibrate
from export.precision.ranges import choose_range, scale_and_zero
from export.precision.rounding import FP8_MAX, fp8_grid, int8_grid, round_weight
from export.precision.rows import find_precision
from export.precision.sensitivity import infer
from export.precision.statistics import Histogram, Moments
from export.precision.wiring import Wiring, block_of, part_of
from zoo.model.eight_bits import INT8_MAX


@pytest.fixture(scope="module")
def calibrated(tiny_graph: ModelProto, digit_pictures: NDArray[np.uint8]) -> Calibrated:
    return calibrate(tiny_graph, digit_pictures)


def histogram(values: NDArray[np.float32], parts: int = 5) -> Histogram:
    found = Histogram()
    for part in np.array_split(values, parts):
        found.add(part)
    return found


def test_a_histogram_grows_with_its_values_and_loses_none() -> None:
    values = np.random.default_rng(0).normal(size=5000).astype(np.float32) * np.repeat([0.1, 1, 30, 2, 5], 1000)
    found = histogram(values.astype(np.float32))
    assert found.counts.sum() == 5000
    assert (found.low, found.high) == (values.astype(np.float32).min(), values.astype(np.float32).max())
    assert found.reach >= abs(values).max()
    mean = (found.counts * found.centres).sum() / 5000
    assert mean == pytest.approx(values.mean(), abs=2 * found.reach / 2048)


@pytest.mark.parametrize("symmetric", [True, False])
@pytest.mark.parametrize("method", ["min-max", "percentile", "mse", "entropy"])
def test_every_method_covers_zero_and_clips_a_lonely_outlier_or_not(method: str, symmetric: bool) -> None:
    values = np.abs(np.random.default_rng(1).normal(size=400_000)).astype(np.float32)
    values[0] = 60.0
    low, high = choose_range(histogram(values), method, symmetric=symmetric)  # type: ignore[arg-type]
    assert low <= 0 < high
    assert (low == -high) if symmetric else (low == 0)
    assert (high == 60.0) if method == "min-max" else (high < 60.0)


def test_a_scale_has_zero_among_its_steps() -> None:
    assert scale_and_zero(-2.0, 2.0, symmetric=True) == (2 / 127, 0)
    scale, zero = scale_and_zero(-1.0, 5.0, symmetric=False)
    assert (zero, scale) == (42, 6 / 255)


def test_a_tensor_of_zeros_still_has_a_scale() -> None:
    assert choose_range(histogram(np.zeros(10, np.float32)), "mse", symmetric=False) == (0.0, 1.0)


def test_the_float8_grid_is_pytorchs() -> None:
    values = np.concatenate([np.random.default_rng(2).normal(size=4000) * 20, [0, 448, -448, 2**-9, 2**-10, 1e-5, 500]])
    expected = torch.tensor(np.clip(values, -448, 448), dtype=torch.float32).to(torch.float8_e4m3fn).double().numpy()
    np.testing.assert_array_equal(fp8_grid(values.astype(np.float32).astype(np.float64)), expected)


def moments(samples: NDArray[np.float64]) -> Moments:
    """Of (G, N, D) samples."""
    found = Moments()
    found.add(samples.astype(np.float32))
    return found


@pytest.mark.parametrize(("grid", "largest"), [(int8_grid, INT8_MAX), (fp8_grid, FP8_MAX)])
@pytest.mark.parametrize("shape", [(6, 40), (5, 3, 3, 3), (7, 1, 3, 3)])
def test_rounding_by_what_is_read_beats_the_nearest_step(shape: tuple[int, ...], grid: object, largest: float) -> None:
    """Correlated inputs with a mean, as activations are: the outputs' error, and its mean, get smaller."""
    rng = np.random.default_rng(3)
    weight = rng.normal(size=shape).astype(np.float32)
    groups, size = (shape[0], 9) if shape[1] == 1 else (1, int(np.prod(shape[1:])))
    mixing = rng.normal(size=(groups, 4, size))
    read = rng.normal(size=(groups, 4000, 4)) @ mixing + 0.1 * rng.normal(size=(groups, 4000, size)) + 2.0
    rounded = round_weight(weight, moments(read), grid, largest)  # type: ignore[arg-type]
    nearest = grid(weight.reshape(len(weight), -1) / rounded.scale[:, None])  # type: ignore[operator]

    def errors(steps: NDArray[np.float64], shift: NDArray[np.float64]) -> NDArray[np.float64]:
        missing = (weight.reshape(len(weight), -1) - steps * rounded.scale[:, None]).reshape(groups, -1, size)
        return (np.einsum("god,gnd->gon", missing, read) - shift.reshape(groups, -1)[:, :, None]).reshape(shape[0], -1)

    ours = errors(rounded.steps.reshape(len(weight), -1), rounded.shift)
    plain = errors(nearest, np.zeros(shape[0]))
    assert np.sqrt((ours**2).mean()) < 0.55 * np.sqrt((plain**2).mean())
    assert np.abs(ours.mean(axis=1)).max() < 0.01 * np.abs(plain).max()
    assert np.abs(rounded.steps).max() <= largest


def test_a_filter_of_zeros_is_rounded_to_zeros() -> None:
    weight = np.zeros((2, 4), np.float32)
    weight[1] = 1.0
    rounded = round_weight(weight, moments(np.zeros((1, 3, 4))), int8_grid, INT8_MAX)
    assert (rounded.steps[0] == 0).all() and (rounded.scale > 0).all()
    np.testing.assert_allclose(rounded.steps[1] * rounded.scale[1], 1.0, rtol=1e-3)


@pytest.mark.parametrize("shape", [(6, 700), (7, 1, 3, 3)])
@pytest.mark.parametrize("n", [1, 5000])
def test_samples_that_are_all_alike_say_the_mean_and_nothing_else(shape: tuple[int, ...], n: int) -> None:
    """Of one calibration picture, or of black ones: the covariance is zero but for what float32 rounds."""
    rng = np.random.default_rng(5)
    weight = rng.normal(size=shape).astype(np.float32)
    groups, size = (shape[0], 9) if shape[1] == 1 else (1, shape[1])
    read = np.repeat(1000 * rng.normal(size=(groups, 1, size)), n, axis=1)
    rounded = round_weight(weight, moments(read), int8_grid, INT8_MAX)
    flat, scale = weight.reshape(len(weight), -1), rounded.scale[:, None]
    # The first are rounded to the nearest step, and the later ones, whose sum they change, by some steps more.
    assert np.abs(flat - rounded.steps.reshape(flat.shape) * scale).max() < 20 * scale.max()
    missing = (flat - rounded.steps.reshape(flat.shape) * scale).reshape(groups, -1, size)
    shift = np.einsum("god,gd->go", missing, read[:, 0]).reshape(-1)
    np.testing.assert_allclose(rounded.shift, shift, rtol=1e-3, atol=1e-2)


def test_blocks_and_parts_are_named_by_the_network() -> None:
    name = "stages.3.block.5.depthwise.conv/Conv"
    assert (block_of(name), part_of(name)) == ("stages.3.block.5", "stages.3.block.5.depthwise")
    assert [block_of(name) for name in ("stem.conv/Conv", "classifier/Gemm")] == ["stem", "classifier"]


@pytest.mark.parametrize("layout", [ONNX_RUNTIME, TENSORRT])
def test_the_tiny_network_keeps_its_answers_in_int8(
    layout: object, calibrated: Calibrated, tiny_graph: ModelProto, digit_pictures: NDArray[np.uint8]
) -> None:
    before = tiny_graph.SerializeToString()
    quantized = calibrated.quantized(layout=layout)  # type: ignore[arg-type]
    assert tiny_graph.SerializeToString() == before
    found = judge(infer(tiny_graph, digit_pictures), infer(quantized, digit_pictures), find_precision("int8").tolerance)
    assert found.passed, found.failures
    assert found.relative_max_error > 1e-4, "a graph that loses nothing was not quantized"
    kinds = {weight.name: weight.data_type for weight in quantized.graph.initializer}
    steps = [kind for name, kind in kinds.items() if name.endswith(".weight:steps")]
    assert len(steps) == len(Wiring(tiny_graph).layers) and set(steps) == {TensorProto.INT8}
    assert kinds["preprocessing.scale"] == TensorProto.FLOAT


def test_tensorrts_layout_is_symmetric_and_rounds_only_what_layers_read(
    calibrated: Calibrated, tiny_graph: ModelProto
) -> None:
    quantized = calibrated.quantized(layout=TENSORRT)
    for weight in quantized.graph.initializer:
        if weight.name.endswith(":zero"):
            assert weight.data_type == TensorProto.INT8 and numpy_helper.to_array(weight) == 0
        assert weight.data_type != TensorProto.INT32, "TensorRT takes no int32 bias"
    wiring = Wiring(quantized)
    for node in wiring.layers:
        assert [wiring.producers[tensor].op_type for tensor in node.input[:2]] == ["DequantizeLinear"] * 2, node.name
    for node in wiring.sums:
        kinds = Counter(wiring.producers[tensor].op_type for tensor in node.input)
        assert kinds["DequantizeLinear"] == 1, "the skipped side alone, so that the other is added in the convolution"


def test_onnx_runtime_runs_every_convolution_of_its_layout_in_int8(
    calibrated: Calibrated, tmp_path_factory: pytest.TempPathFactory
) -> None:
    import onnxruntime as ort

    options = ort.SessionOptions()
    options.optimized_model_filepath = str(tmp_path_factory.mktemp("optimized") / "tiny.onnx")
    options.log_severity_level = 4
    graph = calibrated.quantized(layout=ONNX_RUNTIME).SerializeToString()
    ort.InferenceSession(graph, options, providers=["CPUExecutionProvider"])
    found = Counter(node.op_type for node in onnx.load(options.optimized_model_filepath).graph.node)
    assert not {kind for kind in found if kind in ("Conv", "FusedConv")}, found
    assert found["QLinearConv"] >= 3, found


def test_kept_modules_keep_their_weights_and_read_nothing_rounded(
    calibrated: Calibrated, tiny_graph: ModelProto
) -> None:
    kept = Wiring(tiny_graph).blocks[1]
    for layout in (ONNX_RUNTIME, TENSORRT):
        wiring = Wiring(calibrated.quantized(layout=layout, kept=[kept]))
        for node in wiring.layers:
            of_pairs = {wiring.producers[tensor].op_type for tensor in node.input if tensor in wiring.producers}
            assert ("DequantizeLinear" in of_pairs) == (block_of(node.name) != kept), node.name


def test_what_is_left_of_an_int8_graph_becomes_fp16(calibrated: Calibrated) -> None:
    half = to_fp16(calibrated.quantized(layout=TENSORRT))
    kinds = Counter(weight.data_type for weight in half.graph.initializer if weight.name.endswith(":scale"))
    assert set(kinds) == {TensorProto.FLOAT16}, "and its scales with it, without a change: they are float16 numbers"


def test_fp8_answers_within_its_tolerance_where_onnx_runtime_runs_it(
    calibrated: Calibrated, tiny_graph: ModelProto, digit_pictures: NDArray[np.uint8]
) -> None:
    quantized = calibrated.quantized(layout=TENSORRT, float8=True)
    assert {weight.data_type for weight in quantized.graph.initializer if weight.name.endswith(":steps")} == {
        TensorProto.FLOAT8E4M3FN
    }
    found = judge(infer(tiny_graph, digit_pictures), infer(quantized, digit_pictures), find_precision("fp8").tolerance)
    assert found.passed, found.failures
