"""Where a graph leaves its network: the block that was damaged is named, in every precision; float64 judges."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from onnx import ModelProto, numpy_helper

from export.contract import Contract
from export.divergence import Divergence, find_divergence
from export.graph import export_onnx
from export.options import ExportOptions
from export.pipeline import export_model
from export.precision.fp16 import to_fp16
from export.precision.qdq import ONNX_RUNTIME
from export.precision.quantize import calibrate
from export.precision.rows import find_precision
from export.precision.wiring import copied
from zoo.errors import VerdictError
from zoo.model.build import build_network
from zoo.model.efficientnet import EfficientNet
from zoo.model.variants import find_variant
from zoo.weights.checkpoint import Checkpoint

FP32 = find_precision("fp32")
WEIGHTS = ("stem.conv.weight", "stages.2.block.1.project.conv.weight", "stages.3.block.0.depthwise.conv.weight")


def damaged(graph: ModelProto, weight: str) -> ModelProto:
    """A copy with one weight reversed."""
    copy = copied(graph)
    found = next(initializer for initializer in copy.graph.initializer if initializer.name == weight)
    values = np.ascontiguousarray(numpy_helper.to_array(found)[::-1])
    found.CopyFrom(numpy_helper.from_array(values, weight))
    return copy


@pytest.mark.parametrize("precision", ["fp32", "fp16", "int8"])
@pytest.mark.parametrize("weight", WEIGHTS)
def test_the_damaged_block_is_named(
    weight: str,
    precision: str,
    tiny_graph: ModelProto,
    tiny_model: tuple[EfficientNet, Checkpoint],
    tiny_contract: Contract,
    digit_pictures: NDArray[np.uint8],
) -> None:
    graph = damaged(tiny_graph, weight)
    if precision == "fp16":
        graph = to_fp16(graph)
    if precision == "int8":
        graph = calibrate(graph, digit_pictures).quantized(layout=ONNX_RUNTIME)
    found = find_divergence(tiny_model[0], tiny_contract, graph, find_precision(precision), digit_pictures)
    assert weight.startswith(f"{found.first}.")
    assert next(iter(found.errors)) == "preprocessing" and list(found.errors)[-1] == "classifier"
    assert "well conditioned" in found.words(1e-4)


def test_without_damage_no_block_is_named(
    tiny_graph: ModelProto,
    tiny_model: tuple[EfficientNet, Checkpoint],
    tiny_contract: Contract,
    digit_pictures: NDArray[np.uint8],
) -> None:
    found = find_divergence(tiny_model[0], tiny_contract, tiny_graph, FP32, digit_pictures)
    assert found.first is None and max(found.errors.values()) < 1e-5 and found.own_error < 1e-5
    assert found.words(1e-4).startswith("No block stands out")


def test_a_network_that_float32_cannot_compute_is_told() -> None:
    said = Divergence({"stem": 1e-6, "head": 2e-6}, rounding=1e-5, own_error=0.3).words(1e-4)
    assert "ill-conditioned: in PyTorch, float32 is 0.3" in said


def test_values_that_are_not_finite_are_the_first_difference() -> None:
    assert Divergence({"stem": 1e-6, "stages.1.block.0": float("inf"), "head": float("inf")}, 1e-5, 1e-6).first == (
        "stages.1.block.0"
    )


def test_the_blocks_of_a_resnet_are_told_apart(digit_pictures: NDArray[np.uint8]) -> None:
    torch.manual_seed(0)
    variant = find_variant("resnet50")
    network = build_network(variant, 3).eval()
    contract = Contract(model="resnet50", classes=("a", "b", "c"), preprocessing=variant.preprocessing.at(32))
    graph = damaged(export_onnx(network, contract, checkpoint={}), "backbone.layer2.1.conv2.weight")
    pictures = np.ascontiguousarray(digit_pictures[:2, :32, :32])
    assert find_divergence(network, contract, graph, FP32, pictures).first == "backbone.layer2.1"


def test_the_gate_names_the_block(tiny_checkpoint: Path, tmp_path: Path, exports_this_graph: ModelProto) -> None:
    exports_this_graph.CopyFrom(damaged(exports_this_graph, WEIGHTS[1]))
    asked = ExportOptions(model=str(tiny_checkpoint), out=tmp_path, num_pictures=12, data="digits")
    with pytest.raises(VerdictError, match=r"The first block to differ is stages\.2\.block\.1: .*well conditioned"):
        export_model(asked)
    assert not list(tmp_path.iterdir())
