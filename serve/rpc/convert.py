"""Owns the way between gRPC's messages and the protocol's requests and answers; it answers none."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from google.protobuf.json_format import ParseDict

from serve.core.failures import ProtocolError
from serve.protocol.datatypes import BYTES
from serve.protocol.messages import (
    GivenTensor,
    InferAnswer,
    InferRequest,
    read_asked,
    read_parameter,
    read_priority,
    read_region,
)
from serve.rpc.schema import message_class

# Which field of InferTensorContents has the values of a datatype.
CONTENTS = {
    "BOOL": "bool_contents",
    **dict.fromkeys(("INT8", "INT16", "INT32"), "int_contents"),
    "INT64": "int64_contents",
    **dict.fromkeys(("UINT8", "UINT16", "UINT32"), "uint_contents"),
    "UINT64": "uint64_contents",
    "FP32": "fp32_contents",
    "FP64": "fp64_contents",
    BYTES: "bytes_contents",
}


def request_of(message: Any) -> InferRequest:
    """A ModelInferRequest as the protocol's request.

    Raises:
        ProtocolError: tensors are in two places or in none, or a parameter has another type.
    """
    parameters = _parameters(message.parameters)
    raw = list(message.raw_input_contents)
    inputs = []
    for tensor in message.inputs:
        region = read_region(_parameters(tensor.parameters))
        contents = None if region or raw else _values(tensor)
        inputs.append(
            GivenTensor(
                name=tensor.name,
                datatype=tensor.datatype,
                shape=tuple(tensor.shape),
                raw=raw.pop(0) if raw and not region else None,
                values=contents,
                region=region,
            )
        )
    if raw:
        raise ProtocolError("raw_input_contents has more tensors than the request has inputs.", "One for each.")
    if read_parameter(parameters, "sequence_id", int, 0):
        raise ProtocolError("No model here keeps a state between requests.", "Leave sequence_id out.")
    return InferRequest(
        id=message.id,
        inputs=tuple(inputs),
        outputs=tuple(read_asked(output.name, _parameters(output.parameters)) for output in message.outputs),
        binary_output=True,
        timeout_us=read_parameter(parameters, "timeout", int, 0),
        priority=read_priority(parameters),
    )


def message_of(answer: InferAnswer) -> Any:
    """The answer as a ModelInferResponse; all values are raw."""
    message = message_class("ModelInferResponse")(model_name=answer.model, model_version=answer.version, id=answer.id)
    for output in answer.outputs:
        message.outputs.add(name=output.name, datatype=output.datatype, shape=output.shape)
        # One for every output, empty for one in shared memory: Triton's C++ client counts on their number.
        message.raw_output_contents.append(b"" if output.asked.region else output.raw())
    return message


def message_from(name: str, fields: Mapping[str, Any]) -> Any:
    """A message with the fields that the same answer has over HTTP."""
    return ParseDict(dict(fields), message_class(name)())


def _values(tensor: Any) -> list[Any]:
    field = CONTENTS.get(tensor.datatype)
    if field is None:
        raise ProtocolError(f"Values of {tensor.datatype[:40]!r} have no field of their own.", "Send them raw.")
    return list(getattr(tensor.contents, field))


def _parameters(given: Any) -> dict[str, Any]:
    return {name: _value(value) for name, value in given.items()}


def _value(parameter: Any) -> Any:
    chosen = parameter.WhichOneof("parameter_choice")
    return getattr(parameter, chosen) if chosen else None
