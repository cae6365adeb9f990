"""`zoo export --report`: the rows, the page, the gate of `--max-drop`, and the fix it names."""

from __future__ import annotations

import json
from collections.abc import Collection
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from onnx import ModelProto

from export.options import ExportOptions
from export.pipeline import export_model
from export.precision.wiring import Wiring, copied
from export.precision_page import render_report
from export.precision_report import QuantizationReport, judging_pictures
from export.quantized import Quantization
from export.source import find_source
from export.tables import export_remarks
from export.watch import Watch
from zoo.errors import DataError, VerdictError


@pytest.fixture(scope="module")
def asked(tiny_checkpoint: Path) -> ExportOptions:
    return ExportOptions(model=str(tiny_checkpoint), precision="int8", report=True, num_pictures=12)


def read_report(folder: Path) -> QuantizationReport:
    fields = json.loads((folder / "tiny.quantization.json").read_text())
    return QuantizationReport.from_dict(fields)


def test_a_report_has_every_form_against_fp32_on_the_same_pictures(
    asked: ExportOptions, tmp_path: Path, exports_this_graph: ModelProto
) -> None:
    result = export_model(replace(asked, out=tmp_path, max_drop=5.0))
    report = read_report(tmp_path)
    assert (result.report, result.verdict) == (tmp_path / "tiny.quantization.html", report.verdict)
    assert f"Report: {result.report}. {report.verdict}" in export_remarks(result)
    assert [row.name for row in report.forms] == ["fp32", "fp16", "int8", "fp8"]
    assert [row.published for row in report.forms] == [(), (), ("onnx",), ()]
    assert (report.n, report.pictures, report.max_drop) == (360, "digits", 5.0)
    full, half, narrow, float8 = report.forms
    assert full.drop == full.drop_low == full.drop_high == 0 and full.agreement == full.p == 1
    for row in (half, narrow, float8):
        assert row.drop == pytest.approx(100 * (full.top1 - row.top1))
        assert row.drop_low <= row.drop <= row.drop_high
        assert row.low < row.top1 < row.high
        assert sum(found.n for found in row.classes) == 360, "all ten classes are named"
    assert half.bytes < full.bytes
    assert narrow.latency and full.latency and float8.latency is None
    assert narrow.choice and narrow.choice == result.passport.quantization.onnx.choice  # type: ignore[union-attr]
    page = (tmp_path / "tiny.quantization.html").read_text()
    assert page == render_report(report)
    assert report.ships and "Ship it" in page and "stages.2.block.0" in page
    narrowly = replace(report, max_drop=max(narrow.drop, 0.0))
    assert narrowly.ships and f"cannot rule out a loss of {narrow.drop_high:.2f} points" in narrowly.verdict
    assert "cannot rule out" not in replace(report, max_drop=100.0).verdict


def test_a_report_of_an_earlier_export_goes_with_it(
    asked: ExportOptions, tmp_path: Path, exports_this_graph: ModelProto
) -> None:
    for suffix in ("html", "json"):
        (tmp_path / f"tiny.quantization.{suffix}").write_text("of an earlier export")
    export_model(ExportOptions(model=asked.model, out=tmp_path, num_pictures=12))
    assert sorted(path.name for path in tmp_path.iterdir()) == ["tiny.json", "tiny.onnx"]


def test_without_pictures_of_its_classes_there_is_no_report(tiny_checkpoint: Path) -> None:
    source = find_source(ExportOptions(model=str(tiny_checkpoint)), Watch())
    assert source.checkpoint
    for data, said in ((None, "does not say what it was validated on"), ("/gone/pets", "/gone/pets, beside which")):
        checkpoint = replace(source.checkpoint, provenance={"data": data})
        with pytest.raises(DataError, match=said) as caught:
            judging_pictures(replace(source, checkpoint=checkpoint), None)
        assert "--data FOLDER" in caught.value.hint
    assert len(judging_pictures(source, None)) == 360


@pytest.fixture
def int8_is_broken_unless_a_block_is_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    made = Quantization.with_kept

    def with_kept(self: Quantization, precision: object, layout: object, kept: Collection[str]) -> ModelProto:
        graph = made(self, precision, layout, kept)  # type: ignore[arg-type]
        if kept:
            return graph
        broken = copied(graph)
        name = "classifier.weight:scale"
        wiring = Wiring(broken)
        wiring.set_weight(name, -wiring.weight(name))
        return broken

    monkeypatch.setattr(Quantization, "with_kept", with_kept)


def test_more_than_max_drop_is_a_verdict_that_names_the_fix_and_writes_nothing(
    asked: ExportOptions, tmp_path: Path, exports_this_graph: ModelProto, int8_is_broken_unless_a_block_is_kept: None
) -> None:
    with pytest.raises(VerdictError, match=r"int8 loses \d.* --keep \S+ loses") as raised:
        export_model(replace(asked, out=tmp_path, agreement=0.0, parity=False, max_drop=0.5))
    assert "Nothing was written" in str(raised.value.hint)
    assert not [*tmp_path.iterdir()]


def test_without_max_drop_the_verdict_is_on_the_page(
    asked: ExportOptions, tmp_path: Path, exports_this_graph: ModelProto, int8_is_broken_unless_a_block_is_kept: None
) -> None:
    export_model(replace(asked, out=tmp_path, agreement=0.0, parity=False))
    report = read_report(tmp_path)
    assert not report.ships and report.verdict.startswith("Do not ship it: int8 loses")
    (fix,) = report.fixes
    assert fix.enough and len(fix.keep) == 1 and fix.drop <= report.max_drop
    assert "do not ship" in (tmp_path / "tiny.quantization.html").read_text()


def test_pictures_without_the_artifacts_classes_cannot_be_reported_on(
    asked: ExportOptions, tmp_path: Path, exports_this_graph: ModelProto
) -> None:
    from PIL import Image

    for name in ("cat", "dog"):
        (tmp_path / "others" / name).mkdir(parents=True)
        Image.fromarray(np.zeros((8, 8, 3), np.uint8)).save(tmp_path / "others" / name / "0.png")
    with pytest.raises(DataError, match="are not among the artifact's"):
        export_model(replace(asked, out=tmp_path / "out", parity=False, data=str(tmp_path / "others"), calib="digits"))
