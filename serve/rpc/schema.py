"""Owns the messages of the protocol's gRPC service, and of gRPC's health service: names, numbers, types; no calls.

Sources: kserve/open-inference-protocol specification/protocol/open_inference_grpc.proto; triton-inference-server/common
protobuf/grpc_service.proto and model_config.proto; grpc/grpc src/proto/grpc/health/v1/health.proto. A test compares
them with those that tritonclient brings. Of messages that are only sent, what is never filled is left out.

They are in a descriptor pool of their own: a client in the same process may bring the same names.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from typing import Any

from google.protobuf import descriptor_pb2, descriptor_pool, message_factory

PACKAGE, HEALTH_PACKAGE = "inference", "grpc.health.v1"
SCALARS = ("double", "float", "int64", "uint64", "int32", "bool", "string", "bytes", "uint32")


@dataclass(frozen=True)
class Field:
    """A field: its number, and a scalar, a message or an enum; repeated, a map from texts, or one of several."""

    number: int
    kind: str
    repeated: bool = False
    mapped: bool = False
    one_of: str = ""


Fields = Mapping[str, Field]


def _many(number: int, kind: str) -> Field:
    return Field(number, kind, repeated=True)


def _map(number: int, kind: str) -> Field:
    return Field(number, kind, mapped=True)


def _choice(**kinds: tuple[int, str]) -> dict[str, Field]:
    return {name: Field(number, kind, one_of="parameter_choice") for name, (number, kind) in kinds.items()}


def _texts(*names: str) -> dict[str, Field]:
    """Fields of text, numbered from 1."""
    return {name: Field(number, "string") for number, name in enumerate(names, 1)}


_NAMED = _texts("name", "version")
_PARAMETERS = _map(4, "InferParameter")
_TENSOR = {**_texts("name", "datatype"), "shape": _many(3, "int64")}
_DURATIONS = ("success", "fail", "queue", "compute_input", "compute_infer", "compute_output", "cache_hit", "cache_miss")
_REGION = {**_texts("name", "key"), "offset": Field(3, "uint64"), "byte_size": Field(4, "uint64")}

INFERENCE: Mapping[str, Fields] = {
    "ServerLiveRequest": {},
    "ServerLiveResponse": {"live": Field(1, "bool")},
    "ServerReadyRequest": {},
    "ServerReadyResponse": {"ready": Field(1, "bool")},
    "ModelReadyRequest": _NAMED,
    "ModelReadyResponse": {"ready": Field(1, "bool")},
    "ServerMetadataRequest": {},
    "ServerMetadataResponse": {**_NAMED, "extensions": _many(3, "string")},
    "ModelMetadataRequest": _NAMED,
    "ModelMetadataResponse": {
        "name": Field(1, "string"),
        "versions": _many(2, "string"),
        "platform": Field(3, "string"),
        "inputs": _many(4, "ModelMetadataResponse.TensorMetadata"),
        "outputs": _many(5, "ModelMetadataResponse.TensorMetadata"),
    },
    "ModelMetadataResponse.TensorMetadata": _TENSOR,
    "InferParameter": _choice(
        bool_param=(1, "bool"),
        int64_param=(2, "int64"),
        string_param=(3, "string"),
        double_param=(4, "double"),
        uint64_param=(5, "uint64"),
    ),
    "InferTensorContents": {
        "bool_contents": _many(1, "bool"),
        "int_contents": _many(2, "int32"),
        "int64_contents": _many(3, "int64"),
        "uint_contents": _many(4, "uint32"),
        "uint64_contents": _many(5, "uint64"),
        "fp32_contents": _many(6, "float"),
        "fp64_contents": _many(7, "double"),
        "bytes_contents": _many(8, "bytes"),
    },
    "ModelInferRequest": {
        **_texts("model_name", "model_version", "id"),
        "parameters": _PARAMETERS,
        "inputs": _many(5, "ModelInferRequest.InferInputTensor"),
        "outputs": _many(6, "ModelInferRequest.InferRequestedOutputTensor"),
        "raw_input_contents": _many(7, "bytes"),
    },
    "ModelInferRequest.InferInputTensor": {
        **_TENSOR,
        "parameters": _PARAMETERS,
        "contents": Field(5, "InferTensorContents"),
    },
    "ModelInferRequest.InferRequestedOutputTensor": {
        "name": Field(1, "string"),
        "parameters": _map(2, "InferParameter"),
    },
    "ModelInferResponse": {
        **_texts("model_name", "model_version", "id"),
        "parameters": _PARAMETERS,
        "outputs": _many(5, "ModelInferResponse.InferOutputTensor"),
        "raw_output_contents": _many(6, "bytes"),
    },
    "ModelInferResponse.InferOutputTensor": {**_TENSOR, "parameters": _PARAMETERS},
    "ModelStreamInferResponse": {
        "error_message": Field(1, "string"),
        "infer_response": Field(2, "ModelInferResponse"),
    },
    "ModelConfigRequest": _NAMED,
    "ModelConfigResponse": {"config": Field(1, "ModelConfig")},
    "ModelConfig": {
        "name": Field(1, "string"),
        "platform": Field(2, "string"),
        "backend": Field(17, "string"),
        "version_policy": Field(3, "ModelVersionPolicy"),
        "max_batch_size": Field(4, "int32"),
        "input": _many(5, "ModelInput"),
        "output": _many(6, "ModelOutput"),
        "dynamic_batching": Field(11, "ModelDynamicBatching", one_of="scheduling_choice"),
        "instance_group": _many(7, "ModelInstanceGroup"),
        "parameters": _map(14, "ModelParameter"),
        # Read from config.pbtxt and not used; a list of messages cannot be passed over where its field is not known.
        "model_warmup": _many(16, "ModelWarmup"),
    },
    "ModelWarmup": {
        "name": Field(1, "string"),
        "batch_size": Field(2, "uint32"),
        "inputs": _map(3, "ModelWarmup.Input"),
        "count": Field(4, "uint32"),
    },
    "ModelWarmup.Input": {
        "data_type": Field(1, "DataType"),
        "dims": _many(2, "int64"),
        "zero_data": Field(3, "bool", one_of="input_data_type"),
        "random_data": Field(4, "bool", one_of="input_data_type"),
        "input_data_file": Field(5, "string", one_of="input_data_type"),
    },
    "ModelVersionPolicy": {
        "latest": Field(1, "ModelVersionPolicy.Latest", one_of="policy_choice"),
        "all": Field(2, "ModelVersionPolicy.All", one_of="policy_choice"),
        "specific": Field(3, "ModelVersionPolicy.Specific", one_of="policy_choice"),
    },
    "ModelVersionPolicy.Latest": {"num_versions": Field(1, "uint32")},
    "ModelVersionPolicy.All": {},
    "ModelVersionPolicy.Specific": {"versions": _many(1, "int64")},
    "ModelInput": {
        "name": Field(1, "string"),
        "data_type": Field(2, "DataType"),
        "format": Field(3, "ModelInput.Format"),
        "dims": _many(4, "int64"),
        "optional": Field(8, "bool"),
    },
    "ModelOutput": {
        "name": Field(1, "string"),
        "data_type": Field(2, "DataType"),
        "dims": _many(3, "int64"),
        "label_filename": Field(4, "string"),
    },
    "ModelDynamicBatching": {
        "preferred_batch_size": _many(1, "int32"),
        "max_queue_delay_microseconds": Field(2, "uint64"),
    },
    "ModelInstanceGroup": {
        "name": Field(1, "string"),
        "kind": Field(4, "ModelInstanceGroup.Kind"),
        "count": Field(2, "int32"),
    },
    "ModelParameter": _texts("string_value"),
    "ModelStatisticsRequest": _NAMED,
    "ModelStatisticsResponse": {"model_stats": _many(1, "ModelStatistics")},
    "ModelStatistics": {
        **_NAMED,
        "last_inference": Field(3, "uint64"),
        "inference_count": Field(4, "uint64"),
        "execution_count": Field(5, "uint64"),
        "inference_stats": Field(6, "InferStatistics"),
        "batch_stats": _many(7, "InferBatchStatistics"),
    },
    "InferStatistics": {name: Field(number, "StatisticDuration") for number, name in enumerate(_DURATIONS, 1)},
    "InferBatchStatistics": {
        "batch_size": Field(1, "uint64"),
        "compute_input": Field(2, "StatisticDuration"),
        "compute_infer": Field(3, "StatisticDuration"),
        "compute_output": Field(4, "StatisticDuration"),
    },
    "StatisticDuration": {"count": Field(1, "uint64"), "ns": Field(2, "uint64")},
    "RepositoryIndexRequest": {"repository_name": Field(1, "string"), "ready": Field(2, "bool")},
    "RepositoryIndexResponse": {"models": _many(1, "RepositoryIndexResponse.ModelIndex")},
    "RepositoryIndexResponse.ModelIndex": _texts("name", "version", "state", "reason"),
    "RepositoryModelLoadRequest": {
        **_texts("repository_name", "model_name"),
        "parameters": _map(3, "ModelRepositoryParameter"),
    },
    "RepositoryModelLoadResponse": {},
    "RepositoryModelUnloadRequest": {
        **_texts("repository_name", "model_name"),
        "parameters": _map(3, "ModelRepositoryParameter"),
    },
    "RepositoryModelUnloadResponse": {},
    "ModelRepositoryParameter": _choice(
        bool_param=(1, "bool"), int64_param=(2, "int64"), string_param=(3, "string"), bytes_param=(4, "bytes")
    ),
    "SystemSharedMemoryStatusRequest": _texts("name"),
    "SystemSharedMemoryStatusResponse": {"regions": _map(1, "SystemSharedMemoryStatusResponse.RegionStatus")},
    "SystemSharedMemoryStatusResponse.RegionStatus": _REGION,
    "SystemSharedMemoryRegisterRequest": _REGION,
    "SystemSharedMemoryRegisterResponse": {},
    "SystemSharedMemoryUnregisterRequest": _texts("name"),
    "SystemSharedMemoryUnregisterResponse": {},
    "CudaSharedMemoryStatusRequest": _texts("name"),
    "CudaSharedMemoryStatusResponse": {},
    "CudaSharedMemoryUnregisterRequest": _texts("name"),
    "CudaSharedMemoryUnregisterResponse": {},
}
ENUMS: Mapping[str, tuple[str, ...]] = {
    "DataType": (
        "TYPE_INVALID",
        "TYPE_BOOL",
        *(f"TYPE_UINT{bits}" for bits in (8, 16, 32, 64)),
        *(f"TYPE_INT{bits}" for bits in (8, 16, 32, 64)),
        *(f"TYPE_FP{bits}" for bits in (16, 32, 64)),
        "TYPE_STRING",
        "TYPE_BF16",
    ),
    "ModelInput.Format": ("FORMAT_NONE", "FORMAT_NHWC", "FORMAT_NCHW"),
    "ModelInstanceGroup.Kind": ("KIND_AUTO", "KIND_GPU", "KIND_CPU", "KIND_MODEL"),
}
HEALTH: Mapping[str, Fields] = {
    "HealthCheckRequest": _texts("service"),
    "HealthCheckResponse": {"status": Field(1, "HealthCheckResponse.ServingStatus")},
}
HEALTH_ENUMS = {"HealthCheckResponse.ServingStatus": ("UNKNOWN", "SERVING", "NOT_SERVING", "SERVICE_UNKNOWN")}


def message_class(name: str) -> Any:
    """The class of a message of the protocol."""
    return _classes(PACKAGE)[f"{PACKAGE}.{name}"]


def health_class(name: str) -> Any:
    """The class of a message of gRPC's health service."""
    return _classes(HEALTH_PACKAGE)[f"{HEALTH_PACKAGE}.{name}"]


