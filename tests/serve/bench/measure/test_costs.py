from __future__ import annotations

import math

import onnx
import pytest

from export.graph import export_onnx
from serve.bench.measure.costs import stage_work
from serve.bench.measure.forms import build_form, contract_of
from serve.bench.measure.places import OPERATORS, form_of, places
from zoo.model.spec import Operator
from zoo.model.variants import find_variant

S, TINY = find_variant("s"), find_variant("tiny")


def test_stage_one_of_s_by_hand() -> None:
    """Two blocks of 24 channels at 192 px; all residual. Fused: one 3×3 convolution each."""
    place = next(places(S, 384))
    fused = stage_work(place.stage, 24, 192, batch_size=1, precision="fp32")
    per_block = 24 * 192**2 * 3 + 24 * 24 * 9  # read, write, and read again for the sum; weights
    assert fused.bytes_moved == 4 * 2 * per_block
    assert fused.macs == 2 * 24 * 24 * 9 * 192**2
    assert fused.flops == 2 * fused.macs
    assert fused.intensity == pytest.approx(2 * fused.macs / fused.bytes_moved)


def test_a_batch_shares_its_weights_and_half_precision_halves_the_bytes() -> None:
    place = list(places(S, 384))[3]
    one, eight = (stage_work(place.stage, 64, 48, batch_size=size, precision="fp32") for size in (1, 8))
    assert eight.macs == 8 * one.macs
    assert 7 * one.bytes_moved < eight.bytes_moved < 8 * one.bytes_moved
    half = stage_work(place.stage, 64, 48, batch_size=8, precision="fp16")
    assert 2 * half.bytes_moved == eight.bytes_moved


@pytest.mark.parametrize("operator", OPERATORS)
def test_bytes_are_those_of_the_exported_graph(operator: Operator) -> None:
    """The same counted from the shapes of a graph's convolutions, pools, products, sums; two blocks and a stride."""
    place = list(places(TINY, 32))[2]
    form = form_of(TINY, place.stage, operator)
    network = build_form(TINY, place, form)
    graph = onnx.shape_inference.infer_shapes(export_onnx(network, contract_of(network, place), checkpoint={})).graph
    shapes = {
        value.name: [dim.dim_value or 1 for dim in value.type.tensor_type.shape.dim]
        for value in (*graph.value_info, *graph.input, *graph.output)
    } | {weight.name: list(weight.dims) for weight in graph.initializer}

    def size(name: str) -> int:
        return math.prod(shapes[name])

    moved = 0
    for node in graph.node:
        if not node.name.startswith("stages."):
            continue
        if node.op_type == "Conv":
            moved += size(node.input[0]) + size(node.input[1]) + size(node.output[0])
        elif node.op_type == "Add":  # the sum is made by the convolution before it: only the other side is read again
            moved += size(node.input[1])
        elif node.op_type in ("ReduceMean", "GlobalAveragePool"):
            moved += size(node.input[0]) + size(node.output[0])
        elif node.op_type == "Mul" and node.name.endswith(".se/Mul"):
            moved += size(node.input[0]) + size(node.input[1]) + size(node.output[0])
    work = stage_work(form, place.in_channels, place.in_size, batch_size=1, precision="fp32")
    assert work.bytes_moved == 4 * moved
