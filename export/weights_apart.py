"""Owns graphs apart from their weights: to be looked at, to be run, and as two files where one cannot hold them.

An .onnx is a protobuf message, and such a message ends at 2 GiB. A larger graph has its weights in a file beside it,
`s.onnx.data`, in ONNX's own form (external data), and their SHA-256 in its metadata: so the hash of the .onnx, which is
in the passport, is one of both files. It makes no graph and opens no session.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from math import prod
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import onnx
from google.protobuf.message import DecodeError, Message
from onnx import ModelProto, TensorProto, external_data_helper

from export.contract import GRAPH_KEY
from zoo.errors import ArtifactError
from zoo.files import json_text, replacing, sha256_of, write_bytes

# What a protobuf message can hold, and what of it is for the nodes.
LARGEST_MESSAGE_BYTES, NODES_BYTES = 2**31 - 1, 2**24
# Smaller weights stay in the graph: checks and optimizers read them, shapes among them.
SMALLEST_APART = 1024
# A weight begins at a page, so that it can be mapped into memory (onnx.proto, `TensorProto.external_data`).
PAGE = 4096
SUFFIX = ".data"
# What the file is called that is only in memory.
IN_MEMORY = "weights"
# Of the graph's own metadata, beside its contract.
METADATA = "weights"


@dataclass(frozen=True)
class WeightsFile:
    """The file that has the weights of an .onnx: its name beside it, its size and its hash."""

    name: str
    bytes: int
    sha256: str


def weights_bytes(model: ModelProto) -> int:
    """The size of a graph's weights; protobuf itself cannot tell that of a message that it cannot hold."""
    return sum(map(_num_bytes, model.graph.initializer))


def graph_bytes(model: ModelProto) -> int:
    """The size of a graph of any size, in one file or two."""
    if fits_one_file(model):
        return int(model.ByteSize())
    graph, content = apart(model, IN_MEMORY)
    return len(graph) + len(content)


def fits_one_file(model: ModelProto) -> bool:
    """Whether a graph is one message, with its weights in it."""
    return weights_bytes(model) <= LARGEST_MESSAGE_BYTES - NODES_BYTES


def check_graph(model: ModelProto) -> None:
    """Check a graph of any size against ONNX's rules, types and shapes included.

    Raises:
        onnx.checker.ValidationError, onnx.shape_inference.InferenceError: it breaks one.
    """
    onnx.checker.check_model(_declared(model), full_check=True)


def infer_types(model: ModelProto) -> ModelProto:
    """The graph itself, with the type and shape of every tensor noted in it.

    Raises:
        onnx.shape_inference.InferenceError: they contradict each other.
    """
    inferred = onnx.shape_inference.infer_shapes(_declared(model), check_type=True, strict_mode=True)
    del model.graph.value_info[:]
    model.graph.value_info.extend(inferred.graph.value_info)
    return model


def apart(model: ModelProto, location: str) -> tuple[bytes, bytearray]:
    """A graph as a message without its weights, which it expects in the file `location`, and that file's content."""
    bare, weights = _without_weights(model)
    content = bytearray()
    for offset, data in _place(weights, bare, location):
        content += bytes(offset - len(content))
        content += data
    return bare.SerializeToString(), content


@contextmanager
def lent_to(options: Any, model: ModelProto) -> Iterator[bytes]:
    """A graph as ONNX Runtime takes it from memory; of one that is too large for a message, `options` get the weights.

    Args:
        options: the `onnxruntime.SessionOptions` of the session that is opened meanwhile.
        model: of any size.
    """
    if fits_one_file(model):
        yield model.SerializeToString()
        return
    graph, content = apart(model, IN_MEMORY)
    options.add_external_initializers_from_files_in_memory([IN_MEMORY], [content], [len(content)])
    yield graph


def write_graph(model: ModelProto, path: Path) -> WeightsFile | None:
    """Write a graph, whole or not at all; where one file cannot hold it, its weights first, into one beside it."""
    if fits_one_file(model):
        write_bytes(path, model.SerializeToString())
        return None
    bare, weights = _without_weights(model)
    beside = path.with_name(path.name + SUFFIX)
    digest, written = hashlib.sha256(), 0
    with replacing(beside) as temporary, temporary.open("wb") as file:
        for offset, data in _place(weights, bare, beside.name):
            for part in (bytes(offset - written), data):
                file.write(part)
                digest.update(part)
            written = offset + len(data)
    found = WeightsFile(beside.name, written, digest.hexdigest())
    fields = _fields(bare) | {METADATA: vars(found)}
    onnx.helper.set_model_props(bare, {GRAPH_KEY: json_text(fields, indent=None)})
    write_bytes(path, bare.SerializeToString())
    return found


@contextmanager
def as_message_or_file(model: ModelProto) -> Iterator[bytes | Path]:
    """A graph as TensorRT takes it: its bytes, or where they are too many a file that is there meanwhile."""
    if fits_one_file(model):
        yield model.SerializeToString()
        return
    with TemporaryDirectory(prefix="zoo-graph-") as folder:
        path = Path(folder, "graph.onnx")
        write_graph(model, path)
        yield path


