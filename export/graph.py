"""Owns the way from a network to ONNX: one graph with weights, preprocessing and contract in it; no precision, no file.

A client that has only onnxruntime reads the classes like this:

    session = onnxruntime.InferenceSession("s.onnx")
    classes = json.loads(session.get_modelmeta().custom_metadata_map["zoo"])["contract"]["classes"]
"""

from __future__ import annotations

import ast
import gc
import warnings
from collections import Counter
from collections.abc import Mapping
from typing import Any

import onnx
import torch
from onnx import ModelProto, NodeProto, numpy_helper
from torch import Tensor, nn
from torch.export import Dim

from export.answers import Answers
from export.contract import GRAPH_FORMAT, GRAPH_KEY, OPSET, Contract
from export.interface import input_of
from export.weights_apart import check_graph
from zoo import __version__
from zoo.errors import ArtifactError
from zoo.files import json_text
from zoo.model.build import FromPictures
from zoo.model.network import Network
from zoo.wording import joined

PREPROCESSING, ANSWERS = "preprocessing", "answers"

# The exporter's names of the two outermost modules: the wrapper, whose own operations are the preprocessing, and the
# network inside it, whose own operations (outside every sub-module) are the pooling and the flatten.
_WRAPPED = "model"
_OUTERMOST = {"": PREPROCESSING, _WRAPPED: "pool"}
_SCOPES = "pkg.torch.onnx.name_scopes"
# What the exporter leaves where it could not fold a padding, a batch norm or a shape.
LEFT_OVERS = frozenset(("Pad", "BatchNormalization", "Shape", "Gather", "Slice", "Concat", "Unsqueeze", "Identity"))


class _Exported(FromPictures):
    """A network with what its form puts into the graph around it: normalisation before it, scores after it."""

    def __init__(self, model: nn.Module, contract: Contract) -> None:
        super().__init__(model, contract.preprocessing)
        self.takes_pictures = contract.form.input == "uint8"
        self.answers = Answers(contract)

    def forward(self, pictures: Tensor) -> tuple[Tensor, ...]:  # type: ignore[override]
        """The graph's outputs of its one input."""
        logits = super().forward(pictures) if self.takes_pictures else self.model(pictures)
        return self.answers(logits)  # type: ignore[no-any-return]


def export_onnx(model: Network, contract: Contract, *, checkpoint: Mapping[str, Any], opset: int = OPSET) -> ModelProto:
    """Export a network, on the CPU, as one self-contained ONNX graph.

    Leaves the network in evaluation mode and its weights contiguous.

    Usually the input is `pictures` (batch, S, S, C) uint8, the output `logits` (batch, K) float32; `contract.form` says
    what else they may be. The batch is the only dynamic axis, S and C are the contract's image size and planes. Batch
    norms are folded into the convolutions.

    Args:
        model: the network, its K equal to the number of the contract's classes.
        contract: stored in the graph's metadata under "zoo", with `checkpoint` beside it.
        checkpoint: where the weights come from, as plain JSON types.
        opset: the version of ONNX's operators.

    Raises:
        ArtifactError: the exporter left a node that belongs to no module of ours, kept another opset, or as
            `check_structure`.
    """
    taken = input_of(contract)
    # Of weights in channels-last order, as a runner leaves them, the exporter makes a flatten that computes shapes.
    model.to(memory_format=torch.contiguous_format)
    wrapped = _Exported(model, contract).eval()
    # Two pictures, because an example of one would make the batch a constant.
    example = torch.zeros((2, *taken.shape), dtype=getattr(torch, taken.dtype))
    with warnings.catch_warnings():
        # The exporter warns of its own internals (deprecated calls inside torch and onnxscript), never of our network.
        warnings.simplefilter("ignore")
        program = torch.onnx.export(
            wrapped,
            (example,),
            dynamo=True,
            opset_version=opset,
            input_names=[taken.name],
            output_names=contract.form.output_names,
            dynamic_shapes=({0: Dim("batch", min=1)},),
            verbose=False,
        )
    assert program is not None  # only None for the TorchScript exporter's in-place form
    graph = program.model_proto
    # The program has the weights two times more, in circles of references.
    del program
    gc.collect()
    _check_opset(graph, opset)
    pool_by_one_operator(graph)
    name_by_module(graph)
    check_structure(graph, model)
    _drop_exporter_notes(graph)
    graph.graph.name = contract.model
    graph.producer_name, graph.producer_version = "zoo", __version__
    fields = {
        "format": GRAPH_FORMAT,
        "contract": contract.to_dict(),
        "checkpoint": dict(checkpoint),
        "zoo_version": __version__,
    }
    onnx.helper.set_model_props(graph, {GRAPH_KEY: json_text(fields, indent=None)})
    check_graph(graph)
    return graph


