"""Networks trained for int8: they round where the graph rounds, and export takes their ranges."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from onnx import ModelProto, load

from export.contract import Contract
from export.graph import export_onnx
from export.options import ExportOptions
from export.pipeline import export_model
from export.precision.qdq import ONNX_RUNTIME, TENSORRT
from export.precision.quantize import calibrate
from export.precision.sensitivity import infer, relative_rms_error
from export.precision.wiring import point_of
from train.options import TrainOptions
from train.session import train_model
from zoo.errors import ArtifactError
from zoo.model.build import FromPictures, build_network
from zoo.model.fake_quantize import fake_quantize, roundings
from zoo.model.spec import Variant
from zoo.model.variants import find_variant
from zoo.weights.checkpoint import load_checkpoint, read_card

TINY = find_variant("tiny")
WITH_FUSED_GATE = replace(TINY, stages=(TINY.stages[0], replace(TINY.stages[1], se_ratio=0.25), TINY.stages[2]))
WITHOUT_GATE = replace(TINY, activation="relu6", stages=tuple(replace(stage, se_ratio=0.0) for stage in TINY.stages))


@pytest.fixture(scope="session")
def qat_run(tmp_path_factory: pytest.TempPathFactory, tiny_run: Path) -> Path:
    """The run folder of tiny, fine-tuned for int8 on the digits with a progressive recipe and an average."""
    folder = tmp_path_factory.mktemp("runs") / "qat"
    sizes = {"epochs": 4, "image_size": 32, "batch_size": 32}
    asked = TrainOptions(
        model=str(tiny_run), out=folder, device="cpu", learning_rate=1e-3, qat=True, workers=0, **sizes
    )
    train_model(asked)
    return folder


@pytest.mark.parametrize(
    "variant",
    [TINY, replace(TINY, activation="relu6"), WITHOUT_GATE, WITH_FUSED_GATE],
    ids=["silu", "relu6", "relu6 without gates", "gates in fused blocks"],
)
def test_a_network_rounds_in_training_where_its_graph_does(variant: Variant, digit_pictures: NDArray[np.uint8]) -> None:
    network = build_network(variant, 10)
    preprocessing = variant.preprocessing.at(digit_pictures.shape[1])
    contract = Contract(model="tiny", classes=tuple("abcdefghij"), preprocessing=preprocessing)
    graph = export_onnx(network, contract, checkpoint={})
    fake_quantize(network)
    places = {rounding.point for _, rounding in roundings(network)}
    calibrated = calibrate(graph, digit_pictures[:2], trained=dict.fromkeys(places, (-1.0, 2.0)))
    assert _rounded_points(calibrated.quantized(layout=ONNX_RUNTIME)) == places
    assert _rounded_points(calibrated.quantized(layout=TENSORRT)) < places


def _rounded_points(graph: ModelProto) -> set[str]:
    return {point_of(node.input[0]) for node in graph.graph.node if node.op_type == "QuantizeLinear"}


def test_the_graph_of_a_trained_network_answers_as_it_does_in_training(
    qat_run: Path, tmp_path: Path, digit_pictures: NDArray[np.uint8]
) -> None:
    path = qat_run / "checkpoint.safetensors"
    asked = ExportOptions(model=str(path), precision="int8", out=tmp_path, num_pictures=12, data="digits")
    result = export_model(asked)
    card = result.passport.quantization.onnx
    assert card is not None and card.method == "trained"
    assert card.choice.kept == () and card.choice.blocks == () and card.choice.target is None
    network, checkpoint = load_checkpoint(path)
    fake_quantize(network)
    ranges = {row.point: row for row in checkpoint.ranges}
    for _, rounding in roundings(network):
        rounding.low.fill_(ranges[rounding.point].low)
        rounding.high.fill_(ranges[rounding.point].high)
    with torch.no_grad():
        trained = FromPictures(network.eval(), checkpoint.preprocessing)(torch.tensor(digit_pictures)).numpy()
    answered = infer(load(result.onnx), digit_pictures)
    assert (
        relative_rms_error(trained, answered) < 0.02
    )  # single steps fall to the other side; 0.005 when it was written
    assert (answered.argmax(1) == trained.argmax(1)).all()


def test_the_checkpoint_of_a_trained_network_is_a_float_network_with_ranges(qat_run: Path, tiny_run: Path) -> None:
    card = read_card(qat_run / "checkpoint.safetensors")
    assert card.recipe["qat"] is True and len(card.ranges) > 30
    assert all(row.low <= 0 < row.high for row in card.ranges)
    assert "ranges" not in read_card(tiny_run / "checkpoint.safetensors").to_dict()


def test_a_range_that_is_missing_is_told(tiny_graph: ModelProto, digit_pictures: NDArray[np.uint8]) -> None:
    trained = calibrate(tiny_graph, digit_pictures[:2], trained={"pool": (0.0, 1.0)})
    with pytest.raises(ArtifactError, match="without a range for"):
        trained.quantized(layout=TENSORRT)
