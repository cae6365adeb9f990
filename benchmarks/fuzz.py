"""Gives broken requests to every parser of `zoo serve` that reads what clients send; they may only be refused.

    python benchmarks/fuzz.py --inputs 1000000 -o benchmarks/fuzz.jsonl

Each input is a valid one with one to eight mutations: bytes changed, cut, repeated, or taken from a dictionary of what
the formats mean something by; of JSON also a value in the place of another one, so that more than its syntax is tried.
An error that is not one of `zoo/errors.py` ends the run with the input. The line of JSON it adds says how many inputs
each parser read and refused, and the memory at the end.
"""

from __future__ import annotations

import argparse
import copy
import gzip
import json
import random
import resource
import time
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from google.protobuf.message import DecodeError

from serve.keys import read_keys
from serve.protocol.datatypes import BYTES
from serve.protocol.messages import InferRequest
from serve.repository.folder import read_config
from serve.rpc.convert import request_of
from serve.rpc.schema import message_class
from serve.web.encoding import decompress
from serve.web.v2.wire import read_infer, read_json_length, read_object, read_raw
from zoo import __version__
from zoo.errors import ZooError

LIMIT_BYTES = 100_000
WORDS = [
    *(b"-1", b"0", b"1e999", b"9223372036854775808", b"NaN", b"null", b"true", b"[]", b"{}", b'""', b"\\ud800"),
    *(b'"FP32"', b'"UINT8"', b'"BYTES"', b'"shape"', b'"data"', b'"parameters"', b'"binary_data_size"', b"[" * 200),
    *(b"\x00", b"\xff\xff\xff\xff", b"\xff" * 9 + b"\x01", b"\x1f\x8b\x08", b"Basic ", b"Bearer "),
]
VALUES: list[Any] = [
    None,
    True,
    -1,
    0,
    1,
    12,
    2**31,
    2**70,
    0.5,
    1e300,
    "",
    "x" * 300,
    "BYTES",
    "FP32",
    [],
    {},
    [[1]],
    [-1],
]
KEYS = read_keys(None, {"ZOO_SERVE_KEYS": "predict " + "k" * 32})


def touch(request: InferRequest) -> None:
    """Read the values of all tensors, as an inference would."""
    for tensor in request.inputs:
        if tensor.datatype == BYTES:
            tensor.elements()
        else:
            tensor.array()


def read_http(body: bytes) -> None:
    """A whole body: the header's text stands before the first line break."""
    header, _, rest = body.partition(b"\n")
    touch(read_infer(rest, read_json_length(header.decode("latin-1") or None, rest)))


def read_grpc(body: bytes) -> None:
    """A message of gRPC; what protobuf refuses, gRPC answers itself."""
    try:
        message = message_class("ModelInferRequest").FromString(body)
    except DecodeError as error:
        raise ZooError("not a message") from error
    touch(request_of(message))


def read_bytes(body: bytes) -> None:
    """A body without JSON, of one tensor."""
    touch(read_raw(body, "pictures", "UINT8", 12, (2, 2, 3), encoded=False))


def read_compressed(body: bytes) -> None:
    """A compressed body; what comes out is never larger than allowed."""
    assert len(decompress(body, "gzip", max_bytes=LIMIT_BYTES)) <= LIMIT_BYTES


def read_header(body: bytes) -> None:
    """A key, as a header has it."""
    KEYS.check({"authorization": body.decode("latin-1")}, "predict")


def read_settings(body: bytes) -> None:
    """config.pbtxt of a model's folder."""
    read_config(body.decode("utf-8", "replace"), "config.pbtxt")


