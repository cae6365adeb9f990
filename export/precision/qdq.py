"""Owns the nodes that quantize: QuantizeLinear and DequantizeLinear where a back end fuses them; no number is chosen.

ONNX Runtime and TensorRT fuse different patterns, and one graph cannot serve both. Lite0 at batch 1 in ONNX Runtime, of
the time of float32: 2.9 in TensorRT's layout, which leaves its projections between float tensors, and 0.65 in its own.

* TensorRT takes symmetric ranges only, fuses bias and activation into the convolution before they are rounded, and
  adds the residual inside it if only the skipped side was rounded (its developer guide, "Working with Quantized
  Types"). So there is a pair before each layer and on the skipped side of an addition, and biases stay float.
* ONNX Runtime runs a layer in int8 if what it reads and what it makes are rounded, with an int32 bias; a ReLU6 behind
  it costs nothing if the range has zero as its lowest step, which takes an asymmetric uint8.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import ModelProto, NodeProto, TensorProto, numpy_helper

from export.precision.rounding import FP8_MAX, Rounded
from export.precision.wiring import WEIGHTED, Wiring, copied, is_among, is_preprocessing, module_of, replace_nodes
from export.weights_apart import check_graph
from zoo.model.eight_bits import INT8_MAX, steps_from_zero, symmetric_steps


@dataclass(frozen=True, kw_only=True)
class Layout:
    """Where a back end wants its pairs: `outputs` of layers and sums too, `symmetric` ranges, `int_bias`."""

    id: str
    symmetric: bool
    outputs: bool
    int_bias: bool


TENSORRT = Layout(id="tensorrt", symmetric=True, outputs=False, int_bias=False)
ONNX_RUNTIME = Layout(id="onnxruntime", symmetric=False, outputs=True, int_bias=True)

# The range of a tensor's values that its steps cover: (low, high), low ≤ 0 ≤ high.
Ranges = Callable[[str, bool], tuple[float, float]]


def insert_pairs(
    model: ModelProto,
    rounded: Mapping[str, Rounded],
    ranges: Ranges,
    *,
    layout: Layout,
    kept: Collection[str],
    float8: bool = False,
) -> ModelProto:
    """Return a copy whose layers, but those of the modules `kept`, read and hold 8-bit numbers.

    Args:
        model: in float32.
        rounded: the weights of each layer, by its node's name.
        ranges: of a tensor, by its name and whether it has to be symmetric.
        layout: of the back end that will run it.
        kept: modules that stay as they are, blocks or parts of blocks.
        float8: e4m3fn numbers instead of integers; symmetric.
    """
    writer = _Writer(copied(model), ranges, layout, kept, float8)
    for node in writer.wiring.layers:
        if not is_among(node.name, kept):
            writer.quantize_layer(node, rounded[node.name])
    for node in writer.wiring.sums:
        if not is_among(node.name, kept):
            writer.quantize_sum(node)
    return writer.finish()


class _Writer:
    """One graph while it gets its pairs: `points` are the tensors to be rounded, each with the nodes that then read it
    rounded.
    """

    def __init__(self, model: ModelProto, ranges: Ranges, layout: Layout, kept: Collection[str], float8: bool) -> None:
        self.model = model
        self.wiring = Wiring(model)
        self.ranges = ranges
        self.layout = layout
        self.kept = kept
        self.float8 = float8
        self.points: dict[str, dict[str, NodeProto]] = {}
        self.added: list[NodeProto] = []
        self.replaced: set[str] = set()
        self.scales: dict[str, tuple[float, int]] = {}

    def quantize_layer(self, node: NodeProto, rounded: Rounded) -> None:
        """Round what a layer reads, its weight, and, where the layout says so, its bias and what it makes."""
        self._read_rounded(node.input[0], [node])
        module = module_of(node.name)
        bias = self._new_bias(node, rounded)
        if bias is not None and not self.layout.int_bias:
            self._add_weight(f"{node.input[1]}:bias", bias.astype(np.float32))
            node.input[2:] = [f"{node.input[1]}:bias"]
        elif bias is not None:
            scale = self.scale_of(node.input[0])[0] * rounded.scale
            steps = np.clip(np.rint(bias / scale), -(2**31) + 1, 2**31 - 1).astype(np.int32)
            node.input[2:] = [self._hold(f"{node.input[1]}:bias", steps, scale, f"{module}/DequantizeLinear_1")]
        node.input[1] = self._hold(node.input[1], rounded.steps, rounded.scale, f"{module}/DequantizeLinear")
        if self.layout.outputs and node.op_type == "Conv":
            activation = self.wiring.activation_of(node)
            made = (activation or node).output[0]
            self._read_rounded(made, self.wiring.consumers[made])

    def quantize_sum(self, node: NodeProto) -> None:
        """Round what a residual addition reads: the skipped side, or both and the sum."""
        if not self.layout.outputs:
            self._read_rounded(self.wiring.skipped(node), [node])
            return
        for tensor in node.input:
            self._read_rounded(tensor, [node])
        self._read_rounded(node.output[0], self.wiring.consumers[node.output[0]])

    def scale_of(self, tensor: str) -> tuple[float, int]:
        """A tensor's scale and the step that is zero."""
        if tensor not in self.scales:
            symmetric = self.layout.symmetric or self.float8
            low, high = self.ranges(tensor, symmetric)
            if symmetric:
                self.scales[tensor] = symmetric_steps(low, high, FP8_MAX if self.float8 else INT8_MAX)
            else:
                self.scales[tensor] = steps_from_zero(low, high)
        return self.scales[tensor]

    def finish(self) -> ModelProto:
        """Put the pairs behind the nodes whose tensors they round, and check the graph."""
        behind = {tensor: self._pair(tensor, readers) for tensor, readers in self.points.items()}
        taken = self.model.graph.input[0].name  # of a graph that takes normalised planes the stem reads it
        nodes = [*self.added, *behind.get(taken, [])]
        for node in self.wiring.nodes:
            nodes.append(node)
            for tensor in node.output:
                nodes += behind.get(tensor, [])
        replace_nodes(self.model, nodes)
        left = [weight for weight in self.model.graph.initializer if weight.name not in self.replaced]
        copies = [TensorProto.FromString(weight.SerializeToString()) for weight in left]
        del self.model.graph.initializer[:]
        self.model.graph.initializer.extend(copies)
        check_graph(self.model)
        return self.model

    def _new_bias(self, node: NodeProto, rounded: Rounded) -> NDArray[np.float64] | None:
        if len(node.input) > 2:
            self.replaced.add(node.input[2])
            return self.wiring.weight(node.input[2]) + rounded.shift
        return rounded.shift if np.any(rounded.shift) else None

    def _read_rounded(self, tensor: str, readers: Collection[NodeProto]) -> None:
        """Let nodes read a tensor rounded; but never a layer that is kept.

        ONNX Runtime rounds the float weights of a convolution between two pairs by itself, with one scale for all
        filters: Lite0 with nothing but one depthwise convolution kept so changed half of its answers.
        """
        rounded = {
            node.name: node for node in readers if node.op_type not in WEIGHTED or not is_among(node.name, self.kept)
        }
        self.points.setdefault(tensor, {}).update(rounded)

    def _hold(self, name: str, steps: NDArray[Any], scale: NDArray[np.float64], node: str) -> str:
        """Keep a weight in its narrow type; return the tensor that has its values."""
        self.replaced.add(name)
        if steps.dtype == np.int32:
            stored = numpy_helper.from_array(steps, f"{name}:steps")
        elif self.float8:
            stored = _float8(steps, f"{name}:steps")
        else:
            stored = numpy_helper.from_array(steps.astype(np.int8), f"{name}:steps")
        self.model.graph.initializer.append(stored)
        self._add_weight(f"{name}:scale", scale.astype(np.float32))
        inputs, output = [f"{name}:steps", f"{name}:scale"], f"{name}:rounded"
        if not self.float8:  # without its zeros ONNX Runtime leaves a classifier in float, and widens it at every call
            self._add_weight(f"{name}:zeros", np.zeros(len(scale), np.int32 if steps.dtype == np.int32 else np.int8))
            inputs.append(f"{name}:zeros")
        self.added.append(onnx.helper.make_node("DequantizeLinear", inputs, [output], name=node, axis=0))
        return output

    def _pair(self, tensor: str, readers: Mapping[str, NodeProto]) -> list[NodeProto]:
        scale, zero = self.scale_of(tensor)
        self._add_weight(f"{tensor}:scale", np.array(scale, np.float32))
        if self.float8:
            self.model.graph.initializer.append(_float8(np.zeros(()), f"{tensor}:zero"))
        else:
            kind = np.int8 if self.layout.symmetric else np.uint8
            self._add_weight(f"{tensor}:zero", np.array(zero, kind))
        given = [f"{tensor}:scale", f"{tensor}:zero"]
        steps, output = f"{tensor}:steps", f"{tensor}:rounded"
        for reader in readers.values():
            reader.input[:] = [output if name == tensor else name for name in reader.input]
        made_by = self.wiring.producers.get(tensor)
        # It is the network's, not the normalisation's.
        node = "input" if made_by is None or is_preprocessing(made_by) else tensor
        return [
            onnx.helper.make_node("QuantizeLinear", [tensor, *given], [steps], name=f"{node}/QuantizeLinear"),
            onnx.helper.make_node("DequantizeLinear", [steps, *given], [output], name=f"{node}/DequantizeLinear"),
        ]

    def _add_weight(self, name: str, values: NDArray[Any]) -> None:
        self.model.graph.initializer.append(numpy_helper.from_array(values, name))


def _float8(values: NDArray[Any], name: str) -> TensorProto:
    """A tensor of float8 e4m3fn; the values are such numbers already."""
    import torch

    held = torch.from_numpy(np.ascontiguousarray(values, np.float32)).to(torch.float8_e4m3fn)
    raw = held.view(torch.uint8).numpy().tobytes()
    return onnx.helper.make_tensor(name, TensorProto.FLOAT8E4M3FN, values.shape, raw, raw=True)
