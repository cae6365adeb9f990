"""Owns the fp16 form of a graph: weights and activations in half precision; the tolerance is in its row."""

from __future__ import annotations

from collections.abc import MutableSequence

import numpy as np
import onnx
from onnx import ModelProto, NodeProto, TensorProto, numpy_helper

from export.graph import ANSWERS, PREPROCESSING
from zoo.errors import ArtifactError

FP16_MAX = float(np.finfo(np.float16).max)  # 65504


def to_fp16(model: ModelProto) -> ModelProto:
    """Return a copy with weights and activations in float16; its input, its normalisation and its outputs stay.

    The normalisation keeps float32: it is only three nodes, and in float16 it would cost every picture its lowest
    bits. So does what follows the logits: in float16, scores near 1 would be 5e-4 apart. One cast enters the network
    and one leaves it. (onnxruntime.transformers.float16 was tried: kept nodes get
    a cast on every edge, the constants are rounded anyway, and the result fails `onnx.checker`.)

    Raises:
        ArtifactError: a weight is beyond ±65504, the largest float16.
    """
    half = ModelProto()
    half.CopyFrom(model)
    graph = half.graph
    before, network, after = (list(filter(part, graph.node)) for part in (_is_before, _is_network, _is_after))
    _halve_weights(half, network)
    given = {out for node in before for out in node.output} | {value.name for value in graph.input}
    entering = {tensor for node in network for tensor in node.input} & given
    wanted = {tensor for node in after for tensor in node.input} | {value.name for value in graph.output}
    leaving = {tensor for node in network for tensor in node.output} & wanted
    nodes = before
    for tensor in sorted(entering):
        cast = onnx.helper.make_node(
            "Cast", [tensor], [f"{tensor}:fp16"], name=f"{PREPROCESSING}/ToFloat16", to=TensorProto.FLOAT16
        )
        nodes.append(cast)
        for node in network:
            _rename(node.input, tensor, cast.output[0])
    nodes += network
    for tensor in sorted(leaving):
        for node in network:
            _rename(node.output, tensor, f"{tensor}:fp16")
        nodes.append(
            onnx.helper.make_node(
                "Cast", [f"{tensor}:fp16"], [tensor], name="classifier/ToFloat32", to=TensorProto.FLOAT
            )
        )
    nodes += after
    del graph.node[:]
    graph.node.extend(nodes)
    del graph.value_info[:]  # they say float32; shape inference writes them anew
    half = onnx.shape_inference.infer_shapes(half, check_type=True, strict_mode=True)
    onnx.checker.check_model(half, full_check=True)
    return half


def _is_before(node: NodeProto) -> bool:
    return node.name.startswith(f"{PREPROCESSING}/")


def _is_after(node: NodeProto) -> bool:
    return node.name.startswith(f"{ANSWERS}/")


def _is_network(node: NodeProto) -> bool:
    return not (_is_before(node) or _is_after(node))


def _halve_weights(model: ModelProto, network: list[NodeProto]) -> None:
    used = {tensor for node in network for tensor in node.input}
    for weight in model.graph.initializer:
        if weight.name not in used or weight.data_type != TensorProto.FLOAT:
            continue
        values = numpy_helper.to_array(weight)
        largest = float(np.abs(values).max(initial=0.0))
        if not largest <= FP16_MAX:  # also true for NaN
            raise ArtifactError(
                f"The weight {weight.name} reaches {largest:g}; float16 ends at {FP16_MAX:g}.",
                "Export it with --trt fp32, or look at the training run: such weights have usually diverged.",
            )
        weight.CopyFrom(numpy_helper.from_array(values.astype(np.float16), weight.name))


def _rename(tensors: MutableSequence[str], old: str, new: str) -> None:
    tensors[:] = [new if tensor == old else tensor for tensor in tensors]
