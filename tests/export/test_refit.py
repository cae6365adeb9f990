"""What may be refitted; that it works is in tests/export/engine/test_every_release.py."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
from onnx import ModelProto

from export.options import ExportOptions
from export.passport import FileCard, read_passport
from export.pipeline import export_model
from export.precision.rows import PRECISIONS, Precision, find_precision
from export.refit import check_weights_apart, weights_beside
from zoo.errors import ArtifactError, ZooError


def test_a_calibrated_plan_and_its_weights_stay_together() -> None:
    calibrated: Precision = find_precision("int8")
    with pytest.raises(ZooError, match=r"--refit is for .*: in a plan of int8 the calibrated ranges are part of"):
        check_weights_apart(calibrated, "--refit")
    for row in PRECISIONS:
        if row.transform or row.id == "fp32":
            check_weights_apart(row, "--refit")


def test_weights_are_taken_from_a_graph_with_all_their_bits(
    tiny_checkpoint: Path, tmp_path: Path, exports_this_graph: ModelProto
) -> None:
    onnx = export_model(ExportOptions(model=str(tiny_checkpoint), out=tmp_path, parity=False)).onnx
    plan = onnx.with_suffix(".plan")
    plan.write_bytes(b"engine")
    passport = read_passport(onnx)
    for of_onnx, of_plan in (("fp32", "fp32"), ("fp32", "fp16"), ("int8", "fp16")):
        files = replace(
            passport.files, onnx=replace(passport.files.onnx, precision=of_onnx), plan=FileCard.of(plan, of_plan)
        )
        told = replace(passport, files=files)
        if of_onnx == "int8":
            with pytest.raises(ArtifactError, match=r"takes its weights from an \.onnx in fp32"):
                weights_beside(plan, told)
        else:
            assert (weights_beside(plan, told).SerializeToString() == onnx.read_bytes()) is (of_plan == "fp32")
