from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest

from export.contract import Contract
from export.engine.builders import BatchProfile, BuildCard
from export.passport import (
    CheckpointCard,
    FileCard,
    FileCards,
    Parities,
    Passport,
    check_plan,
    read_passport,
    write_passport,
)
from zoo.errors import ArtifactError
from zoo.model.spec import Preprocessing

BUILT = BuildCard(
    name="tensorrt-rtx",
    version="1.7",
    targets=("8.6",),
    profile=BatchProfile(min=1, opt=2, max=4),
    gpu=None,
    build_s=1.5,
    warnings=("slow",),
)


def make_passport(folder: Path, *, with_plan: bool = True) -> Path:
    """A passport of two files that are no engines but have hashes; returns the plan's path."""
    onnx, plan = folder / "s.onnx", folder / "s.plan"
    onnx.write_bytes(b"graph")
    plan.write_bytes(b"engine")
    passport = Passport(
        contract=Contract(model="s", classes=("cat", "dog"), preprocessing=Preprocessing(image_size=64)),
        files=FileCards(onnx=FileCard.of(onnx, "fp32"), plan=FileCard.of(plan, "fp16") if with_plan else None),
        builder=BUILT if with_plan else None,
        parity=Parities(),
        checkpoint=CheckpointCard(source="checkpoint.safetensors", sha256=None, provenance={}),
        random_weights=False,
        environment={"time": "2026-01-31T12:00:00+00:00"},
    )
    write_passport(folder / "s.json", passport)
    assert read_passport(plan) == passport
    return plan


def test_a_plan_that_is_what_its_passport_says_is_accepted(tmp_path: Path) -> None:
    plan = make_passport(tmp_path)
    passport = check_plan(plan)
    card = passport.files.plan
    assert card is not None
    assert (card.name, card.bytes, card.precision) == ("s.plan", 6, "fp16")
    assert passport.contract.classes == ("cat", "dog")


def test_a_changed_plan_is_refused(tmp_path: Path) -> None:
    plan = make_passport(tmp_path)
    plan.write_bytes(b"enginE")
    with pytest.raises(ArtifactError, match="not the file its passport describes") as caught:
        check_plan(plan)
    assert "executable content" in caught.value.hint


def test_a_plan_without_passport_is_refused(tmp_path: Path) -> None:
    plan = make_passport(tmp_path)
    (tmp_path / "s.json").unlink()
    with pytest.raises(ArtifactError, match=r"s\.json is not beside it"):
        check_plan(plan)


def test_a_plan_of_another_export_is_refused(tmp_path: Path) -> None:
    plan = make_passport(tmp_path, with_plan=False)
    with pytest.raises(ArtifactError, match="from another export"):
        check_plan(plan)


def test_a_missing_plan_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(ArtifactError, match="There is no file"):
        check_plan(tmp_path / "s.plan")


@pytest.mark.parametrize(
    "text", ["", "{", "[]", "null", '{"format": "zoo-passport-1"}', '{"format": "zoo-passport-9"}', "\x00"]
)
def test_a_damaged_passport_is_one_error(text: str, tmp_path: Path) -> None:
    plan = make_passport(tmp_path)
    (tmp_path / "s.json").write_text(text)
    with pytest.raises(ArtifactError) as caught:
        read_passport(plan)
    assert str(tmp_path / "s.json") in caught.value.problem


def test_a_passport_that_is_not_text_is_one_error(tmp_path: Path) -> None:
    plan = make_passport(tmp_path)
    (tmp_path / "s.json").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(ArtifactError, match="not a readable passport"):
        read_passport(plan)


def test_passport_is_readable_without_this_project(tmp_path: Path) -> None:
    make_passport(tmp_path)
    fields = json.loads((tmp_path / "s.json").read_text())
    assert fields["format"] == "zoo-passport-1"
    assert fields["files"]["plan"]["name"] == "s.plan"
    assert fields["created"] == "2026-01-31T12:00:00+00:00"


def test_artifacts_may_move_together(tmp_path: Path) -> None:
    make_passport(tmp_path)
    shutil.copytree(tmp_path, tmp_path / "elsewhere", ignore=shutil.ignore_patterns("elsewhere"))
    assert check_plan(tmp_path / "elsewhere" / "s.plan").contract.model == "s"


