from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from onnx import ModelProto, TensorProto

from export.parity import judge
from export.precision.bf16 import rounded_as_bf16, to_bf16
from export.precision.rows import find_precision
from export.runners.onnx_runtime import OnnxRunner


def test_bf16_narrows_the_network_and_keeps_inputs_outputs_and_normalisation(tiny_graph: ModelProto) -> None:
    before = tiny_graph.SerializeToString()
    half = to_bf16(tiny_graph)
    assert tiny_graph.SerializeToString() == before
    types = {weight.name: weight.data_type for weight in half.graph.initializer}
    assert {kind for name, kind in types.items() if name.endswith((".weight", ".bias"))} == {TensorProto.BFLOAT16}
    assert types["preprocessing.scale"] == TensorProto.FLOAT
    assert half.opset_import[0].version >= 22, "the first whose convolutions take bfloat16"
    assert half.graph.output == tiny_graph.graph.output


def test_the_stand_in_of_bf16_rounds_in_float32_and_stays_within_its_tolerance(
    tiny_graph: ModelProto, digit_pictures: NDArray[np.uint8]
) -> None:
    row = find_precision("bf16")
    assert row.comparable(tiny_graph) == rounded_as_bf16(tiny_graph)
    with (
        OnnxRunner(tiny_graph.SerializeToString(), device="cpu") as full,
        OnnxRunner(row.comparable(tiny_graph).SerializeToString(), device="cpu") as stand_in,
    ):
        parity = judge(full.infer(digit_pictures), stand_in.infer(digit_pictures), row.tolerance)
    assert parity.passed, parity.failures
    # 8 bits of mantissa: far more than fp16 loses, and not nothing, as it would be if the casts were optimised away.
    assert 1e-4 < parity.relative_max_error < 0.1
