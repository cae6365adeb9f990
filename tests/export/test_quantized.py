"""`zoo export --precision` and `--trt int8`: calibration pictures, what the passport says, and what is refused."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from onnx import ModelProto, TensorProto, load

from export.evaluate import evaluate, open_data
from export.inspection.card import inspect_artifact
from export.options import ExportOptions
from export.passport import read_passport
from export.pipeline import export_model
from export.quantized import stratified
from export.runners.open import open_runner
from zoo.data.digits import open_digits
from zoo.errors import DataError, UnknownNameError, ZooError


def test_an_int8_onnx_is_published_with_its_choice_and_answers(
    tiny_checkpoint: Path, tmp_path: Path, exports_this_graph: ModelProto
) -> None:
    result = export_model(ExportOptions(model=str(tiny_checkpoint), precision="int8", out=tmp_path, num_pictures=12))
    passport = read_passport(result.onnx)
    assert passport == result.passport
    assert passport.files.onnx.precision == "int8"
    card = passport.quantization.onnx
    assert card is not None and passport.quantization.plan is None
    assert (card.layout, card.pictures, card.n) == ("onnxruntime", "digits", 512)
    assert card.choice.blocks and card.choice.met
    assert TensorProto.INT8 in {weight.data_type for weight in load(result.onnx).graph.initializer}
    pictures = open_data(str(tiny_checkpoint), None).head(60)
    with open_runner(str(tiny_checkpoint), device="cpu") as full, open_runner(str(result.onnx)) as narrow:
        before, after = evaluate(full, pictures), evaluate(narrow, pictures)
    assert abs(before.to_dict()["top1"] - after.to_dict()["top1"]) <= 0.05


@pytest.mark.parametrize("precision", ["fp16", "fp8"])
def test_other_precisions_are_published_as_asked(
    precision: str, tiny_checkpoint: Path, tmp_path: Path, exports_this_graph: ModelProto
) -> None:
    result = export_model(ExportOptions(model=str(tiny_checkpoint), precision=precision, out=tmp_path, num_pictures=12))
    parity = result.passport.parity.onnx
    assert result.passport.files.onnx.precision == precision and parity is not None and parity.max_abs_error > 0
    assert (result.passport.quantization.onnx is not None) == (precision == "fp8")
    with open_runner(str(result.onnx), device="cpu") as runner:
        assert np.isfinite(
            runner.infer(np.zeros((1, *[result.passport.contract.preprocessing.image_size] * 2, 3), np.uint8))
        ).all()


def test_named_blocks_stay_in_float_and_unknown_ones_are_told(
    tiny_checkpoint: Path, tmp_path: Path, exports_this_graph: ModelProto
) -> None:
    asked = ExportOptions(model=str(tiny_checkpoint), precision="int8", keep=("stem",), out=tmp_path, num_pictures=12)
    card = export_model(asked).passport.quantization.onnx
    assert card is not None and card.choice.kept == ("stem",) and card.choice.target is None
    assert inspect_artifact(str(tmp_path / "tiny.onnx")).made_by.endswith(" --precision int8 --keep stem")
    with pytest.raises(UnknownNameError, match="Did you mean stem"):
        export_model(
            ExportOptions(model=str(tiny_checkpoint), precision="int8", keep=("sten",), out=tmp_path, num_pictures=12)
        )


def test_a_folder_of_any_pictures_calibrates(
    tiny_checkpoint: Path, tmp_path: Path, exports_this_graph: ModelProto
) -> None:
    from zoo.data.digits import write_samples

    write_samples(tmp_path / "photos", 30)
    asked = ExportOptions(
        model=str(tiny_checkpoint), precision="int8", calib=str(tmp_path / "photos"), out=tmp_path, num_pictures=12
    )
    card = export_model(asked).passport.quantization.onnx
    assert card is not None and (card.pictures, card.n) == ("photos", 30)
    (tmp_path / "empty").mkdir()
    with pytest.raises(DataError, match="no pictures to calibrate on"):
        export_model(
            ExportOptions(model=str(tiny_checkpoint), precision="int8", calib=str(tmp_path / "empty"), out=tmp_path)
        )


@pytest.mark.parametrize(
    ("option", "value"), [("calib", "digits"), ("keep", ("stem",)), ("agreement", 0.9)], ids=lambda value: str(value)
)
def test_options_of_quantization_are_refused_where_nothing_is_quantized(option: str, value: object) -> None:
    with pytest.raises(ZooError, match=f"--{option} has no effect"):
        export_model(ExportOptions(model="tiny", trt="fp16", **{option: value}))  # type: ignore[arg-type]


def test_weights_that_do_not_say_what_they_were_trained_on_need_pictures(
    tiny_checkpoint: Path, tmp_path: Path, exports_this_graph: ModelProto, monkeypatch: pytest.MonkeyPatch
) -> None:
    from dataclasses import replace

    from export import pipeline

    found = pipeline.find_source

    def without_provenance(options: ExportOptions, watch: object) -> object:
        source = found(options, watch)  # type: ignore[arg-type]
        assert source.checkpoint is not None
        return replace(source, checkpoint=replace(source.checkpoint, provenance={}))

    monkeypatch.setattr(pipeline, "find_source", without_provenance)
    with pytest.raises(DataError, match="does not say which pictures") as raised:
        export_model(ExportOptions(model=str(tiny_checkpoint), precision="int8", out=tmp_path, data="digits"))
    assert "--calib" in str(raised.value.hint)
    assert not [*tmp_path.iterdir()]


def test_calibration_pictures_are_of_every_class_alike() -> None:
    chosen = stratified(open_digits("train"), 50)
    assert chosen.class_counts().tolist() == [5] * 10
    few = stratified(open_digits("train"), 7)
    assert sorted(few.class_counts().tolist()) == [0] * 3 + [1] * 7


def test_an_int8_plan_is_built_of_a_graph_in_tensorrts_layout(
    tiny_checkpoint: Path, tmp_path: Path, exports_this_graph: ModelProto, no_gpu: None
) -> None:
    pytest.importorskip("tensorrt_rtx")
    result = export_model(
        ExportOptions(model=str(tiny_checkpoint), trt="int8", builder="tensorrt-rtx", out=tmp_path, num_pictures=12)
    )
    passport = json.loads(result.passport_file.read_text())
    assert passport["files"]["onnx"]["precision"] == "fp32" and passport["files"]["plan"]["precision"] == "int8"
    assert passport["quantization"]["plan"]["layout"] == "tensorrt" and passport["quantization"]["onnx"] is None
    assert passport["parity"]["graph"]["passed"]


@pytest.mark.parametrize("precision", ["bf16", "int8", "fp8"])
def test_other_forms_of_the_graph_are_quantized_alike(precision: str, tiny_checkpoint: Path, tmp_path: Path) -> None:
    """Planes that the client has normalised, probabilities and their highest: none of it is the network's."""
    asked = ExportOptions(
        model=str(tiny_checkpoint),
        precision=precision,
        input="float",
        softmax=True,
        topk=3,
        out=tmp_path,
        num_pictures=12,
    )
    result = export_model(asked)
    assert result.passport.parity.onnx is not None and result.passport.parity.onnx.passed
    kinds = {weight.name: weight.data_type for weight in load(result.onnx).graph.initializer}
    narrow = {"bf16": TensorProto.BFLOAT16, "int8": TensorProto.INT8, "fp8": TensorProto.FLOAT8E4M3FN}[precision]
    assert narrow in kinds.values()