def read_graph(path: Path, *, weights: bool = True) -> ModelProto:
    """Read a graph, with the weights of the file beside it where it has one, or, much faster, without those.

    Raises:
        ArtifactError: it is not a graph, or as `find_weights`.
    """
    bare = _parsed(path)
    find_weights(path, bare)
    if weights:
        external_data_helper.load_external_data_for_model(bare, str(path.parent))
    return bare


def find_weights(path: Path, bare: ModelProto | None = None) -> WeightsFile | None:
    """The file that has an .onnx's weights, after making sure that it is the one; None where they are in it.

    Args:
        path: of an .onnx that exists.
        bare: it, if it was read already, without the weights of another file.

    Raises:
        ArtifactError: that file is missing, was changed, or is not one that this project wrote.
    """
    if bare is None and path.stat().st_size > NODES_BYTES:
        return None  # its weights are in it: without them it is small
    bare = bare or _parsed(path)
    locations = {
        _location(weight) for weight in bare.graph.initializer if external_data_helper.uses_external_data(weight)
    }
    if not locations:
        return None
    told = _fields(bare).get(METADATA)
    try:
        found = WeightsFile(**told) if isinstance(told, Mapping) else None
    except TypeError:
        found = None
    if found is None or locations != {found.name} or Path(found.name).name != found.name:
        raise ArtifactError(
            f"{path} has its weights in {', '.join(sorted(locations))}, and does not say which file that has to be.",
            "It was not written by `zoo export`, which writes their hash into the graph: export it again.",
        )
    _check(path, path.with_name(found.name), found)
    return found


def _check(path: Path, beside: Path, told: WeightsFile) -> None:
    if not beside.is_file():
        raise ArtifactError(
            f"{path} has its weights in {beside.name}, which is not beside it.",
            f"Copy {beside.name} along with it, under that name; `zoo export MODEL` writes both.",
        )
    if beside.stat().st_size != told.bytes or sha256_of(beside) != told.sha256:
        raise ArtifactError(
            f"{beside} is not the file with the weights of {path.name} (sha256 {told.sha256[:12]}… expected).",
            "It was changed, cut short, or belongs to another export: fetch both again, or export again.",
        )


def _parsed(path: Path) -> ModelProto:
    try:
        return onnx.load(path, load_external_data=False)
    except DecodeError as error:
        raise ArtifactError(
            f"{path} cannot be read: {error}.",
            "The file is truncated or not an ONNX graph; `zoo export MODEL` writes it again.",
        ) from error


def _fields(model: ModelProto) -> dict[str, Any]:
    """Our own metadata of a graph; {} of one that is not ours."""
    stored = {entry.key: entry.value for entry in model.metadata_props}.get(GRAPH_KEY, "{}")
    try:
        fields = json.loads(stored)
    except ValueError:
        return {}
    return fields if isinstance(fields, dict) else {}


def _location(weight: TensorProto) -> str:
    return str(external_data_helper.ExternalDataInfo(weight).location)


def _num_bytes(weight: TensorProto) -> int:
    return prod(map(int, weight.dims)) * int(onnx.helper.tensor_dtype_to_np_dtype(weight.data_type).itemsize)


def _is_large(weight: TensorProto) -> bool:
    return weight.HasField("raw_data") and _num_bytes(weight) >= SMALLEST_APART


def _without_weights(model: ModelProto) -> tuple[ModelProto, list[TensorProto]]:
    """A copy that lacks its large weights, and these weights themselves."""
    bare, large = ModelProto(), []
    _copy_but("graph", model, bare)
    _copy_but("initializer", model.graph, bare.graph)
    for weight in model.graph.initializer:
        if _is_large(weight):
            large.append(weight)
        else:
            bare.graph.initializer.append(weight)
    return bare, large


def _declared(model: ModelProto) -> ModelProto:
    """A copy in which large weights are inputs: to what checks it they are the same, and nothing has to hold them."""
    bare, large = _without_weights(model)
    declare = onnx.helper.make_tensor_value_info
    bare.graph.input.extend(declare(weight.name, weight.data_type, weight.dims) for weight in large)
    return bare


def _place(weights: list[TensorProto], bare: ModelProto, location: str) -> Iterator[tuple[int, bytes]]:
    """Tell a bare graph where in a file its large weights are; yield the offset and the bytes of each."""
    offset = 0
    for weight in weights:
        data = weight.raw_data
        offset = -(-offset // PAGE) * PAGE
        held = bare.graph.initializer.add(name=weight.name, data_type=weight.data_type, dims=weight.dims)
        held.data_location = TensorProto.EXTERNAL
        for key, value in (("location", location), ("offset", offset), ("length", len(data))):
            held.external_data.add(key=key, value=str(value))
        yield offset, data
        offset += len(data)


def _copy_but(left_out: str, source: Message, target: Message) -> None:
    """Copy all fields of a message but one."""
    for field, value in source.ListFields():
        if field.name == left_out:
            continue
        if isinstance(value, Message):
            getattr(target, field.name).CopyFrom(value)
        elif isinstance(value, str | bytes | int | float):
            setattr(target, field.name, value)
        else:
            getattr(target, field.name).extend(value)
