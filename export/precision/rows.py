"""Owns what each precision is: a transform of the ONNX graph and the error it may cost; it builds no engine.

Precision belongs to the graph because TensorRT 11 removed every precision flag from the builder: the engine is built
strongly typed, from whatever types the nodes have. int8 and fp8 will be two more rows with their own transforms.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import onnx
from onnx import ModelProto, NodeProto, TensorProto, numpy_helper

from export.graph import OUTPUT, PREPROCESSING
from zoo.errors import ArtifactError, look_up

FP16_MAX = float(np.finfo(np.float16).max)  # 65504


@dataclass(frozen=True, kw_only=True)
class Tolerance:
    """How far a candidate's logits may be from the reference's, as shares of the largest reference logit.

    `tie_margin` is the same share: where the reference itself prefers its first class to the candidate's choice by
    no more than this, either answer is right and a disagreement does not count. It is a typical error of the
    precision, far below `max_error`, so that one outlier that changes an answer still fails. Without this bound on
    ties the check on answers would be empty: an error within `max_error` explains every swap closer than twice it.
    """

    max_error: float
    mean_error: float
    tie_margin: float


@dataclass(frozen=True, kw_only=True)
class Precision:
    """One numeric form a graph can have. `transform` returns a new graph and leaves its argument alone."""

    id: str
    transform: Callable[[ModelProto], ModelProto]
    tolerance: Tolerance


def to_fp32(model: ModelProto) -> ModelProto:
    """The graph as it was exported."""
    return model


def to_fp16(model: ModelProto) -> ModelProto:
    """Halve the network: weights and activations in float16; pictures, their normalisation and the logits stay.

    The normalisation keeps float32 because it is three nodes on the way in and would cost the first bits of every
    picture. One cast enters the network and one leaves it. (onnxruntime.transformers.float16 was tried: kept
    nodes get a cast on every edge, the constants are rounded anyway, and the result fails `onnx.checker`.)

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
        _replace_input(network, tensor, cast.output[0])
    nodes += network
    _rename_output(network, OUTPUT, f"{OUTPUT}:fp16")
    nodes.append(
        onnx.helper.make_node("Cast", [f"{OUTPUT}:fp16"], [OUTPUT], name="classifier/ToFloat32", to=TensorProto.FLOAT)
    )
    del graph.node[:]
    graph.node.extend(nodes)
    del graph.value_info[:]  # they say float32; the inference below writes them anew
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


def _replace_input(nodes: list[NodeProto], old: str, new: str) -> None:
    for node in nodes:
        node.input[:] = [new if tensor == old else tensor for tensor in node.input]


def _rename_output(nodes: list[NodeProto], old: str, new: str) -> None:
    for node in nodes:
        node.output[:] = [new if tensor == old else tensor for tensor in node.output]


# Measured with `export.parity.judge`, PyTorch on a CPU against onnxruntime 1.31 on a CPU (which rounds every fp16
# activation, so it shows the graph's own loss). Shares of the largest logit:
#                                                               fp32 max  mean     fp16 max  mean     fp16 flips
#   lite0, its ImageNet weights, 252 crops of 18 photographs     2.3e-6  1.4e-7    1.6e-2  6.7e-4   3, ≤ 0.8e-2
#   S at 80 px, trained briefly on the digits, 360 digits        6.0e-7  1.3e-7   4.1e-4  8.5e-5   0
#   S at 384 px, random weights with settled norms, 30 tiles     1.1e-5  1.4e-7    1.2e-2  1.4e-4   0
#   resnet50 at 32 px, random weights with settled norms    1.9e-5  6.2e-6
#   tiny at 40 px, random weights with settled norms, 30 tiles   4.5e-7  4.2e-8    9.3e-4  8.0e-5   0
# "Flips" are pictures whose first class changes, with the reference's preference for its own. The bounds are the
# worst figure times two to ten; a flip is a tie up to the largest preference an honest fp16 graph overturned.
PRECISIONS: tuple[Precision, ...] = (
    Precision(
        id="fp32",
        transform=to_fp32,
        tolerance=Tolerance(max_error=1e-4, mean_error=2e-5, tie_margin=2e-5),
    ),
    Precision(
        id="fp16",
        transform=to_fp16,
        tolerance=Tolerance(max_error=4e-2, mean_error=2e-3, tie_margin=1e-2),
    ),
)


def find_precision(id: str) -> Precision:
    """Look a precision up by its id.

    Raises:
        UnknownNameError: there is none; names the nearest.
    """
    return look_up({row.id: row for row in PRECISIONS}, id, kind="precision", hint="`zoo export --help` lists them.")
