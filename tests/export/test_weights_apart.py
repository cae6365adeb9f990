"""An .onnx that one file cannot hold: its weights beside it, and everything that opens, copies or vouches for it."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from dataclasses import replace
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from numpy.typing import NDArray
from onnx import ModelProto, numpy_helper

from export import weights_apart
from export.inspection.card import inspect_artifact
from export.options import ExportOptions
from export.passport import read_passport
from export.pipeline import ExportResult, export_model
from export.precision.wiring import copied
from export.runners.onnx_runtime import OnnxRunner
from export.runners.open import open_runner
from export.weights_apart import (
    as_message_or_file,
    check_graph,
    find_weights,
    fits_one_file,
    graph_bytes,
    infer_types,
    read_graph,
    weights_bytes,
    write_graph,
)
from zoo.errors import ArtifactError
from zoo.files import sha256_of

Exported = Callable[..., ExportResult]


@pytest.fixture
def small_limit(monkeypatch: pytest.MonkeyPatch) -> None:
    """A limit that tiny exceeds, as 540 million parameters exceed protobuf's."""
    monkeypatch.setattr(weights_apart, "LARGEST_MESSAGE_BYTES", weights_apart.NODES_BYTES)


@pytest.fixture
def exported(small_limit: None, exports_this_graph: ModelProto, tiny_checkpoint: Path, tmp_path: Path) -> Exported:
    """Exports the trained tiny network, with a limit that it exceeds."""

    def export(**options: Any) -> ExportResult:
        given = {"model": str(tiny_checkpoint), "out": tmp_path / "made" / "tiny.onnx", "num_pictures": 4}
        return export_model(ExportOptions(**given | options))

    return export


def weights_of(graph: ModelProto) -> dict[str, NDArray[Any]]:
    return {weight.name: numpy_helper.to_array(weight) for weight in graph.graph.initializer}


def largest(graph: ModelProto) -> onnx.TensorProto:
    return max(graph.graph.initializer, key=lambda weight: len(weight.raw_data))


def test_large_graph_is_two_files_that_a_stranger_reads(
    small_limit: None, tiny_graph: ModelProto, tmp_path: Path
) -> None:
    path = tmp_path / "t.onnx"
    found = write_graph(tiny_graph, path)
    assert found and sorted(each.name for each in tmp_path.iterdir()) == ["t.onnx", "t.onnx.data"]
    assert found.name == "t.onnx.data" and found.sha256 == sha256_of(tmp_path / found.name)
    assert find_weights(path) == found
    onnx.checker.check_model(str(path), full_check=True)
    read, expected = weights_of(onnx.load(path)), weights_of(tiny_graph)
    assert read.keys() == expected.keys() and all(np.array_equal(read[name], expected[name]) for name in read)
    told = [entry for weight in read_graph(path, weights=False).graph.initializer for entry in weight.external_data]
    offsets = [int(entry.value) for entry in told if entry.key == "offset"]
    assert offsets and not any(offset % weights_apart.PAGE for offset in offsets)


def test_two_files_are_the_same_every_time(small_limit: None, tiny_graph: ModelProto, tmp_path: Path) -> None:
    for place in ("a", "b"):
        (tmp_path / place).mkdir()
        write_graph(tiny_graph, tmp_path / place / "t.onnx")
    for name in ("t.onnx", "t.onnx.data"):
        assert (tmp_path / "a" / name).read_bytes() == (tmp_path / "b" / name).read_bytes()


def test_graph_within_the_limit_stays_one_file(tiny_graph: ModelProto, tmp_path: Path) -> None:
    assert write_graph(tiny_graph, tmp_path / "t.onnx") is None
    assert find_weights(tmp_path / "t.onnx") is None
    assert [each.name for each in tmp_path.iterdir()] == ["t.onnx"]
    assert graph_bytes(tiny_graph) == (tmp_path / "t.onnx").stat().st_size > weights_bytes(tiny_graph)


