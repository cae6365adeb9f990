"""Owns the protocol's datatypes and the ways of a tensor between wire and NumPy; it knows no model.

Sources: kserve/open-inference-protocol specification/protocol/inference_rest.md (datatypes, JSON data),
triton-inference-server/server docs/protocol/extension_binary_data.md (raw bytes: little-endian, row-major; of BYTES
each element behind its length, four bytes).
"""

from __future__ import annotations

import base64
import binascii
import math
import struct
from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from serve.core.failures import ProtocolError

BYTES = "BYTES"
# BF16 is the only datatype of the protocol that NumPy has no type for; no artifact of ours takes it.
DTYPES: dict[str, np.dtype[Any]] = {
    "BOOL": np.dtype("?"),
    **{f"UINT{bits}": np.dtype(f"<u{bits // 8}") for bits in (8, 16, 32, 64)},
    **{f"INT{bits}": np.dtype(f"<i{bits // 8}") for bits in (8, 16, 32, 64)},
    **{f"FP{bits}": np.dtype(f"<f{bits // 8}") for bits in (16, 32, 64)},
}
DATATYPES = {dtype.name: name for name, dtype in DTYPES.items()}
_WIDE = (DTYPES["UINT64"], DTYPES["INT64"])
_LENGTH = struct.Struct("<I")


def array_from_raw(raw: bytes | memoryview, datatype: str, shape: Sequence[int]) -> NDArray[Any]:
    """A tensor from its bytes on the wire, without a copy.

    Raises:
        ProtocolError: another number of bytes than the shape asks for, or no such datatype.
    """
    dtype = _dtype(datatype)
    expected = math.prod(shape) * dtype.itemsize
    if len(raw) != expected:
        raise ProtocolError(
            f"A tensor of {datatype} and shape {list(shape)} has {expected} bytes, and {len(raw)} came.",
            "Send all values, row by row, little-endian.",
        )
    return np.frombuffer(raw, dtype).reshape(shape)


def elements_from_raw(raw: bytes | memoryview, shape: Sequence[int]) -> list[bytes]:
    """The elements of a BYTES tensor from the wire.

    Raises:
        ProtocolError: they are not as many as the shape says, or one is cut off.
    """
    wanted, at = math.prod(shape), 0
    elements: list[bytes] = []
    while at < len(raw) and len(elements) <= wanted:
        if at + _LENGTH.size > len(raw):
            raise ProtocolError("The last element of the BYTES tensor has no length.", _BYTES_HINT)
        (length,) = _LENGTH.unpack_from(raw, at)
        at += _LENGTH.size
        if length > len(raw) - at:
            raise ProtocolError(f"An element of the BYTES tensor says it has {length} bytes: too many.", _BYTES_HINT)
        elements.append(bytes(raw[at : at + length]))
        at += length
    if len(elements) != wanted:
        raise ProtocolError(f"A BYTES tensor of shape {list(shape)} has {wanted} elements, not these.", _BYTES_HINT)
    return elements


def array_from_values(values: Any, datatype: str, shape: Sequence[int]) -> NDArray[Any]:
    """A tensor from JSON: a flat list, or nested as the shape is.

    Raises:
        ProtocolError: ragged, of another length, not numbers of this datatype, or not finite.
    """
    dtype = _dtype(datatype)
    try:
        # With numbers of 64 bits among others NumPy would make floats of them, and lose digits.
        found = np.asarray(values, object if dtype in _WIDE else None)
    except (ValueError, OverflowError) as error:
        raise ProtocolError("The tensor's data is ragged: its rows have different lengths.", _JSON_HINT) from error
    kinds = {"b": "b", "u": "iu", "i": "iu", "f": "iuf"}[dtype.kind]
    fits = all(type(value) is int for value in found.ravel()) if dtype in _WIDE else found.dtype.kind in kinds
    if found.size and not fits:
        raise ProtocolError(f"The tensor's data is not {datatype} throughout.", _JSON_HINT)
    if found.size != math.prod(shape):
        raise ProtocolError(
            f"A tensor of shape {list(shape)} has {math.prod(shape)} values, not {found.size}.", _JSON_HINT
        )
    if dtype.kind in "iu" and found.size:
        bounds = np.iinfo(dtype)
        if int(found.min()) < bounds.min or int(found.max()) > bounds.max:
            raise ProtocolError(f"The tensor has values outside {bounds.min} … {bounds.max}, those of {datatype}.")
    with np.errstate(over="ignore"):
        cast = found.astype(dtype)
    if dtype.kind == "f" and not np.isfinite(cast).all():
        raise ProtocolError(f"The tensor has values that are not finite as {datatype}.")
    return cast.reshape(shape)


def elements_from_values(values: Any, shape: Sequence[int]) -> list[bytes]:
    """The elements of a BYTES tensor from JSON: base64, because a picture's bytes are no text; from gRPC: bytes.

    Raises:
        ProtocolError: not a list of that many texts in base64.
    """
    if not isinstance(values, list) or len(values) != math.prod(shape):
        raise ProtocolError(f"A BYTES tensor of shape {list(shape)} has {math.prod(shape)} elements.", _BYTES_HINT)
    elements = []
    for value in values:
        try:
            elements.append(value if isinstance(value, bytes) else base64.b64decode(value, validate=True))
        except (TypeError, ValueError, binascii.Error) as error:
            raise ProtocolError("An element of the BYTES tensor is not base64.", _BYTES_HINT) from error
    return elements


def raw_from_elements(elements: Sequence[bytes]) -> bytes:
    """A BYTES tensor as the wire has it."""
    return b"".join(_LENGTH.pack(len(element)) + element for element in elements)


def _dtype(datatype: str) -> np.dtype[Any]:
    if datatype not in DTYPES:
        raise ProtocolError(f"There is no datatype {datatype[:40]!r} here.", f"There are {', '.join(DTYPES)}, {BYTES}.")
    return DTYPES[datatype]


_BYTES_HINT = "On the wire each element stands behind its length, four bytes, little-endian; in JSON as base64."
_JSON_HINT = "Send `data` as one list of numbers, row by row, or nested as `shape` is."