@cache
def _classes(package: str) -> dict[str, Any]:
    messages, enums = (INFERENCE, ENUMS) if package == PACKAGE else (HEALTH, HEALTH_ENUMS)
    pool = descriptor_pool.DescriptorPool()
    pool.Add(file_of(package, messages, enums))
    classes: dict[str, Any] = message_factory.GetMessageClassesForFiles([package], pool)
    return classes


def file_of(package: str, messages: Mapping[str, Fields], enums: Mapping[str, tuple[str, ...]]) -> Any:
    """The rows as protobuf's description of a file."""
    file = descriptor_pb2.FileDescriptorProto(name=package, package=package, syntax="proto3")
    made: dict[str, Any] = {}
    for name, fields in messages.items():
        outer, _, own = name.rpartition(".")
        made[name] = made[outer].nested_type.add(name=own) if outer else file.message_type.add(name=own)
        for field_name, field in fields.items():
            _add_field(made[name], f".{package}.", name, field_name, field, enums)
    for name, values in enums.items():
        outer, _, own = name.rpartition(".")
        enum = made[outer].enum_type.add(name=own) if outer else file.enum_type.add(name=own)
        for number, value in enumerate(values):
            enum.value.add(name=value, number=number)
    return file


def _add_field(
    message: Any, root: str, message_name: str, name: str, field: Field, enums: Mapping[str, tuple[str, ...]]
) -> None:
    kinds = descriptor_pb2.FieldDescriptorProto
    added = message.field.add(name=name, number=field.number, label=kinds.LABEL_OPTIONAL)
    if field.repeated or field.mapped:
        added.label = kinds.LABEL_REPEATED
    if field.mapped:
        # protobuf's own form of map<string, KIND>: a repeated message with key and value.
        entry_name = f"{''.join(word.title() for word in name.split('_'))}Entry"
        entry = message.nested_type.add(name=entry_name)
        entry.options.map_entry = True
        for entry_field, part in (("key", Field(1, "string")), ("value", Field(2, field.kind))):
            _add_field(entry, root, "", entry_field, part, enums)
        added.type, added.type_name = kinds.TYPE_MESSAGE, f"{root}{message_name}.{entry_name}"
    elif field.kind in SCALARS:
        added.type = getattr(kinds, f"TYPE_{field.kind.upper()}")
    else:
        added.type = kinds.TYPE_ENUM if field.kind in enums else kinds.TYPE_MESSAGE
        added.type_name = root + field.kind
    if field.one_of:
        names = [one.name for one in message.oneof_decl]
        if field.one_of not in names:
            message.oneof_decl.add(name=field.one_of)
        added.oneof_index = len(names) if field.one_of not in names else names.index(field.one_of)