def test_graph_that_fits_no_message_runs_from_memory(
    small_limit: None, tiny_graph: ModelProto, digit_pictures: NDArray[np.uint8]
) -> None:
    assert not fits_one_file(tiny_graph)
    with (
        OnnxRunner(tiny_graph.SerializeToString(), device="cpu") as whole,
        OnnxRunner(tiny_graph, device="cpu") as apart,
    ):
        assert np.array_equal(whole.infer(digit_pictures), apart.infer(digit_pictures))


def test_check_needs_no_values_and_finds_what_is_wrong(tiny_graph: ModelProto) -> None:
    check_graph(tiny_graph)
    damaged = copied(tiny_graph)
    largest(damaged).data_type = onnx.TensorProto.INT32
    with pytest.raises(onnx.shape_inference.InferenceError):
        check_graph(damaged)


def test_inferred_types_are_those_that_onnx_infers(tiny_graph: ModelProto) -> None:
    ours = infer_types(copied(tiny_graph)).graph.value_info
    theirs = onnx.shape_inference.infer_shapes(tiny_graph, check_type=True, strict_mode=True).graph.value_info
    assert {each.name: each.type.SerializeToString() for each in ours} == {
        each.name: each.type.SerializeToString() for each in theirs
    }


@pytest.mark.parametrize("precision", ["fp32", "fp16"])
def test_export_writes_checks_and_describes_both_files(exported: Exported, precision: str) -> None:
    found = exported(precision=precision)
    beside = found.onnx.with_name("tiny.onnx.data")
    card = found.passport.files.onnx
    assert card.weights and card.weights.sha256 == sha256_of(beside) and card.weights.bytes == beside.stat().st_size
    assert card.sha256 == sha256_of(found.onnx)
    assert read_passport(found.onnx) == found.passport
    assert found.passport.parity.onnx and found.passport.parity.onnx.passed
    inspected = inspect_artifact(str(found.onnx))
    assert inspected.passport == "describes it" and inspected.file == card