def pool_by_one_operator(model: ModelProto) -> None:
    """Turn, in place, every mean of a whole map into GlobalAveragePool, which it is.

    ONNX Runtime has that one in the layout of its convolutions; for a ReduceMean it rearranges the map first.
    """
    graph = model.graph
    constants = {weight.name: weight for weight in graph.initializer}
    for node in graph.node:
        if node.op_type != "ReduceMean" or len(node.input) < 2 or node.input[1] not in constants:
            continue
        keeps = all(attribute.i == 1 for attribute in node.attribute if attribute.name == "keepdims")
        if keeps and sorted(numpy_helper.to_array(constants[node.input[1]]).tolist()) in ([2, 3], [-2, -1]):
            node.op_type = "GlobalAveragePool"
            del node.input[1:], node.attribute[:]
    read = {tensor for node in graph.node for tensor in node.input}
    for place in reversed([place for place, weight in enumerate(graph.initializer) if weight.name not in read]):
        del graph.initializer[place]


def name_by_module(model: ModelProto) -> None:
    """Rename nodes and tensors, in place, after the modules they come from: `stages.3.block.5.depthwise.conv/Conv`.

    A profiler's output can then be summed by stage, block and operator. The exporter itself numbers nodes
    (`node_Conv_1737`) and keeps the module path in a note on each node. Every tensor gets the name of the node that
    makes it, every weight the network's own key.

    Raises:
        ArtifactError: a node carries no such note.
    """
    graph = model.graph
    renamed = {weight.name: _own_path(weight.name) for weight in graph.initializer}
    used: Counter[str] = Counter()
    for node in graph.node:
        name = f"{_module_of(node, renamed)}/{node.op_type}"
        used[name] += 1
        node.name = name if used[name] == 1 else f"{name}_{used[name] - 1}"
        for index, tensor in enumerate(node.output):
            renamed[tensor] = node.name if index == 0 else f"{node.name}:{index}"
    for fixed in (*graph.input, *graph.output):
        renamed[fixed.name] = fixed.name
    for node in graph.node:
        node.input[:] = [renamed.get(tensor, tensor) for tensor in node.input]
        node.output[:] = [renamed[tensor] for tensor in node.output]
    for named in (*graph.initializer, *graph.value_info):
        named.name = renamed.get(named.name, named.name)


def _check_opset(graph: ModelProto, opset: int) -> None:
    """The exporter keeps its own opset, with a warning, where it cannot convert to the one asked for."""
    found = {each.domain: each.version for each in graph.opset_import}
    if found.get("") != opset:
        raise ArtifactError(
            f"torch {torch.__version__} exported opset {found.get('')} where {opset} was asked for.",
            f"Leave --opset out: the graph then has opset {OPSET}.",
        )


def check_structure(graph: ModelProto, model: nn.Module) -> None:
    """Check that a graph is its network's: every convolution once, none added, and nothing that computes shapes.

    Such nodes compute the right answer, so that no parity gate finds them, and cost time in every engine.

    Raises:
        ArtifactError: names what is there or missing.
    """
    nodes = graph.graph.node
    found = Counter(node.name.removesuffix("/Conv") for node in nodes if node.op_type == "Conv")
    wanted = Counter(name for name, module in model.named_modules() if isinstance(module, nn.Conv2d))
    if alike := sorted({name.split("/")[0] for name in found - wanted if name.split("/")[0] in wanted}):
        # The exporter keeps equal weights once, and a convolution is named after its weight.
        raise ArtifactError(
            f"The network has several layers with the very same weights, among them {joined(alike[:3])}.",
            "Of a trained network no two are equal: look at the training, or at how the weights were brought in.",
        )
    problems = {
        "it has nodes of": {node.op_type for node in nodes} & LEFT_OVERS,
        "it lacks the convolutions": wanted - found,
        "it has convolutions that are not the network's:": found - wanted,
    }
    said = [f"{problem} {joined(sorted(names)[:3])}" for problem, names in problems.items() if names]
    if said:
        raise ArtifactError(
            f"torch {torch.__version__} did not export the network as it is: {'; '.join(said)}.",
            "Use a torch release this version of zoo was tested with.",
        )


def _module_of(node: NodeProto, weights: Mapping[str, str]) -> str:
    """The module a node belongs to: that of its weight, else that of the exporter's note.

    A convolution with a folded norm carries the norm's note.
    """
    if len(node.input) > 1 and weights.get(node.input[1], "").endswith(".weight"):
        return weights[node.input[1]].removesuffix(".weight")
    notes = {note.key: note.value for note in node.metadata_props}
    if _SCOPES not in notes:
        raise ArtifactError(
            f"torch {torch.__version__} exported the node {node.name!r} without saying which module it belongs to.",
            "Use a torch release this version of zoo was tested with.",
        )
    # ['', 'model', 'model.stem', 'model.stem.act', 'silu']: the last one is the operation, the one before the module.
    module: str = ast.literal_eval(notes[_SCOPES])[-2]
    return _OUTERMOST.get(module) or _own_path(module)


def _own_path(path: str) -> str:
    """A path inside the wrapper as the network's own: `model.stem.conv` → `stem.conv`, `scale` → preprocessing."""
    if path in ("scale", "shift"):
        return f"{PREPROCESSING}.{path}"
    return path.removeprefix(f"{_WRAPPED}.")


def _drop_exporter_notes(model: ModelProto) -> None:
    """Remove the exporter's notes: they hold stack traces with the paths of the machine that ran it."""
    graph = model.graph
    del graph.metadata_props[:]
    for part in (*graph.node, *graph.initializer, *graph.value_info, *graph.input, *graph.output):
        del part.metadata_props[:]
        part.doc_string = ""
