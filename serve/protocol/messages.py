"""Owns what a request for an inference says and what its answer holds, whichever wire carries them."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, TypeVar

import numpy as np
from numpy.typing import NDArray

from serve.core.failures import ProtocolError
from serve.core.waiting import DEFAULT_PRIORITY, LAST_PRIORITY
from serve.protocol.datatypes import (
    array_from_raw,
    array_from_values,
    elements_from_raw,
    elements_from_values,
    raw_from_elements,
)

T = TypeVar("T")

MOST_DIMS = 8
MOST_VALUES = 2**31
MOST_TENSORS = 64


@dataclass(frozen=True, kw_only=True)
class Region:
    """A part of a shared-memory region that a client has registered."""

    name: str
    offset: int
    length: int


@dataclass(frozen=True, kw_only=True)
class GivenTensor:
    """An input as it came: its values are `raw` bytes, or `values` of JSON or of a typed gRPC field, or in a region."""

    name: str
    datatype: str
    shape: tuple[int, ...]
    raw: bytes | memoryview | None = None
    values: Any = None
    region: Region | None = None

    def __post_init__(self) -> None:
        if len(self.shape) > MOST_DIMS or any(side < 0 for side in self.shape) or math.prod(self.shape) > MOST_VALUES:
            raise ProtocolError(
                f"The shape {list(self.shape)[:MOST_DIMS]} of {self.name[:80]!r} is not one of a tensor.",
                f"At most {MOST_DIMS} sides, none negative, and {MOST_VALUES} values in all.",
            )

    def with_raw(self, raw: bytes | memoryview) -> GivenTensor:
        """The same tensor with these values: what it says of them has been looked at."""
        return _like(self, raw=raw)

    def array(self) -> NDArray[Any]:
        """Its numbers.

        Raises:
            ProtocolError: they do not match datatype and shape.
        """
        if self.raw is not None:
            return array_from_raw(self.raw, self.datatype, self.shape)
        return array_from_values(self.values, self.datatype, self.shape)

    def elements(self) -> list[bytes]:
        """Its elements, where its datatype is BYTES.

        Raises:
            ProtocolError: they do not match the shape.
        """
        if self.raw is not None:
            return elements_from_raw(self.raw, self.shape)
        return elements_from_values(self.values, self.shape)


@dataclass(frozen=True, kw_only=True)
class AskedOutput:
    """An output that the client wants: as `classification` best classes if that is not 0; `binary`: as raw bytes."""

    name: str
    classification: int = 0
    binary: bool | None = None
    region: Region | None = None


@dataclass(frozen=True, kw_only=True)
class InferRequest:
    """One request. Without `outputs` all are wanted; `timeout_us` 0 is the server's own; `priority` 1 comes first."""

    id: str = ""
    inputs: tuple[GivenTensor, ...]
    outputs: tuple[AskedOutput, ...] = ()
    binary_output: bool = False
    timeout_us: int = 0
    priority: int = DEFAULT_PRIORITY

    def with_inputs(self, inputs: tuple[GivenTensor, ...]) -> InferRequest:
        """The same request of other values for the same inputs."""
        return _like(self, inputs=inputs)

    def __post_init__(self) -> None:
        for tensors, what in ((self.inputs, "input"), (self.outputs, "output")):
            names = [tensor.name for tensor in tensors]
            if len(names) > MOST_TENSORS or len(set(names)) < len(names):
                raise ProtocolError(
                    f"An {what} is named twice, or there are more than {MOST_TENSORS}.", "Name each once."
                )


@dataclass(frozen=True, kw_only=True)
class OutputTensor:
    """An output: numbers, or the elements of a BYTES tensor; `asked` says how the client wants it."""

    name: str
    datatype: str
    shape: tuple[int, ...]
    data: NDArray[Any] | list[bytes]
    asked: AskedOutput

    def raw(self) -> bytes:
        """Its bytes on the wire."""
        if isinstance(self.data, list):
            return raw_from_elements(self.data)
        return np.ascontiguousarray(self.data).tobytes()

    def values(self) -> list[Any]:
        """Its values as JSON has them: a flat list."""
        if isinstance(self.data, list):
            return [element.decode("utf-8", "replace") for element in self.data]
        flat: list[Any] = self.data.ravel().tolist()
        return flat


@dataclass(frozen=True, kw_only=True)
class InferAnswer:
    """The answer to one request, with the milliseconds it took where."""

    model: str
    version: str
    id: str
    outputs: tuple[OutputTensor, ...]
    timings_ms: Mapping[str, float] = field(default_factory=dict)
    batch_size: int = 1


def read_parameter(parameters: Mapping[str, Any], name: str, kind: type, default: Any) -> Any:
    """A parameter of a request; those nobody knows are passed over, as the protocol says.

    Raises:
        ProtocolError: of another type, or negative.
    """
    value = parameters.get(name, default)
    if type(value) is not kind and value is not default:
        raise ProtocolError(f"The parameter {name} is {str(value)[:40]!r}; expected {_KINDS[kind]}.")
    if isinstance(value, int) and not 0 <= value < 2**63:
        raise ProtocolError(f"The parameter {name} is {value}; expected a whole number from 0 on.")
    return value


def read_priority(parameters: Mapping[str, Any]) -> int:
    """How soon a request wants its turn: 1 before all others, 9 after them; 0, and nothing, are in the middle.

    Raises:
        ProtocolError: no such priority.
    """
    priority: int = read_parameter(parameters, "priority", int, 0)
    if priority > LAST_PRIORITY:
        raise ProtocolError(f"The priority is {priority}; there are 1, the first, to {LAST_PRIORITY}, the last.")
    return priority or DEFAULT_PRIORITY


def read_region(parameters: Mapping[str, Any]) -> Region | None:
    """Where in shared memory a tensor is, by its parameters; None where it is not there.

    Raises:
        ProtocolError: a part of it is missing or of another type.
    """
    name = read_parameter(parameters, "shared_memory_region", str, None)
    if name is None:
        return None
    length = read_parameter(parameters, "shared_memory_byte_size", int, None)
    if length is None:
        raise ProtocolError("A tensor in shared memory has no shared_memory_byte_size.")
    return Region(name=name, offset=read_parameter(parameters, "shared_memory_offset", int, 0), length=length)


def read_asked(name: str, parameters: Mapping[str, Any]) -> AskedOutput:
    """An output that is asked for, from its parameters.

    Raises:
        ProtocolError: a parameter of another type.
    """
    return AskedOutput(
        name=name,
        classification=read_parameter(parameters, "classification", int, 0),
        binary=read_parameter(parameters, "binary_data", bool, None),
        region=read_region(parameters),
    )


def _like(row: T, **changes: Any) -> T:
    """A copy of a checked row that is not checked again; `dataclasses.replace` takes ten times as long."""
    copy = object.__new__(type(row))
    copy.__dict__.update(row.__dict__, **changes)
    return copy


_KINDS = {int: "a whole number", str: "a text", bool: "true or false"}
