"""Owns config.pbtxt, what Triton is told of a model, and the labels beside it; it writes no file.

Field names and enum members are those of Triton's model_config.proto (2.73, triton-inference-server/common). The file
has two parts. What an artifact is, the same for all versions of a model, stands first; how it is to be served comes
after, and is the reader's to change.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Literal

from export.contract import Contract
from export.engine.builders import BatchProfile
from export.interface import Tensor, input_of, outputs_of

Served = Literal["onnx", "plan"]
BACKENDS: dict[Served, str] = {"onnx": "onnxruntime", "plan": "tensorrt"}
# The file's name in a version's folder: each backend's default.
MODEL_FILES: dict[Served, str] = {"onnx": "model.onnx", "plan": "model.plan"}
# An .onnx runs on a GPU where Triton has one, else on the processor.
INSTANCES: dict[Served, str] = {"onnx": "KIND_AUTO", "plan": "KIND_GPU"}
TYPES = {"uint8": "TYPE_UINT8", "float32": "TYPE_FP32", "int64": "TYPE_INT64"}
LABELS = "labels.txt"


def labels_text(classes: Sequence[str]) -> str:
    """A class a line, in the order of the outputs: what Triton's classification extension names."""
    return "".join(" ".join(name.splitlines()) + "\n" for name in classes)


def signature(name: str, contract: Contract, served: Served, max_batch_size: int) -> str:
    """The part of config.pbtxt that every version of a model must share."""
    return "\n".join(
        [
            f"# What {name} is; every version of it must be this.",
            f"name: {_text(name)}",
            f"backend: {_text(BACKENDS[served])}",
            f"max_batch_size: {max_batch_size}",
            "input [",
            _tensor(input_of(contract)),
            "]",
            "output [",
            ",\n".join(
                _tensor(output, LABELS if place == 0 else None) for place, output in enumerate(outputs_of(contract))
            ),
            "]",
            "",
        ]
    )


def tuning(contract: Contract, served: Served, profile: BatchProfile) -> str:
    """The part that says how the model is to be served."""
    taken = input_of(contract)
    preferred = ", ".join(map(str, sorted({profile.opt, profile.max})))
    warm = [_warm_up(taken, size) for size in sorted({1, profile.max})]
    return "\n".join(
        [
            "# How it is served: yours to change; a later export leaves it.",
            f"instance_group [ {{ count: 1 kind: {INSTANCES[served]} }} ]",
            "dynamic_batching {",
            f"  preferred_batch_size: [ {preferred} ]",
            "  # A picture waits for no other one: under load batches form by themselves. More trades latency.",
            "  max_queue_delay_microseconds: 0",
            "}",
            "version_policy { latest { num_versions: 1 } }",
            "model_warmup [",
            ",\n".join(warm),
            "]",
            "",
        ]
    )


def _tensor(tensor: Tensor, labels: str | None = None) -> str:
    named = f" label_filename: {_text(labels)}" if labels else ""
    return f"  {{ name: {_text(tensor.name)} data_type: {TYPES[tensor.dtype]} dims: {_dims(tensor)}{named} }}"


def _warm_up(tensor: Tensor, batch_size: int) -> str:
    value = f"data_type: {TYPES[tensor.dtype]} dims: {_dims(tensor)} zero_data: true"
    inputs = f"inputs {{ key: {_text(tensor.name)} value {{ {value} }} }}"
    return f'  {{ name: "batch {batch_size}" batch_size: {batch_size} {inputs} }}'


def _dims(tensor: Tensor) -> str:
    """Without the batch, which `max_batch_size` stands for."""
    return f"[ {', '.join(map(str, tensor.shape))} ]"


def _text(value: str) -> str:
    return json.dumps(value)
