"""Owns how the nodes of a graph hang together: who makes a tensor, who reads it, which block that is; changes none."""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Collection, Iterable

import numpy as np
from numpy.typing import NDArray
from onnx import ModelProto, NodeProto, TensorProto, numpy_helper

from export.graph import ANSWERS, PREPROCESSING
from zoo.model.fake_quantize import INPUT, SUFFIX_OF_POOLED

# What has weights and is worth a narrow type; everything else is additions and activations between these.
WEIGHTED = ("Conv", "Gemm")
_BLOCK = re.compile(r"stages\.\d+\.block\.\d+|backbone\.layer\d+\.\d+")


def module_of(name: str) -> str:
    """The module of a node: `stages.3.block.5.depthwise.conv/Conv` → `stages.3.block.5.depthwise.conv`."""
    return name.rsplit("/", 1)[0]


def block_of(name: str) -> str:
    """The block a node belongs to: `stages.3.block.5.depthwise.conv/Conv` → `stages.3.block.5`; `stem`, `head`, …"""
    found = _BLOCK.match(name)
    return found[0] if found else re.split(r"[./]", name, maxsplit=1)[0]


def part_of(name: str) -> str:
    """The part of a block that a layer is: `stages.3.block.5.depthwise.conv/Conv` → `stages.3.block.5.depthwise`."""
    return module_of(name).removesuffix(".conv")


def point_of(tensor: str) -> str:
    """What training for 8 bits calls a tensor (`zoo.model.fake_quantize`): the module that makes it.

    `stages.3.block.5.se/ReduceMean` → `stages.3.block.5.se.pooled`, because the same module makes the product too.
    """
    module, _, operator = tensor.partition("/")
    if not operator:
        return INPUT  # normalised planes, as the client made them
    return f"{module}.{SUFFIX_OF_POOLED}" if operator.startswith(("ReduceMean", "GlobalAveragePool")) else module


def is_among(name: str, kept: Collection[str]) -> bool:
    """Whether a node belongs to one of the modules `kept`: a block, or a part of one."""
    module = module_of(name)
    return any(module == path or module.startswith(f"{path}.") for path in kept)


class Wiring:
    """A graph by its tensors. `weights` are its initializers by name; `layers` its convolutions and its classifier."""

    def __init__(self, model: ModelProto) -> None:
        self.nodes: list[NodeProto] = list(model.graph.node)
        self.weights: dict[str, TensorProto] = {weight.name: weight for weight in model.graph.initializer}
        self.producers = {tensor: node for node in self.nodes for tensor in node.output}
        self.consumers: defaultdict[str, list[NodeProto]] = defaultdict(list)
        for node in self.nodes:
            for tensor in node.input:
                self.consumers[tensor].append(node)
        self.layers = [node for node in self.nodes if node.op_type in WEIGHTED]

    @property
    def blocks(self) -> tuple[str, ...]:
        """Every block that has weights, in the order of the graph."""
        return tuple(dict.fromkeys(block_of(node.name) for node in self.layers))

    @property
    def logits(self) -> str:
        """The tensor that the classifier makes, an output or not."""
        return str(self.layers[-1].output[0])

    @property
    def sums(self) -> list[NodeProto]:
        """The residual additions."""
        return [node for node in self.nodes if node.op_type == "Add" and is_network(node)]

    def weight(self, name: str) -> NDArray[np.float32]:
        """An initializer's values."""
        return numpy_helper.to_array(self.weights[name])

    def set_weight(self, name: str, values: NDArray[np.floating]) -> None:
        """Replace an initializer's values in the graph this was made from."""
        self.weights[name].CopyFrom(numpy_helper.from_array(values.astype(np.float32), name))

    def activation_of(self, node: NodeProto) -> NodeProto | None:
        """The ReLU or ReLU6 that alone reads a convolution."""
        readers = self.consumers[node.output[0]]
        return readers[0] if len(readers) == 1 and readers[0].op_type in ("Clip", "Relu") else None

    def skipped(self, node: NodeProto) -> str:
        """The input of a residual addition that came around the block: the one made first."""
        order = {tensor: place for place, made in enumerate(self.nodes) for tensor in made.output}
        first: str = min(node.input, key=lambda tensor: order.get(tensor, -1))
        return first


def is_preprocessing(node: NodeProto) -> bool:
    """Whether a node normalises pictures."""
    return str(node.name).startswith(f"{PREPROCESSING}/")


def is_answer(node: NodeProto) -> bool:
    """Whether a node makes scores of logits."""
    return str(node.name).startswith(f"{ANSWERS}/")


def is_network(node: NodeProto) -> bool:
    """Whether a node is the network's own."""
    return not (is_preprocessing(node) or is_answer(node))


def groups_of(node: NodeProto) -> int:
    """The groups of a convolution; 1 of a matrix."""
    found: int = next((attribute.i for attribute in node.attribute if attribute.name == "group"), 1)
    return found


def is_depthwise(node: NodeProto, weight: NDArray[np.float32]) -> bool:
    """Whether every channel has a filter of its own."""
    return weight.shape[0] > 1 and groups_of(node) == int(weight.shape[0])


def replace_nodes(model: ModelProto, nodes: Iterable[NodeProto]) -> None:
    """Put `nodes`, which may be the graph's own, in place of its nodes; what was known of shapes is dropped."""
    copies = []
    for node in nodes:
        copy = NodeProto()
        copy.CopyFrom(node)
        copies.append(copy)
    del model.graph.node[:]
    model.graph.node.extend(copies)
    del model.graph.value_info[:]


def copied(model: ModelProto) -> ModelProto:
    """An independent copy."""
    copy = ModelProto()
    copy.CopyFrom(model)
    return copy
