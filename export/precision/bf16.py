"""Owns the bf16 form of a graph, and a float32 graph that rounds as it does, for back ends that have no bfloat16."""

from __future__ import annotations

import numpy as np
import onnx
import torch
from numpy.typing import NDArray
from onnx import ModelProto, NodeProto, TensorProto, numpy_helper

from export.precision.half import to_half
from export.precision.wiring import Wiring, copied, is_network, replace_nodes
from export.weights_apart import check_graph

FIRST_OPSET, FIRST_IR = 22, 10


def to_bf16(model: ModelProto) -> ModelProto:
    """Return a copy in bfloat16, as `export.precision.half.to_half`. TensorRT runs it; ONNX Runtime on a CPU does not.

    Its operator set is 22 at least, the first whose convolutions take bfloat16; our operators only gained types in it.
    """
    graph = copied(model)
    for imported in graph.opset_import:
        if not imported.domain:
            imported.version = max(imported.version, FIRST_OPSET)
    graph.ir_version = max(graph.ir_version, FIRST_IR)
    return to_half(graph, TensorProto.BFLOAT16)


def rounded_as_bf16(model: ModelProto) -> ModelProto:
    """Return a float32 copy whose weights and activations are rounded to bfloat16: what `to_bf16` answers, to the last
    bits, where every node rounds what it makes.
    """
    graph = copied(model)
    wiring = Wiring(graph)
    for name, weight in wiring.weights.items():
        readers = wiring.consumers[name]
        if weight.data_type == TensorProto.FLOAT and all(map(is_network, readers)):
            wiring.set_weight(name, _rounded(numpy_helper.to_array(weight)))
    nodes: list[NodeProto] = []
    for node in wiring.nodes:
        for index, tensor in enumerate(node.input):
            if tensor in wiring.producers and is_network(node):
                node.input[index] = f"{tensor}:rounded"
    for node in wiring.nodes:
        nodes.append(node)
        for tensor in node.output:
            if any(map(is_network, wiring.consumers[tensor])):
                narrow = f"{tensor}:bfloat16"
                nodes += [
                    onnx.helper.make_node(
                        "Cast", [tensor], [narrow], name=f"{tensor}/ToBFloat16", to=TensorProto.BFLOAT16
                    ),
                    onnx.helper.make_node(
                        "Cast", [narrow], [f"{tensor}:rounded"], name=f"{tensor}/ToFloat32", to=TensorProto.FLOAT
                    ),
                ]
    replace_nodes(graph, nodes)
    check_graph(graph)
    return graph


def _rounded(values: NDArray[np.float32]) -> NDArray[np.float32]:
    rounded: NDArray[np.float32] = torch.tensor(values).to(torch.bfloat16).to(torch.float32).numpy()
    return rounded
