"""Owns what the protocol tells of server and models: metadata, Triton's ModelConfig, statistics; it runs nothing.

Sources: kserve/open-inference-protocol inference_rest.md; triton-inference-server/common model_config.proto;
triton-inference-server/server docs/protocol/extension_{model_configuration,statistics}.md.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from export.contract import Contract
from export.interface import Tensor, input_of, outputs_of
from export.triton.config import TYPES
from serve.core.slot import Engine
from serve.models.models import Listed, Models, Served
from serve.protocol.datatypes import DATATYPES
from zoo import __version__

EXTENSIONS = ("binary_tensor_data", "classification", "model_configuration", "schedule_policy", "statistics")
SHARED_MEMORY = "system_shared_memory"
MODEL_REPOSITORY = "model_repository"
# What an artifact is to Triton, by its file's suffix; a checkpoint is none of its.
PLATFORMS = {".onnx": ("onnxruntime_onnx", "onnxruntime"), ".plan": ("tensorrt_plan", "tensorrt")}


def server_metadata(models: Models) -> dict[str, Any]:
    """What `GET /v2` answers."""
    extensions = [*EXTENSIONS]
    extensions += [MODEL_REPOSITORY] if models.can_change else []
    extensions += [SHARED_MEMORY] if models.regions.allowed else []
    return {"name": "zoo", "version": __version__, "extensions": extensions}


def index(models: Models, *, ready_only: bool = False) -> list[dict[str, str]]:
    """What `/v2/repository/index` answers."""
    if models.can_change:
        listed = models.control.listed()
    else:
        listed = [
            Listed(name=one.name, version=one.version, is_ready=one.service.not_ready() is None) for one in models
        ]
    return [
        {
            "name": one.name,
            "version": one.version,
            "state": "READY" if one.is_ready else "UNAVAILABLE",
            "reason": one.reason,
        }
        for one in listed
        if one.is_ready or not ready_only
    ]


def model_metadata(served: Served, versions: Sequence[str]) -> dict[str, Any]:
    """What a model takes and answers, the batch included; `versions` are all that are loaded."""
    contract = served.engine.contract
    return {
        "name": served.name,
        "versions": list(versions),
        "platform": _platform(served.engine)[0],
        "inputs": [_described(input_of(contract))],
        "outputs": [_described(tensor) for tensor in outputs_of(contract)],
    }


def model_config(served: Served) -> dict[str, Any]:
    """Triton's ModelConfig as far as it says something here; `dims` are without the batch."""
    engine = served.engine
    platform, backend = _platform(engine)
    contract, batcher = engine.contract, engine.batcher
    return {
        "name": served.name,
        "platform": platform,
        "backend": backend,
        "version_policy": {"latest": {"num_versions": 1}},
        "max_batch_size": batcher.max_batch_size,
        "input": [_configured(input_of(contract)) | {"format": _layout(contract), "optional": False}],
        "output": [
            _configured(tensor) | ({"label_filename": "labels.txt"} if place == 0 else {})
            for place, tensor in enumerate(outputs_of(contract))
        ],
        "instance_group": [
            {
                "name": served.name,
                "kind": "KIND_CPU" if engine.info.device == "CPU" else "KIND_GPU",
                "count": batcher.instances,
            }
        ],
        "dynamic_batching": {"preferred_batch_size": [batcher.max_batch_size], "max_queue_delay_microseconds": 0},
        "parameters": {"image_size": {"string_value": str(contract.preprocessing.image_size)}},
    }


def _platform(engine: Engine) -> tuple[str, str]:
    suffix = engine.info.artifact[engine.info.artifact.rfind(".") :]
    return PLATFORMS.get(suffix, ("pytorch_zoo", "pytorch"))


def _layout(contract: Contract) -> str:
    return "FORMAT_NHWC" if contract.form.input == "uint8" else "FORMAT_NCHW"


def _described(tensor: Tensor) -> dict[str, Any]:
    return {"name": tensor.name, "datatype": DATATYPES[tensor.dtype], "shape": [-1, *tensor.shape]}


def _configured(tensor: Tensor) -> dict[str, Any]:
    return {"name": tensor.name, "data_type": TYPES[tensor.dtype], "dims": list(tensor.shape)}