@pytest.mark.parametrize("backend", ["onnxruntime", "openvino"])
def test_back_ends_answer_as_with_one_file(
    small_limit: None, tiny_graph: ModelProto, tmp_path: Path, digit_pictures: NDArray[np.uint8], backend: str
) -> None:
    if backend == "openvino":
        pytest.importorskip("openvino", reason="needs the extra openvino")
    two, one = tmp_path / "two.onnx", tmp_path / "one.onnx"
    write_graph(tiny_graph, two)
    one.write_bytes(tiny_graph.SerializeToString())
    answers = []
    for path in (two, one):
        with open_runner(str(path), device="cpu", backend=backend) as runner:
            answers.append(runner.infer(digit_pictures))
    np.testing.assert_allclose(answers[0], answers[1], rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("damage", ["missing", "short", "changed", "of another export"])
def test_weights_that_are_not_those_are_refused_by_everything(
    exported: Exported, tmp_path: Path, damage: str, tiny_graph: ModelProto
) -> None:
    found = exported()
    beside = found.onnx.with_name("tiny.onnx.data")
    content = bytearray(beside.read_bytes())
    if damage == "missing":
        beside.rename(tmp_path / "elsewhere.data")
    elif damage == "short":
        beside.write_bytes(content[:-1])
    elif damage == "changed":
        content[4096] ^= 1
        beside.write_bytes(content)
    else:
        other = copied(tiny_graph)
        largest(other).raw_data = bytes(len(largest(other).raw_data))
        write_graph(other, tmp_path / "tiny.onnx")
        shutil.copyfile(tmp_path / "tiny.onnx.data", beside)
    said = "which is not beside it" if damage == "missing" else "is not the file with the weights of tiny.onnx"
    for use in (open_runner, inspect_artifact):
        with pytest.raises(ArtifactError, match=said):
            use(str(found.onnx))


def test_signature_covers_the_weights(exported: Exported, tmp_path: Path) -> None:
    ed25519 = pytest.importorskip("cryptography.hazmat.primitives.asymmetric.ed25519", reason="needs the extra sign")
    from cryptography.hazmat.primitives import serialization

    from export.signature import require_signature

    key = ed25519.Ed25519PrivateKey.generate()
    plain = (serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    (tmp_path / "key.pem").write_bytes(key.private_bytes(*plain))
    public = (serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo)
    (tmp_path / "pub.pem").write_bytes(key.public_key().public_bytes(*public))
    found = exported(sign=tmp_path / "key.pem")
    require_signature(str(found.onnx), tmp_path / "pub.pem")
    with found.onnx.with_name("tiny.onnx.data").open("r+b") as file:
        file.seek(4096)
        file.write(b"other")
    with pytest.raises(ArtifactError, match="is not the file with the weights"):
        require_signature(str(found.onnx), tmp_path / "pub.pem")


def test_files_may_be_moved_and_the_graph_renamed(exported: Exported, tmp_path: Path, digit_pictures: Any) -> None:
    found = exported()
    moved = tmp_path / "moved"
    shutil.move(found.onnx.parent, moved)
    (moved / "tiny.onnx").rename(moved / "other.onnx")
    with open_runner(str(moved / "other.onnx"), device="cpu") as runner:
        assert runner.infer(digit_pictures).shape == (len(digit_pictures), 10)


def test_repository_gets_both_files(exported: Exported, tmp_path: Path, digit_pictures: Any) -> None:
    found = exported(triton=tmp_path / "models")
    assert found.triton
    assert {each.name for each in found.triton.iterdir()} == {"model.onnx", "tiny.onnx.data", "model.json"}
    with open_runner(str(found.triton / "model.onnx"), device="cpu") as runner:
        assert len(runner.infer(digit_pictures)) == len(digit_pictures)


def test_smaller_export_takes_the_old_weights_away(
    exported: Exported, tiny_checkpoint: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = exported().onnx.parent
    assert (folder / "tiny.onnx.data").exists()
    monkeypatch.setattr(weights_apart, "LARGEST_MESSAGE_BYTES", 2**31 - 1)
    export_model(ExportOptions(model=str(tiny_checkpoint), out=folder / "tiny.onnx", num_pictures=2))
    assert not (folder / "tiny.onnx.data").exists()


def test_weights_outside_the_folder_are_not_read(small_limit: None, tiny_graph: ModelProto, tmp_path: Path) -> None:
    write_graph(tiny_graph, tmp_path / "t.onnx")
    inside = tmp_path / "inside"
    inside.mkdir()
    graph = read_graph(tmp_path / "t.onnx", weights=False)
    for weight in graph.graph.initializer:
        for entry in weight.external_data:
            if entry.key == "location":
                entry.value = "../t.onnx.data"
    (inside / "t.onnx").write_bytes(graph.SerializeToString())
    with pytest.raises(ArtifactError, match="does not say which file that has to be"):
        open_runner(str(inside / "t.onnx"))


@pytest.mark.skipif(find_spec("tensorrt_rtx") is None, reason="tensorrt-rtx is not installed")
def test_tensorrt_builds_of_a_graph_whose_weights_are_apart(exported: Exported, no_gpu: None) -> None:
    found = exported(trt="fp16", builder="tensorrt-rtx", targets=("8.9",), profiles=((1, 2, 4),), cache=False)
    assert found.plan and found.plan.stat().st_size > 10_000
    assert found.passport.parity.graph and found.passport.parity.graph.passed


def test_engine_gets_a_file_of_what_is_no_message(small_limit: None, tiny_graph: ModelProto) -> None:
    with as_message_or_file(tiny_graph) as graph:
        assert isinstance(graph, Path)
        assert find_weights(graph) == replace(find_weights(graph), name="graph.onnx.data")
        assert weights_of(onnx.load(graph)).keys() == weights_of(tiny_graph).keys()
    assert not graph.exists()
