"""The parsers of the protocol: whatever comes in, they read it or say what is wrong; nothing else happens."""

from __future__ import annotations

import gzip
import json
import zlib
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from serve.core.failures import ProtocolError
from serve.protocol.datatypes import (
    BYTES,
    DTYPES,
    array_from_raw,
    array_from_values,
    elements_from_raw,
    raw_from_elements,
)
from serve.protocol.messages import AskedOutput, InferAnswer, OutputTensor
from serve.web.encoding import decompress
from serve.web.v2.wire import JSON_LENGTH, read_infer, read_json_length, read_object, write_infer
from zoo.errors import RequestError

# A run of a million is benchmarks/fuzz.py's.
FEW = settings(max_examples=40, deadline=None)
JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=8), inner, max_size=4),
    max_leaves=12,
)
FIELDS = ("name", "datatype", "shape", "data", "parameters", "inputs", "outputs", "id", "binary_data_size")
LIKE_A_REQUEST = st.recursive(
    JSON | st.sampled_from([*DTYPES, BYTES]) | st.lists(st.integers(-2, 5), max_size=4),
    lambda inner: st.dictionaries(st.sampled_from(FIELDS), inner, max_size=6) | st.lists(inner, max_size=3),
    max_leaves=20,
)


@FEW
@given(LIKE_A_REQUEST, st.binary(max_size=64))
def test_any_json_is_read_or_refused(fields: Any, behind: bytes) -> None:
    text = json.dumps(fields).encode()
    try:
        request = read_infer(text + behind, len(text))
        for tensor in request.inputs:
            values = tensor.elements() if tensor.datatype == BYTES else tensor.array()
            assert len(values) <= max(1, *tensor.shape, 1)
    except RequestError as error:
        assert str(error)


@FEW
@given(st.binary(max_size=200))
def test_any_bytes_are_an_object_or_refused(body: bytes) -> None:
    try:
        assert isinstance(read_object(body), dict)
    except ProtocolError as error:
        assert "JSON" in str(error)


@FEW
@given(st.text(max_size=20), st.binary(max_size=20))
def test_any_header_is_a_length_or_refused(text: str, body: bytes) -> None:
    try:
        assert 0 <= read_json_length(text, body) <= len(body)
    except ProtocolError as error:
        assert JSON_LENGTH in str(error)


@FEW
@given(st.binary(max_size=300), st.sampled_from(["gzip", "deflate"]), st.integers(0, 300))
def test_what_is_compressed_comes_back_and_never_more_than_allowed(body: bytes, encoding: str, limit: int) -> None:
    sent = gzip.compress(body) if encoding == "gzip" else zlib.compress(body)
    try:
        assert decompress(sent, encoding, max_bytes=limit) == body
    except RequestError:
        assert len(body) > limit


@FEW
@given(st.binary(max_size=100), st.sampled_from(["gzip", "deflate"]))
def test_what_is_not_compressed_is_refused(body: bytes, encoding: str) -> None:
    try:
        plain = decompress(body, encoding, max_bytes=1000)
    except RequestError:
        return
    assert plain in (gzip.decompress(body) if encoding == "gzip" else zlib.decompress(body),)


@FEW
@given(st.lists(st.binary(max_size=20), max_size=6))
def test_elements_come_back(elements: list[bytes]) -> None:
    assert elements_from_raw(raw_from_elements(elements), [len(elements)]) == elements


@FEW
@given(st.binary(max_size=60), st.integers(0, 5))
def test_any_bytes_are_elements_or_refused(raw: bytes, count: int) -> None:
    try:
        elements = elements_from_raw(raw, [count])
    except ProtocolError:
        return
    assert raw_from_elements(elements) == raw


@pytest.mark.parametrize("datatype", DTYPES)
@FEW
@given(st.data())
def test_numbers_come_back_raw_and_as_json(datatype: str, data: Any) -> None:
    dtype = DTYPES[datatype]
    kind = {
        "b": st.booleans(),
        "f": st.floats(width=min(64, 8 * dtype.itemsize), allow_nan=False, allow_infinity=False),
    }
    bounds = np.iinfo(dtype) if dtype.kind in "iu" else None
    numbers = st.integers(bounds.min, bounds.max) if bounds else kind[dtype.kind]
    values = data.draw(st.lists(numbers, max_size=12))
    array = np.array(values, dtype)
    assert np.array_equal(array_from_raw(array.tobytes(), datatype, [len(values)]), array)
    if values:
        assert np.array_equal(array_from_values(values, datatype, [len(values)]), array)
        nested = array_from_values([values, values], datatype, [2, len(values)])
        assert np.array_equal(nested, [array, array])


@FEW
@given(st.lists(st.floats(width=32, allow_nan=False, allow_infinity=False), min_size=1, max_size=8), st.booleans())
def test_an_answer_is_read_as_it_was_written(values: list[float], binary: bool) -> None:
    data = np.array([values], np.float32)
    output = OutputTensor(
        name="logits", datatype="FP32", shape=data.shape, data=data, asked=AskedOutput(name="logits", binary=binary)
    )
    body, headers = write_infer(InferAnswer(model="a", version="1", id="x", outputs=(output,)))
    length = int(headers.get(JSON_LENGTH, len(body)))
    (written,) = json.loads(body[:length])["outputs"]
    found = np.frombuffer(body[length:], "<f4") if binary else np.array(written["data"], np.float32)
    assert np.array_equal(found.reshape(written["shape"]), data)
