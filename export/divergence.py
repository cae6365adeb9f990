"""Owns where a graph leaves its network: the output of every block beside PyTorch's, and the first that jumps.

It explains a gate that failed, and judges nothing.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from copy import deepcopy
from dataclasses import dataclass

import numpy as np
import onnx
import torch
from numpy.typing import NDArray
from onnx import ModelProto
from torch import Tensor, nn

from export.contract import Contract
from export.graph import PREPROCESSING
from export.interface import as_input
from export.precision.rows import Precision
from export.precision.statistics import open_session
from export.precision.wiring import block_of, copied, is_answer
from export.weights_apart import infer_types
from zoo.model.build import FromPictures
from zoo.model.network import Network

BATCH_SIZE = 8
# An error that a block multiplies by less than this is passed on, not made there.
JUMP = 4.0
# Pictures that float64 judges: it takes a processor twice the time.
JUDGED = 8
Arrays = Mapping[str, NDArray[np.floating]]


@dataclass(frozen=True)
class Divergence:
    """Root mean square errors of the blocks' outputs in the order of the network, as shares of the outputs' own.

    Below `rounding` an error is the precision's. `own_error` is how far PyTorch's float32 logits are from its float64
    ones, as a share of the largest.
    """

    errors: Mapping[str, float]
    rounding: float
    own_error: float

    @property
    def first(self) -> str | None:
        """The block whose error is most of what came in, multiplied; None where it grows without a jump."""
        before, factors = self.rounding, dict[str, float]()
        for block, error in self.errors.items():
            error = max(error, self.rounding)
            factors[block] = error / before
            before = error
        block = max(factors, key=lambda name: factors[name])
        return block if factors[block] >= JUMP else None

    def words(self, allowed: float) -> str:
        """What to say of it where logits may be off by `allowed` of the largest."""
        first, names = self.first, list(self.errors)
        if first is None:
            said = (
                f"No block stands out: the error grows from {self.errors[names[0]]:.1g} to {self.errors[names[-1]]:.1g}"
            )
        else:
            place = names.index(first)
            came = f", of what it reads {self.errors[names[place - 1]]:.1g}" if place else ""
            said = f"The first block to differ is {first}: the error is {self.errors[first]:.1g} of its output{came}"
        if self.own_error > allowed:
            return (
                f"{said}. The network itself is ill-conditioned: in PyTorch, float32 is {self.own_error:.1g} of the "
                f"largest logit away from float64, and {allowed:.1g} is allowed."
            )
        return f"{said}. The network itself is well conditioned: float32 is {self.own_error:.1g} away from float64."


def find_divergence(
    network: Network, contract: Contract, graph: ModelProto, precision: Precision, pictures: NDArray[np.uint8]
) -> Divergence:
    """Run pictures (N, S, S, C) through a network, on the CPU, and through its graph in `precision`, block by block."""
    ends = _ends(graph)
    blocks = [block for block in ends if block == PREPROCESSING or _has(network, block)]
    session, taken = open_session(_opened(graph, [ends[block] for block in blocks])), graph.graph.input[0].name
    error, size = dict.fromkeys(blocks, 0.0), dict.fromkeys(blocks, 0.0)
    model = FromPictures(network, contract.preprocessing).eval()
    for start in range(0, len(pictures), BATCH_SIZE):
        batch = pictures[start : start + BATCH_SIZE]
        with _listening(network, blocks) as made, torch.inference_mode():
            model(torch.tensor(batch))
        found = session.run([ends[block] for block in blocks], {taken: as_input(batch, contract)})
        for block, answer in zip(blocks, found, strict=True):
            expected = made[block].astype(np.float64)
            error[block] += float(np.square(answer.reshape(expected.shape).astype(np.float64) - expected).sum())
            size[block] += float(np.square(expected).sum())
    errors = {block: _share(error[block], size[block]) for block in blocks}
    # The mean error that a precision's logits may have is what its rounding makes of blocks.
    return Divergence(errors, precision.tolerance.mean_error, _own_error(model, pictures[:JUDGED]))


def _share(error: float, size: float) -> float:
    """The root of error / size; infinite where something is not finite."""
    share = float(np.sqrt(error / size)) if size else float(error > 0)
    return share if np.isfinite(share) else float("inf")


def _own_error(model: FromPictures, pictures: NDArray[np.uint8]) -> float:
    with torch.inference_mode():
        single = model(torch.tensor(pictures)).double()
        planes = torch.tensor(pictures).double().permute(0, 3, 1, 2).contiguous()
        scale, shift = (model.get_buffer(name).double() for name in ("scale", "shift"))
        double = deepcopy(model.model).double()(planes * scale + shift)
    largest = float(double.abs().max()) or 1.0
    return float((single - double).abs().max()) / largest


def _has(network: nn.Module, path: str) -> bool:
    return path in dict(network.named_modules())


@contextmanager
def _listening(network: nn.Module, blocks: list[str]) -> Iterator[dict[str, NDArray[np.floating]]]:
    """What the blocks make, and the network reads, while it is open."""
    made: dict[str, NDArray[np.floating]] = {}

    def keep(block: str, tensor: Tensor) -> None:
        made[block] = tensor.detach().clone().numpy()  # a later layer may write over it

    hooks = [network.register_forward_pre_hook(lambda _, given: keep(PREPROCESSING, given[0]))]
    for block in blocks:
        if block != PREPROCESSING:
            module = network.get_submodule(block)
            hooks.append(module.register_forward_hook(lambda _, given, output, block=block: keep(block, output)))
    try:
        yield made
    finally:
        for hook in hooks:
            hook.remove()


def _ends(graph: ModelProto) -> dict[str, str]:
    """The tensor that leaves each block, by its name: what its last node makes."""
    ends: dict[str, str] = {}
    for node in graph.graph.node:
        if not is_answer(node):
            block = block_of(node.name)
            ends.pop(block, None)  # in the order of the last nodes
            ends[block] = node.output[0]
    return ends


def _opened(graph: ModelProto, tensors: list[str]) -> ModelProto:
    """The graph with inner tensors among its outputs."""
    opened = infer_types(copied(graph))
    known = {value.name: value.type.tensor_type.elem_type for value in opened.graph.value_info}
    there = {value.name for value in opened.graph.output}
    for tensor in dict.fromkeys(tensors):
        if tensor not in there:
            opened.graph.output.append(onnx.helper.make_tensor_value_info(tensor, known[tensor], None))
    return opened
