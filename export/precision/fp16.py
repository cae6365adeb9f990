"""Owns the fp16 form of a graph; what it has in common with bf16 is `export.precision.half`."""

from __future__ import annotations

from onnx import ModelProto, TensorProto

from export.precision.half import to_half


def to_fp16(model: ModelProto) -> ModelProto:
    """Return a copy in float16, as `export.precision.half.to_half`."""
    return to_half(model, TensorProto.FLOAT16)
