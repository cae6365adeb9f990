"""Owns the fp16 form of a graph: weights and activations in half precision; the tolerance is in its row."""

from __future__ import annotations

from collections.abc import MutableSequence

import numpy as np
import onnx
from onnx import ModelProto, NodeProto, TensorProto, numpy_helper

from export.graph import OUTPUT, PREPROCESSING
from zoo.errors import ArtifactError

FP16_MAX = float(np.finfo(np.float16).max)  # 65504


def to_fp16(model: ModelProto) -> ModelProto:
    """Return a copy with weights and activations in float16; pictures, their normalisation and the logits stay.

    The normalisation keeps float32: it is only three nodes, and in float16 it would cost every picture its lowest
    bits. One cast enters the network and one leaves it. (onnxruntime.transformers.float16 was tried: kept nodes get
    a cast on every edge, the constants are rounded anyway, and the result fails `onnx.checker`.)

    Raises:
        ArtifactError: a weight is beyond ±65504, the largest float16.
    """
    half = ModelProto()
    half.CopyFrom(model)
    graph = half.graph
    kept = [node for node in graph.node if _is_preprocessing(node)]
    network = [node for node in graph.node if not _is_preprocessing(node)]
    _halve_weights(half, network)
    entering = {tensor for node in network for tensor in node.input} & {out for node in kept for out in node.output}
    nodes = list(kept)
    for tensor in sorted(entering):
        cast = onnx.helper.make_node(
            "Cast", [tensor], [f"{tensor}:fp16"], name=f"{PREPROCESSING}/ToFloat16", to=TensorProto.FLOAT16
        )
        nodes.append(cast)
        for node in network:
            _rename(node.input, tensor, cast.output[0])
    nodes += network
    for node in network:
        _rename(node.output, OUTPUT, f"{OUTPUT}:fp16")
    nodes.append(
        onnx.helper.make_node("Cast", [f"{OUTPUT}:fp16"], [OUTPUT], name="classifier/ToFloat32", to=TensorProto.FLOAT)
    )
    del graph.node[:]
    graph.node.extend(nodes)
    del graph.value_info[:]  # they say float32; shape inference writes them anew
    half = onnx.shape_inference.infer_shapes(half, check_type=True, strict_mode=True)
    onnx.checker.check_model(half, full_check=True)
    return half


def _is_preprocessing(node: NodeProto) -> bool:
    return node.name.startswith(f"{PREPROCESSING}/")


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
