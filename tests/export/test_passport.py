from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest

from export.contract import Contract
from export.passport import FileCard, Passport, check_plan, read_passport, write_passport
from zoo.errors import ArtifactError
from zoo.model.spec import Preprocessing


def make_passport(folder: Path, *, with_plan: bool = True) -> Path:
    """A passport of two files that are no engines but have hashes; returns the plan's path."""
    onnx, plan = folder / "s.onnx", folder / "s.plan"
    onnx.write_bytes(b"graph")
    plan.write_bytes(b"engine")
    passport = Passport(
        contract=Contract(model="s", classes=("cat", "dog"), preprocessing=Preprocessing(image_size=64)),
        onnx=FileCard.of(onnx, "fp32"),
        plan=FileCard.of(plan, "fp16") if with_plan else None,
        builder={"name": "tensorrt-rtx", "version": "1.7", "targets": ["8.6"]} if with_plan else None,
        parity={"onnx": None, "graph": None, "plan": None, "notes": {}},
        checkpoint={"source": "checkpoint.safetensors", "sha256": None, "provenance": {}},
        random_weights=False,
        environment={"time": "2026-01-31T12:00:00+00:00"},
    )
    write_passport(folder / "s.json", passport)
    assert read_passport(plan) == passport
    return plan


def test_a_plan_that_is_what_its_passport_says_is_accepted(tmp_path: Path) -> None:
    plan = make_passport(tmp_path)
    passport = check_plan(plan)
    assert passport.plan is not None
    assert (passport.plan.name, passport.plan.bytes, passport.plan.precision) == ("s.plan", 6, "fp16")
    assert passport.contract.classes == ("cat", "dog")


def test_a_changed_plan_is_refused_unless_trusted(tmp_path: Path) -> None:
    plan = make_passport(tmp_path)
    plan.write_bytes(b"enginE")
    with pytest.raises(ArtifactError, match="not the file its passport describes") as caught:
        check_plan(plan)
    assert "executable content" in caught.value.hint
    assert check_plan(plan, trust=True).contract.model == "s"


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
    with pytest.raises(ArtifactError):
        read_passport(plan)


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
