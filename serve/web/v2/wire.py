"""Owns the protocol's requests and answers as bytes of HTTP: JSON, and tensors behind it; it opens no connection.

Sources: kserve/open-inference-protocol inference_rest.md; triton-inference-server/server
docs/protocol/extension_{binary_data,classification,schedule_policy,shared_memory}.md.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

from serve.core.failures import ProtocolError
from serve.protocol.datatypes import BYTES
from serve.protocol.messages import (
    GivenTensor,
    InferAnswer,
    InferRequest,
    OutputTensor,
    read_asked,
    read_parameter,
    read_priority,
    read_region,
)
from zoo.files import json_text

# Its value is the length of the JSON; the tensors' bytes follow it, in the order of the inputs.
JSON_LENGTH = "Inference-Header-Content-Length"
_MISSING: Any = object()


def read_json_length(text: str | None, body: bytes) -> int:
    """How much of the body is JSON, by the header; all of it where there is none.

    Raises:
        ProtocolError: not a whole number within the body.
    """
    if text is None:
        return len(body)
    if not (text.isascii() and text.isdigit() and len(text) <= 12 and int(text) <= len(body)):
        raise ProtocolError(f"{JSON_LENGTH} is {text[:20]!r}; the body has {len(body)} bytes.", "It is JSON's length.")
    return int(text)


def read_object(text: bytes | memoryview) -> dict[str, Any]:
    """A JSON object.

    Raises:
        ProtocolError: it is none, or nested too deeply.
    """
    try:
        found = json.loads(bytes(text), parse_constant=_refuse_constant)
    except (ValueError, RecursionError) as error:
        raise ProtocolError(f"The body is not JSON: {str(error)[:120]}.", "Send a JSON object.") from error
    if not isinstance(found, dict):
        raise ProtocolError("The body is no JSON object.", 'Send {"inputs": [{"name": …, "shape": …, "datatype": …}]}.')
    return found


@dataclass(frozen=True, slots=True)
class Head:
    """What a request's JSON says: the request without the bytes that follow it, and how many each input has of them."""

    request: InferRequest
    sizes: tuple[int | None, ...]


def read_infer(body: bytes, json_length: int) -> InferRequest:
    """A request whose first `json_length` bytes are JSON.

    Raises:
        ProtocolError: a field is missing or of another type, or the tensors' bytes are not those it speaks of.
    """
    view = memoryview(body)
    text, rest = bytes(view[:json_length]), view[json_length:]
    head = known_head(text) if rest and len(text) <= KNOWN_BYTES else read_head(text)
    inputs = []
    for given, size in zip(head.request.inputs, head.sizes, strict=True):
        if size is None:
            inputs.append(given)
            continue
        if size > len(rest):
            raise ProtocolError(f"binary_data_size is {size}, and {len(rest)} bytes are left.")
        inputs.append(given.with_raw(rest[:size]))
        rest = rest[size:]
    if rest:
        raise ProtocolError(f"{len(rest)} bytes follow the last tensor.", "Say binary_data_size of every input.")
    return head.request.with_inputs(tuple(inputs))


def read_head(text: bytes) -> Head:
    """The JSON of a request.

    Raises:
        ProtocolError: a field is missing or of another type.
    """
    fields = read_object(text)
    parameters = _field(fields, "parameters", dict, {})
    inputs = [_read_input(_member(item, "inputs")) for item in _field(fields, "inputs", list)]
    if read_parameter(parameters, "sequence_id", int, 0):
        raise ProtocolError("No model here keeps a state between requests.", "Leave sequence_id out.")
    request = InferRequest(
        id=_field(fields, "id", str, ""),
        inputs=tuple(given for given, _ in inputs),
        outputs=tuple(
            read_asked(_field(output, "name", str), _field(output, "parameters", dict, {}))
            for output in (_member(item, "outputs") for item in _field(fields, "outputs", list, []))
        ),
        binary_output=read_parameter(parameters, "binary_data_output", bool, False),
        timeout_us=read_parameter(parameters, "timeout", int, 0),
        priority=read_priority(parameters),
    )
    return Head(request, tuple(size for _, size in inputs))


# A client that sends tensors as bytes says the same before each of them: of the newest heads what they say is kept.
KNOWN_BYTES, KNOWN_HEADS = 4096, 256
known_head = lru_cache(KNOWN_HEADS)(read_head)


