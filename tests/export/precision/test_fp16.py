from __future__ import annotations

import numpy as np
import pytest
from numpy.typing import NDArray
from onnx import ModelProto, TensorProto, numpy_helper

from export.parity import judge
from export.precision.fp16 import to_fp16
from export.precision.rows import find_precision
from export.runners.onnx_runtime import OnnxRunner
from zoo.errors import ArtifactError


def test_fp16_halves_weights_and_keeps_inputs_and_outputs(tiny_graph: ModelProto) -> None:
    before = tiny_graph.SerializeToString()
    half = to_fp16(tiny_graph)
    assert tiny_graph.SerializeToString() == before, "the transform must not change its argument"
    types = {weight.name: weight.data_type for weight in half.graph.initializer}
    assert {type for name, type in types.items() if name.endswith((".weight", ".bias"))} == {TensorProto.FLOAT16}
    assert types["preprocessing.scale"] == types["preprocessing.shift"] == TensorProto.FLOAT
    assert half.graph.input == tiny_graph.graph.input
    assert half.graph.output == tiny_graph.graph.output
    assert len(half.SerializeToString()) < 0.75 * len(before)


def test_fp16_enters_and_leaves_the_network_by_one_cast_each(tiny_graph: ModelProto) -> None:
    half = to_fp16(tiny_graph)
    old = {node.name for node in tiny_graph.graph.node}
    assert [node.name for node in half.graph.node if node.name not in old] == [
        "preprocessing/ToFloat16",
        "classifier/ToFloat32",
    ]
    kinds = {info.name: info.type.tensor_type.elem_type for info in half.graph.value_info}
    for node in half.graph.node:
        expected = TensorProto.FLOAT if node.name.startswith("preprocessing/") else TensorProto.FLOAT16
        if node.op_type != "Cast":
            assert kinds[node.output[0]] == expected, node.name


def test_fp16_graph_answers_within_its_tolerance(tiny_graph: ModelProto, digit_pictures: NDArray[np.uint8]) -> None:
    row = find_precision("fp16")
    with (
        OnnxRunner(tiny_graph.SerializeToString(), device="cpu") as full,
        OnnxRunner(row.apply(tiny_graph).SerializeToString(), device="cpu") as half,
    ):
        parity = judge(full.infer(digit_pictures), half.infer(digit_pictures), row.tolerance)
    assert parity.passed, parity.failures
    assert parity.max_abs_error > 0, "a graph that loses nothing was not converted"


@pytest.mark.parametrize("value", [1e5, np.inf, np.nan])
def test_a_weight_that_fp16_cannot_hold_is_refused_by_name(value: float, tiny_graph: ModelProto) -> None:
    graph = ModelProto()
    graph.CopyFrom(tiny_graph)
    weight = next(weight for weight in graph.graph.initializer if weight.name == "head.conv.weight")
    values = numpy_helper.to_array(weight).copy()
    values.flat[0] = value
    weight.CopyFrom(numpy_helper.from_array(values, weight.name))
    with pytest.raises(ArtifactError, match=r"head\.conv\.weight"):
        to_fp16(graph)
