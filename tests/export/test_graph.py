from __future__ import annotations

import json
from collections import Counter
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest
import torch
from numpy.typing import NDArray
from onnx import ModelProto

from export.contract import Contract
from export.graph import check_structure, export_onnx, name_by_module
from export.runners.pytorch import TorchRunner
from zoo.errors import ArtifactError
from zoo.model.efficientnet import EfficientNet
from zoo.model.variants import find_variant
from zoo.weights.checkpoint import Checkpoint


def run(graph: ModelProto, pictures: NDArray[np.uint8]) -> NDArray[np.float32]:
    session = onnxruntime.InferenceSession(graph.SerializeToString(), providers=["CPUExecutionProvider"])
    logits: NDArray[np.float32] = session.run(["logits"], {"pictures": pictures})[0]
    return logits


@pytest.mark.parametrize("batch", [1, 2, 5])
def test_graph_answers_as_the_network_does_for_any_batch(
    batch: int,
    tiny_graph: ModelProto,
    tiny_model: tuple[EfficientNet, Checkpoint],
    tiny_contract: Contract,
    digit_pictures: NDArray[np.uint8],
) -> None:
    expected = TorchRunner(tiny_model[0], tiny_contract).infer(digit_pictures[:batch])
    np.testing.assert_allclose(run(tiny_graph, digit_pictures[:batch]), expected, rtol=1e-4, atol=1e-5)


def test_only_the_batch_is_dynamic(tiny_graph: ModelProto, tiny_contract: Contract) -> None:
    size = tiny_contract.preprocessing.image_size
    (pictures,), (logits,) = tiny_graph.graph.input, tiny_graph.graph.output
    dims = [[dim.dim_param or dim.dim_value for dim in io.type.tensor_type.shape.dim] for io in (pictures, logits)]
    assert dims == [["batch", size, size, 3], ["batch", 10]]
    assert pictures.type.tensor_type.elem_type == onnx.TensorProto.UINT8
    assert logits.type.tensor_type.elem_type == onnx.TensorProto.FLOAT


def test_graph_has_no_padding_shape_arithmetic_or_batch_norm(tiny_graph: ModelProto) -> None:
    operators = Counter(node.op_type for node in tiny_graph.graph.node)
    assert not operators.keys() & {"Pad", "Shape", "Gather", "Unsqueeze", "Concat", "BatchNormalization", "Identity"}
    assert operators["Cast"] == operators["Transpose"] == operators["Gemm"] == 1


def test_maps_are_pooled_in_the_layout_of_convolutions_and_nothing_unread_is_left(tiny_graph: ModelProto) -> None:
    nodes = tiny_graph.graph.node
    assert "GlobalAveragePool" in {node.op_type for node in nodes}
    assert "ReduceMean" not in {node.op_type for node in nodes}
    read = {tensor for node in nodes for tensor in node.input}
    assert {weight.name for weight in tiny_graph.graph.initializer} <= read


def test_pictures_are_rearranged_before_they_are_normalised(tiny_graph: ModelProto) -> None:
    """TensorRT rejects a Transpose of uint8, and ONNX Runtime is slow where the three colours are the last axis."""
    first = [node.name for node in tiny_graph.graph.node[:5]]
    steps = [f"preprocessing/{operator}" for operator in ("Cast", "Transpose", "Mul", "Add")]
    assert first == [*steps, "stem.conv/Conv"]
    shapes = {weight.name: list(weight.dims) for weight in tiny_graph.graph.initializer}
    assert shapes["preprocessing.scale"] == shapes["preprocessing.shift"] == [3, 1, 1]


def test_the_same_network_is_the_same_file(
    tiny_graph: ModelProto, tiny_model: tuple[EfficientNet, Checkpoint], tiny_contract: Contract
) -> None:
    again = export_onnx(tiny_model[0], tiny_contract, checkpoint={"source": "test"})
    assert again.SerializeToString() == tiny_graph.SerializeToString()


def test_a_graph_that_is_not_its_networks_is_refused(
    tiny_graph: ModelProto, tiny_model: tuple[EfficientNet, Checkpoint]
) -> None:
    check_structure(tiny_graph, tiny_model[0])
    damaged = ModelProto()
    damaged.CopyFrom(tiny_graph)
    next(node for node in damaged.graph.node if node.name == "stem.conv/Conv").name = "stray/Conv"
    next(node for node in damaged.graph.node if node.op_type == "Add").op_type = "Pad"
    with pytest.raises(ArtifactError) as caught:
        check_structure(damaged, tiny_model[0])
    for said in ("nodes of Pad;", "lacks the convolutions stem.conv;", "not the network's: stray."):
        assert said in caught.value.problem


def test_layers_with_the_very_same_weights_are_named(tiny_model: tuple[EfficientNet, Checkpoint]) -> None:
    dead = EfficientNet(tiny_model[1].variant, 3)
    for weight in dead.parameters():
        torch.nn.init.zeros_(weight)
    contract = Contract(model="tiny", classes=("a", "b", "c"), preprocessing=tiny_model[1].preprocessing)
    with pytest.raises(ArtifactError, match=r"very same weights, among them stages\.2\.block\.0\.project\.conv"):
        export_onnx(dead, contract, checkpoint={})


