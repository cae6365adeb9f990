from __future__ import annotations

import pytest

from export.backends import BACKENDS, USUAL, choose_backend, find_backend, pair_with_backends
from export.runners.open import _OPENERS
from zoo.errors import MissingCapabilityError, UnknownNameError, ZooError


@pytest.fixture
def all_installed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("export.backends.find_spec", lambda name: object())


def test_every_back_end_can_be_opened() -> None:
    assert set(_OPENERS) == {row.id for row in BACKENDS}


@pytest.mark.parametrize(
    ("artifact", "usual"),
    [("s", "torch"), ("runs/s.safetensors", "torch"), ("s.onnx", "onnxruntime"), ("s.plan", "tensorrt")],
)
def test_each_kind_has_its_usual_back_end(artifact: str, usual: str) -> None:
    assert choose_backend(artifact).id == usual
    assert choose_backend(artifact, usual).id == usual


def test_a_back_end_of_another_kind_is_refused_with_those_that_fit(all_installed: None) -> None:
    with pytest.raises(ZooError, match=r"openvino opens an \.onnx, and s is a checkpoint") as caught:
        choose_backend("s", "openvino")
    assert "torch, torch-compile and torch-aot" in caught.value.hint
    with pytest.raises(UnknownNameError, match="openvin"):
        find_backend("openvin")


def test_a_back_end_of_another_device_is_refused(all_installed: None) -> None:
    with pytest.raises(ZooError, match="computes on the processor, and --device is cuda"):
        choose_backend("s.onnx", "openvino", device="cuda")
    with pytest.raises(ZooError, match="computes on a GPU, and --device is cpu"):
        choose_backend("s.onnx", "onnxruntime-cuda-graph", device="cpu")
    assert choose_backend("s.onnx", "openvino", device="cpu").id == "openvino"


def test_a_back_end_that_is_not_installed_says_how_to(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("export.backends.find_spec", lambda name: None)
    with pytest.raises(MissingCapabilityError, match="openvino is not installed") as caught:
        choose_backend("s.onnx", "openvino-bf16")
    assert caught.value.hint == "pip install 'zoo[openvino]'"


def test_artifacts_are_paired_with_the_back_ends_that_open_them(all_installed: None) -> None:
    assert pair_with_backends(("s", "s.onnx"), ()) == [("s", USUAL), ("s.onnx", USUAL)]
    asked = ("torch", "onnxruntime", "torch-compile", "openvino")
    assert pair_with_backends(("s", "s.onnx"), asked) == [
        ("s", "torch"),
        ("s", "torch-compile"),
        ("s.onnx", "onnxruntime"),
        ("s.onnx", "openvino"),
    ]


def test_a_back_end_without_artifact_and_an_artifact_without_back_end_are_refused(all_installed: None) -> None:
    with pytest.raises(ZooError, match=r"tensorrt opens a \.plan, and s\.onnx is an \.onnx"):
        pair_with_backends(("s.onnx",), ("openvino", "tensorrt"))
    with pytest.raises(ZooError, match=r"openvino opens an \.onnx, and s is a checkpoint"):
        pair_with_backends(("s.onnx", "s"), ("openvino",))


def test_what_is_computed_in_another_precision_says_so() -> None:
    rounded = find_backend("openvino-bf16")
    assert (rounded.precision_of("fp32"), rounded.precision_of("int8")) == ("bf16", "int8, bf16")
    assert find_backend("openvino").precision_of("int8") == "int8"
