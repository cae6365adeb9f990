"""docs/passport.schema.json: every passport that is written keeps to it, and what a reader refuses it refuses."""

from __future__ import annotations

import json
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest
from onnx import ModelProto

from export.options import ExportOptions
from export.pipeline import export_model

jsonschema = pytest.importorskip("jsonschema")

SCHEMA = json.loads((Path(__file__).parents[2] / "docs" / "passport.schema.json").read_text(encoding="utf-8"))


@pytest.fixture(scope="module")
def validator() -> Any:
    jsonschema.Draft202012Validator.check_schema(SCHEMA)
    return jsonschema.Draft202012Validator(SCHEMA)


def passport_of(**options: Any) -> Any:
    return json.loads(export_model(ExportOptions(num_pictures=4, **options)).passport_file.read_text())


@pytest.fixture
def passport(tiny_checkpoint: Path, in_folder: Path, exports_this_graph: ModelProto) -> Any:
    """That of `zoo export tiny`."""
    return passport_of(model=str(tiny_checkpoint))


def test_a_passport_with_its_comparison_keeps_to_the_schema(passport: Any, validator: Any) -> None:
    assert passport["parity"]["onnx"]
    validator.validate(passport)


@pytest.mark.parametrize(
    "options",
    [
        {"parity": False},
        {"input": "float", "softmax": True, "topk": 2},
        pytest.param(
            {"trt": "fp16", "builder": "tensorrt-rtx", "targets": ("8.6",)},
            marks=pytest.mark.skipif(find_spec("tensorrt_rtx") is None, reason="tensorrt-rtx is not installed"),
        ),
    ],
    ids=["unchecked", "form", "plan"],
)
def test_a_passport_of_any_export_keeps_to_the_schema(
    options: dict[str, Any], tiny_checkpoint: Path, in_folder: Path, validator: Any
) -> None:
    validator.validate(passport_of(model=str(tiny_checkpoint), **options))


def test_passports_of_random_weights_and_of_several_labels_keep_to_the_schema(
    shapes_run: Path, in_folder: Path, validator: Any
) -> None:
    validator.validate(passport_of(model="tiny", random_weights=True, parity=False))
    several = passport_of(model=str(shapes_run))
    assert several["contract"]["task"] == "multi-label"
    validator.validate(several)


def test_fields_that_a_later_version_added_are_let_through(passport: Any, validator: Any) -> None:
    passport["added"] = passport["files"]["onnx"]["added"] = {"anything": 1}
    validator.validate(passport)


@pytest.mark.parametrize(
    ("place", "value"),
    [
        (("format",), "zoo-passport-9"),
        (("contract", "preprocessing", "color_order"), "BGR"),
        (("contract", "preprocessing", "antialias"), False),
        (("contract", "preprocessing", "std"), [0.0, 1.0, 1.0]),
        (("contract", "preprocessing", "std"), [1.0, 1.0]),
        (("contract", "letterbox"), True),
        (("contract", "classes"), []),
        (("contract", "form"), {"input": "int8"}),
        (("files", "onnx", "bytes"), -1),
        (("files", "onnx", "sha256"), "abc"),
        (("parity", "onnx", "top1_agreement"), 1.5),
        (("parity", "onnx", "scale"), 0),
        (("parity", "onnx", "n"), 1.5),
        (("random_weights",), None),
        (("checkpoint",), 7),
    ],
)
def test_a_wrong_value_is_refused(place: tuple[str, ...], value: object, passport: Any, validator: Any) -> None:
    part = passport
    for name in place[:-1]:
        part = part[name]
    part[place[-1]] = value
    with pytest.raises(jsonschema.ValidationError):
        validator.validate(passport)


def test_a_missing_field_is_refused(passport: Any, validator: Any) -> None:
    del passport["files"]["onnx"]["sha256"]
    with pytest.raises(jsonschema.ValidationError, match="'sha256' is a required property"):
        validator.validate(passport)