def seeds() -> dict[Callable[[bytes], None], list[bytes]]:
    """Valid inputs of every parser."""
    data = np.arange(12, dtype=np.uint8)
    tensor = {"name": "pictures", "datatype": "UINT8", "shape": [1, 2, 2, 3]}
    asked = {
        "outputs": [{"name": "logits", "parameters": {"classification": 2}}],
        "id": "a",
        "parameters": {"timeout": 5},
    }
    plain = json.dumps({"inputs": [tensor | {"data": data.tolist()}], **asked}).encode()
    sized = json.dumps({"inputs": [tensor | {"parameters": {"binary_data_size": 12}}], **asked}).encode()
    encoded = json.dumps({"inputs": [tensor | {"datatype": BYTES, "shape": [1], "data": ["aGFsbG8="]}]}).encode()
    message = message_class("ModelInferRequest")(model_name="s", id="a", raw_input_contents=[data.tobytes()])
    message.inputs.add(name="pictures", datatype="UINT8", shape=[1, 2, 2, 3])
    message.outputs.add(name="logits").parameters["classification"].int64_param = 2
    typed = message_class("ModelInferRequest")(model_name="s")
    typed.inputs.add(name="pictures", datatype="UINT8", shape=[12]).contents.uint_contents.extend(data.tolist())
    return {
        read_http: [b"\n" + plain, str(len(sized)).encode() + b"\n" + sized + data.tobytes(), b"\n" + encoded],
        read_object: [b'{"ready": true}', b'{"key": "/a", "offset": 0, "byte_size": 64}'],
        read_grpc: [message.SerializeToString(), typed.SerializeToString()],
        read_bytes: [data.tobytes() * 3],
        read_compressed: [gzip.compress(plain), zlib.compress(bytes(99_000))],
        read_header: [b"Bearer " + b"k" * 32, b"Basic " + b"YTpra2s="],
        read_settings: [
            b"max_batch_size: 4\ninstance_group [ { count: 2 } ]\nversion_policy { latest { num_versions: 2 } }"
        ],
    }


def mutate(seed: bytes, random_: random.Random) -> bytes:
    """The seed with one to eight changes."""
    header, break_, text = seed.partition(b"\n")
    if break_ and text.startswith(b"{") and random_.random() < 0.6:
        return mutate_json(header, text, random_)
    body = bytearray(seed)
    for _ in range(random_.choice((1, 1, 1, 2, 3, 8))):
        at = random_.randint(0, len(body))
        end = min(len(body), at + random_.randint(1, 16))
        what = random_.randrange(5)
        if what == 0 and at < len(body):
            body[at] = random_.randrange(256)
        elif what == 1:
            del body[at:end]
        elif what == 2:
            body[at:at] = body[at:end] * random_.randint(1, 4)
        elif what == 3:
            body[at:at] = random_.choice(WORDS)
        else:
            body[at:end] = random_.choice(WORDS)
    return bytes(body)


def mutate_json(header: bytes, text: bytes, random_: random.Random) -> bytes:
    """A request with another value, of any type, in the place of one to three of its own."""
    length = int(header) if header else len(text)
    fields = json.loads(text[:length])
    for _ in range(random_.randint(1, 3)):
        place: Any = fields
        while isinstance(place, dict | list) and place:
            key = random_.choice(list(place)) if isinstance(place, dict) else random_.randrange(len(place))
            if not (isinstance(place[key], dict | list) and place[key]) or random_.random() < 0.3:
                place[key] = copy.deepcopy(random_.choice(VALUES))
                break
            place = place[key]
    changed = json.dumps(fields).encode()
    return (str(len(changed)).encode() if header else b"") + b"\n" + changed + text[length:]


def run(inputs: int, seed: int) -> dict[str, dict[str, int]]:
    """Give every parser its share; how many were read, and refused by which error.

    Raises:
        AssertionError: a parser raised something else, or kept its promise otherwise not.
    """
    random_ = random.Random(seed)
    told: dict[str, dict[str, int]] = {}
    parsers = seeds()
    for parser, valid in parsers.items():
        counts = told[parser.__name__] = {}
        for _ in range(inputs // len(parsers)):
            body = mutate(random_.choice(valid), random_)
            try:
                parser(body)
                outcome = "read"
            except ZooError as error:
                outcome = type(error).__name__
            except Exception as error:
                raise AssertionError(f"{parser.__name__} of {body!r}") from error
            counts[outcome] = counts.get(outcome, 0) + 1
    return told


def main() -> None:
    """Run, and add a line to a file."""
    arguments = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    arguments.add_argument("--inputs", type=int, default=1_000_000)
    arguments.add_argument("--seed", type=int, default=0)
    arguments.add_argument("-o", "--out", type=Path)
    asked = arguments.parse_args()
    began_s = time.monotonic()
    told = run(asked.inputs, asked.seed)
    line = {
        "version": __version__,
        "seed": asked.seed,
        "inputs": sum(sum(counts.values()) for counts in told.values()),
        "seconds": round(time.monotonic() - began_s, 1),
        "peak_rss_mb": round(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024),
        "parsers": told,
    }
    print(json.dumps(line))
    if asked.out:
        with asked.out.open("a", encoding="utf-8") as file:
            file.write(json.dumps(line) + "\n")


if __name__ == "__main__":
    main()