# As this project's first version wrote it, field by field.
FIRST = {
    "format": "zoo-passport-1",
    "zoo_version": "0.1.0",
    "created": "2026-01-31T12:00:00+00:00",
    "contract": {
        "model": "tiny",
        "classes": ["0", "1"],
        "preprocessing": {
            "image_size": 32,
            "resize": "squash",
            "resize_size": None,
            "interpolation": "bilinear",
            "mean": [128.0, 128.0, 128.0],
            "std": [128.0, 128.0, 128.0],
            "color_order": "RGB",
            "antialias": True,
        },
    },
    "files": {
        "onnx": {"name": "tiny.onnx", "sha256": "0" * 64, "bytes": 123, "precision": "fp32"},
        "plan": {"name": "tiny.plan", "sha256": "1" * 64, "bytes": 45, "precision": "fp16"},
    },
    "builder": {
        "name": "tensorrt-rtx",
        "version": "1.7.0.23",
        "targets": ["8.0", "8.6"],
        "profile": {"min": 1, "opt": 8, "max": 32},
        "gpu": None,
        "build_s": 3.21,
        "warnings": [],
    },
    "parity": {
        "onnx": {
            "reference": "torch 2.11",
            "candidate": "onnxruntime 1.31 CPUExecutionProvider",
            "pictures": "digits",
            "n": 64,
            "scale": 12.5,
            "max_abs_error": 1e-06,
            "mean_abs_error": 1e-07,
            "relative_max_error": 8e-08,
            "relative_mean_error": 8e-09,
            "top1_agreement": 1.0,
            "ties": 0,
            "tolerance": {"max_error": 0.0001, "mean_error": 2e-05, "tie_margin": 2e-05},
            "failures": [],
            "passed": True,
        },
        "graph": None,
        "plan": None,
        "notes": {"graph": "not run: --no-parity", "plan": "not run: this machine has no GPU"},
    },
    "checkpoint": {"source": "checkpoint.safetensors", "sha256": "2" * 64, "provenance": {"data": "digits", "seed": 0}},
    "random_weights": False,
    "environment": {"time": "2026-01-31T12:00:00+00:00", "python": "3.11", "packages": {"torch": "2.11"}},
}


def read_text(folder: Path, fields: object) -> Passport:
    (folder / "tiny.json").write_text(json.dumps(fields))
    return read_passport(folder / "tiny.onnx")


def test_the_first_versions_passport_is_read_and_written_back_unchanged(tmp_path: Path) -> None:
    passport = read_text(tmp_path, FIRST)
    assert passport.parity.onnx is not None and passport.parity.onnx.passed
    assert passport.builder is not None and passport.builder.profile == BatchProfile(min=1, opt=8, max=32)
    assert passport.to_dict() == FIRST


def test_fields_that_a_later_version_added_are_passed_over(tmp_path: Path) -> None:
    later = json.loads(json.dumps(FIRST))
    for part in (later, later["files"], later["files"]["plan"], later["builder"], later["parity"]["onnx"]):
        part["added"] = {"anything": 1}
    assert read_text(tmp_path, later) == read_text(tmp_path, FIRST)


@pytest.mark.parametrize(
    ("place", "value", "said"),
    [
        (("contract", "preprocessing", "color_order"), "BGR", "contract.preprocessing.color_order is 'BGR'"),
        (("contract", "preprocessing", "antialias"), False, "contract.preprocessing.antialias is false"),
        (("contract", "preprocessing", "letterbox"), True, "contract.preprocessing.letterbox is unknown"),
        (("contract", "classes"), [], "contract.classes is empty"),
        (("files", "plan", "bytes"), -1, "files.plan.bytes is -1; expected a whole number of at least 0"),
        (("files", "onnx", "sha256"), "abc", "files.onnx.sha256 is 'abc'; expected 64 hexadecimal digits"),
        (("parity", "onnx", "max_abs_error"), float("nan"), "parity.onnx.max_abs_error is nan"),
        (("parity", "onnx", "top1_agreement"), 1.5, "parity.onnx.top1_agreement is 1.5"),
        (("builder", "profile", "opt"), 64, "profile is 1, 64, 32; expected three whole numbers"),
        (("random_weights",), None, "random_weights is none; expected true or false"),
        (("checkpoint",), 7, "checkpoint is 7; expected a table"),
    ],
)
def test_a_wrong_value_is_refused_by_file_and_field(
    place: tuple[str, ...], value: object, said: str, tmp_path: Path
) -> None:
    fields = json.loads(json.dumps(FIRST))
    part = fields
    for name in place[:-1]:
        part = part[name]
    part[place[-1]] = value
    with pytest.raises(ArtifactError) as caught:
        read_text(tmp_path, fields)
    assert str(tmp_path / "tiny.json") in caught.value.problem and said in caught.value.problem