def test_a_network_that_a_runner_had_is_the_same_file(
    tiny_graph: ModelProto, tiny_model: tuple[EfficientNet, Checkpoint], tiny_contract: Contract
) -> None:
    """Runners change the order of weights in memory."""
    tiny_model[0].to(memory_format=torch.channels_last)
    again = export_onnx(tiny_model[0], tiny_contract, checkpoint={"source": "test"})
    assert again.SerializeToString() == tiny_graph.SerializeToString()


def test_same_padding_is_folded_into_the_convolutions() -> None:
    variant = find_variant("tiny")
    contract = Contract(model="tiny", classes=("a", "b", "c"), preprocessing=variant.preprocessing.at(40))
    network = EfficientNet(variant, 3, padding="same")
    graph = export_onnx(network, contract, checkpoint={})
    assert "Pad" not in {node.op_type for node in graph.graph.node}
    pads = {tuple(field.ints) for node in graph.graph.node for field in node.attribute if field.name == "pads"}
    assert (0, 0, 1, 1) in pads, "TensorFlow puts the odd pixel to the right and the bottom"
    pictures = np.random.default_rng(0).integers(0, 256, (2, 40, 40, 3), dtype=np.uint8)
    expected = TorchRunner(network, contract).infer(pictures)
    np.testing.assert_allclose(run(graph, pictures), expected, rtol=1e-3, atol=1e-4)


def test_every_convolution_is_called_after_its_module(
    tiny_graph: ModelProto, tiny_model: tuple[EfficientNet, Checkpoint]
) -> None:
    modules = {name for name, module in tiny_model[0].named_modules() if isinstance(module, torch.nn.Conv2d)}
    named = {node.name.removesuffix("/Conv") for node in tiny_graph.graph.node if node.op_type == "Conv"}
    assert named == modules
    assert "stages.3.block.1.depthwise.conv" in named


def test_every_node_belongs_to_a_module_of_the_network(
    tiny_graph: ModelProto, tiny_model: tuple[EfficientNet, Checkpoint]
) -> None:
    known = {name for name, _ in tiny_model[0].named_modules()} | {"preprocessing", "pool"}
    names = [node.name for node in tiny_graph.graph.node]
    assert len(set(names)) == len(names)
    assert {name.rpartition("/")[0] for name in names} <= known
    assert {"stem.act/Sigmoid", "stages.1.block.0/Add", "stages.3.block.0.se/Mul", "classifier/Gemm"} <= set(names)


def test_every_node_can_be_counted_to_one_part_of_the_network(tiny_graph: ModelProto) -> None:
    parts = ("preprocessing", "stem", "stages.1", "stages.2", "stages.3", "head", "pool", "classifier")
    counts = {
        part: sum(node.name.startswith((f"{part}.", f"{part}/")) for node in tiny_graph.graph.node) for part in parts
    }
    assert all(counts.values())
    assert sum(counts.values()) == len(tiny_graph.graph.node)


def test_tensors_are_called_after_the_node_that_makes_them(tiny_graph: ModelProto) -> None:
    for node in tiny_graph.graph.node[:-1]:
        assert list(node.output) == [node.name]
    weights = {weight.name for weight in tiny_graph.graph.initializer}
    assert {"stem.conv.weight", "classifier.weight", "preprocessing.scale"} <= weights


def test_graph_says_nothing_of_the_machine_it_was_made_on(tiny_graph: ModelProto) -> None:
    assert str(Path.cwd()).encode() not in tiny_graph.SerializeToString()
    assert not any(node.metadata_props or node.doc_string for node in tiny_graph.graph.node)


def test_weights_are_inside_the_file(tiny_graph: ModelProto) -> None:
    assert all(weight.data_location == onnx.TensorProto.DEFAULT for weight in tiny_graph.graph.initializer)


def test_a_client_of_onnxruntime_alone_reads_the_classes(tiny_graph: ModelProto) -> None:
    session = onnxruntime.InferenceSession(tiny_graph.SerializeToString(), providers=["CPUExecutionProvider"])
    fields = json.loads(session.get_modelmeta().custom_metadata_map["zoo"])
    assert fields["contract"]["classes"] == [str(digit) for digit in range(10)]
    assert fields["contract"]["preprocessing"]["mean"] == [128.0, 128.0, 128.0]
    assert fields["checkpoint"] == {"source": "test"}


def test_a_node_of_no_module_is_refused() -> None:
    node = onnx.helper.make_node("Relu", ["pictures"], ["logits"], name="stray")
    values = [onnx.helper.make_tensor_value_info(name, onnx.TensorProto.FLOAT, [1]) for name in ("pictures", "logits")]
    graph = onnx.helper.make_model(onnx.helper.make_graph([node], "g", values[:1], values[1:]))
    with pytest.raises(ArtifactError, match="'stray'"):
        name_by_module(graph)
