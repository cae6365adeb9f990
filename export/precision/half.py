"""Owns the 16-bit forms of a graph: weights and activations in half precision; the tolerances are in their rows."""

from __future__ import annotations

from collections.abc import MutableSequence

import numpy as np
import onnx
import torch
from numpy.typing import NDArray
from onnx import ModelProto, TensorProto, numpy_helper

from export.graph import PREPROCESSING
from export.precision.wiring import copied, is_answer, is_network, is_preprocessing, replace_nodes
from export.weights_apart import check_graph, infer_types
from zoo.errors import ArtifactError

FP16_MAX = float(np.finfo(np.float16).max)  # 65504


def to_half(model: ModelProto, kind: int) -> ModelProto:
    """Return a copy with weights and activations in 16 bits; its input, its normalisation and its outputs stay.

    The normalisation keeps float32: it is only three nodes, and in 16 bits it would cost every picture its lowest bits.
    So does what follows the logits: in float16, scores near 1 would be 5e-4 apart. One cast enters the network and one
    leaves it. (onnxruntime.transformers.float16 was tried: kept nodes get a cast on every edge, the constants are
    rounded anyway, and the result fails `onnx.checker`.)

    Args:
        model: in float32; what is quantized in it stays so, between 16-bit numbers.
        kind: `TensorProto.FLOAT16` or `BFLOAT16`.

    Raises:
        ArtifactError: a weight is beyond ±65504, the largest float16.
    """
    half = copied(model)
    name = "Float16" if kind == TensorProto.FLOAT16 else "BFloat16"
    before, network, after = (list(filter(part, half.graph.node)) for part in (is_preprocessing, is_network, is_answer))
    used = {tensor for node in network for tensor in node.input}
    for weight in half.graph.initializer:
        if weight.name in used and weight.data_type == TensorProto.FLOAT:
            weight.CopyFrom(_halved(numpy_helper.to_array(weight), weight.name, kind))
    given = {out for node in before for out in node.output} | {value.name for value in half.graph.input}
    wanted = {tensor for node in after for tensor in node.input} | {value.name for value in half.graph.output}
    nodes = before
    for tensor in sorted(used & given):
        entered = f"{tensor}:{name.lower()}"
        nodes.append(onnx.helper.make_node("Cast", [tensor], [entered], name=f"{PREPROCESSING}/To{name}", to=kind))
        for node in network:
            _rename(node.input, tensor, entered)
    nodes += network
    for tensor in sorted({out for node in network for out in node.output} & wanted):
        left = f"{tensor}:{name.lower()}"
        for node in network:
            _rename(node.output, tensor, left)
        nodes.append(onnx.helper.make_node("Cast", [left], [tensor], name="classifier/ToFloat32", to=TensorProto.FLOAT))
    nodes += after
    replace_nodes(half, nodes)  # what was known of types said float32; shape inference writes them anew
    infer_types(half)
    check_graph(half)
    return half


def _halved(values: NDArray[np.float32], name: str, kind: int) -> TensorProto:
    largest = float(np.abs(values).max(initial=0.0))
    if kind == TensorProto.FLOAT16:
        if not largest <= FP16_MAX:  # also true for NaN
            raise ArtifactError(
                f"The weight {name} reaches {largest:g}; float16 ends at {FP16_MAX:g}.",
                "Export it as fp32 or bf16, or look at the training run: such weights have usually diverged.",
            )
        return numpy_helper.from_array(values.astype(np.float16), name)
    # NumPy has no bfloat16. Its bits are those of PyTorch's.
    bits = torch.tensor(values).to(torch.bfloat16).view(torch.int16).numpy()
    return onnx.helper.make_tensor(name, kind, values.shape, bits.tobytes(), raw=True)


def _rename(tensors: MutableSequence[str], old: str, new: str) -> None:
    tensors[:] = [new if tensor == old else tensor for tensor in tensors]