def read_raw(
    body: bytes, name: str, datatype: str, row_bytes: int, row: tuple[int, ...], *, encoded: bool
) -> InferRequest:
    """A request that is one tensor and no JSON, and wants binary outputs; `encoded`: one picture's file, wants JSON.

    Raises:
        ProtocolError: not a whole number of rows.
    """
    if encoded:
        return InferRequest(inputs=(GivenTensor(name=name, datatype=BYTES, shape=(1,), values=[body]),))
    if not body or len(body) % row_bytes:
        raise ProtocolError(
            f"The body has {len(body)} bytes, and one picture of {datatype} {list(row)} has {row_bytes}.",
            "Send whole pictures, or a picture's file with its own Content-Type, image/jpeg for example.",
        )
    given = GivenTensor(name=name, datatype=datatype, shape=(len(body) // row_bytes, *row), raw=body)
    return InferRequest(inputs=(given,), binary_output=True)


def write_infer(answer: InferAnswer) -> tuple[bytes, dict[str, str]]:
    """An answer's body and headers: tensors that were asked for as binary follow the JSON."""
    tensors: list[bytes] = []
    data = [_written_data(output, tensors) for output in answer.outputs]
    if answer.id or len(tensors) < len(data):
        outputs = [
            _fields(one.name, one.datatype, one.shape, where) for one, where in zip(answer.outputs, data, strict=True)
        ]
        text = _text(answer.model, answer.version, answer.id, outputs)
    else:
        behind = [
            (one.name, one.datatype, one.shape, len(raw)) for one, raw in zip(answer.outputs, tensors, strict=True)
        ]
        text = _known_text(answer.model, answer.version, tuple(behind))
    if not tensors:
        return text, {"Content-Type": "application/json"}
    headers = {"Content-Type": "application/octet-stream", JSON_LENGTH: str(len(text))}
    return b"".join([text, *tensors]), headers


def _text(model: str, version: str, id: str, outputs: list[dict[str, Any]]) -> bytes:
    """An answer's JSON."""
    said = {"model_name": model, "model_version": version}
    said |= {"id": id} if id else {}
    return json_text(said | {"outputs": outputs}, indent=None).encode()


def _fields(name: str, datatype: str, shape: tuple[int, ...], where: dict[str, Any]) -> dict[str, Any]:
    """An output's JSON; `where` its values are."""
    return {"name": name, "datatype": datatype, "shape": list(shape), **where}


@lru_cache(KNOWN_HEADS)
def _known_text(model: str, version: str, tensors: tuple[tuple[str, str, tuple[int, ...], int], ...]) -> bytes:
    """The same where all values follow it: then it says the same of each request, and has been written before."""
    outputs = [_fields(name, datatype, shape, _behind(size)) for name, datatype, shape, size in tensors]
    return _text(model, version, "", outputs)


def _behind(size: int) -> dict[str, Any]:
    return {"parameters": {"binary_data_size": size}}


def _written_data(output: OutputTensor, tensors: list[bytes]) -> dict[str, Any]:
    """The part of an output's JSON that says where its values are; values that follow it are added to `tensors`."""
    if output.asked.region:
        # The client knows where; Triton's C++ client takes any parameters for those of bytes behind the JSON.
        return {}
    if not output.asked.binary:
        return {"data": output.values()}
    tensors.append(output.raw())
    return _behind(len(tensors[-1]))


def _read_input(fields: dict[str, Any]) -> tuple[GivenTensor, int | None]:
    """An input, and how many bytes of it follow the JSON; None where its values are elsewhere."""
    parameters = _field(fields, "parameters", dict, {})
    size = read_parameter(parameters, "binary_data_size", int, None)
    region = read_region(parameters)
    values = _field(fields, "data", list) if size is None and region is None else None
    if sum((size is not None, region is not None, "data" in fields)) > 1:
        raise ProtocolError("An input has its values in two places.", "data, binary_data_size or shared memory: one.")
    shape = _field(fields, "shape", list)
    if not all(type(side) is int for side in shape):
        raise ProtocolError("A shape is a list of whole numbers.")
    given = GivenTensor(
        name=_field(fields, "name", str),
        datatype=_field(fields, "datatype", str),
        shape=tuple(shape),
        values=values,
        region=region,
    )
    return given, size


def _field(fields: dict[str, Any], name: str, kind: type, default: Any = _MISSING) -> Any:
    value = fields.get(name, default)
    if value is _MISSING:
        raise ProtocolError(f"The request has no {name!r} where one is needed.")
    if not isinstance(value, kind):
        raise ProtocolError(f"{name!r} is {str(value)[:40]}; expected a JSON {_JSON_KINDS[kind]}.")
    return value


def _member(item: Any, of: str) -> dict[str, Any]:
    if not isinstance(item, dict):
        raise ProtocolError(f"{of!r} is a list of JSON objects.")
    return item


def _refuse_constant(text: str) -> float:
    raise ValueError(f"{text} is no number of JSON")


_JSON_KINDS: dict[type, str] = {dict: "object", list: "list", str: "text"}
