from __future__ import annotations

import hashlib
import json
from dataclasses import replace
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import ModelProto, numpy_helper

from export.options import ExportOptions
from export.passport import check_plan, read_passport, write_passport
from export.pipeline import ExportResult, export_model
from export.precision.rows import Tolerance
from export.runners.onnx_runtime import OnnxRunner
from export.runners.open import open_runner
from export.source import make_random_network
from export.tables import export_remarks
from zoo.errors import (
    ArtifactError,
    CheckpointError,
    DataError,
    EngineBuildError,
    MissingCapabilityError,
    RowError,
    UnknownNameError,
    VerdictError,
    ZooError,
)
from zoo.model.variants import find_variant

needs_rtx = pytest.mark.skipif(find_spec("tensorrt_rtx") is None, reason="tensorrt-rtx is not installed")


def files_in(folder: Path) -> set[str]:
    return {path.name for path in folder.iterdir()}


def options(checkpoint: Path, out: Path) -> ExportOptions:
    return ExportOptions(model=str(checkpoint), out=out, num_pictures=12)


def test_export_writes_a_graph_and_its_passport(tiny_checkpoint: Path, tmp_path: Path) -> None:
    result = export_model(options(tiny_checkpoint, tmp_path))
    assert files_in(tmp_path) == {"tiny.onnx", "tiny.json"}
    passport = read_passport(result.onnx)
    assert passport == result.passport
    assert passport.files.onnx.sha256 == hashlib.sha256(result.onnx.read_bytes()).hexdigest()
    assert passport.files.onnx.bytes == result.onnx.stat().st_size
    assert passport.checkpoint.sha256 == hashlib.sha256(tiny_checkpoint.read_bytes()).hexdigest()
    assert passport.contract.classes == tuple("0123456789")
    assert not passport.random_weights
    parity = passport.parity.onnx
    assert parity is not None and parity.passed and parity.n == 12 and parity.pictures == "digits"
    assert parity.top1_agreement == 1.0 and 0 < parity.max_abs_error < 1e-4
    assert "no plan was asked for" in passport.parity.notes["plan"]


def test_graph_and_passport_share_one_contract(
    tiny_checkpoint: Path, tmp_path: Path, exports_this_graph: ModelProto
) -> None:
    result = export_model(options(tiny_checkpoint, tmp_path / "new" / "folder"))
    with open_runner(str(result.onnx), device="cpu") as runner:
        assert runner.contract == result.passport.contract
    assert result.to_dict().keys() == {"onnx", "plan", "passport", "parity", "builder", "cost"}
    assert json.loads(json.dumps(result.to_dict()))["plan"] is None


def test_out_may_name_the_graph(tiny_checkpoint: Path, tmp_path: Path, exports_this_graph: ModelProto) -> None:
    result = export_model(options(tiny_checkpoint, tmp_path / "digits-v1.onnx"))
    assert files_in(tmp_path) == {"digits-v1.onnx", "digits-v1.json"}
    assert result.passport.files.onnx.name == "digits-v1.onnx"


@pytest.fixture(scope="module")
def plan_export(
    tiny_checkpoint: Path, tiny_graph: ModelProto, tmp_path_factory: pytest.TempPathFactory
) -> ExportResult:
    """One export with a plan, built by the real TensorRT-RTX."""
    with pytest.MonkeyPatch.context() as monkeypatch:
        monkeypatch.setattr("export.pipeline.export_onnx", lambda *_, **__: tiny_graph)
        folder = tmp_path_factory.mktemp("plan")
        return export_model(
            replace(options(tiny_checkpoint, folder), trt="fp16", builder="tensorrt-rtx", profiles=((1, 2, 4),))
        )


@needs_rtx
def test_fp16_plan_has_a_passport_that_vouches_for_it(plan_export: ExportResult) -> None:
    assert plan_export.plan is not None
    passport = check_plan(plan_export.plan)
    assert passport.files.plan is not None and passport.files.plan.precision == "fp16"
    assert passport.files.onnx.precision == "fp32"
    assert passport.builder is not None
    assert passport.builder.name == "tensorrt-rtx"
    assert passport.builder.profile.to_dict() == {"min": 1, "opt": 2, "max": 4}
    assert passport.builder.version[0].isdigit() and "8.6" in passport.builder.targets


@needs_rtx
def test_what_the_builder_said_is_beside_the_plan(plan_export: ExportResult) -> None:
    assert "info: " in plan_export.onnx.with_suffix(".log").read_text()


@needs_rtx
def test_the_passport_records_what_the_plan_was_built_to_be_and_that_it_was_built_before(
    tiny_checkpoint: Path, tmp_path: Path, exports_this_graph: ModelProto
) -> None:
    asked = replace(
        options(tiny_checkpoint, tmp_path),
        trt="fp16",
        builder="tensorrt-rtx",
        profiles=((1, 1, 1), (2, 4, 8)),
        gpus=("rtx-ampere,rtx-ada",),
        targets=("8.9",),
        workspace_mib=256,
    )
    results = [export_model(each) for each in (asked, asked, replace(asked, cache=False))]
    built, again, anew = (result.passport.builder for result in results)
    assert [any("--no-cache" in text for text in export_remarks(result)) for result in results] == [False, True, False]
    assert built and built.settings == asked.engine and built.targets == ("8.6", "8.9")
    assert built.settings.workspace_mib == 256 and len(built.settings.profiles) == 2
    assert again == replace(built, from_cache=True)
    assert anew and not anew.from_cache
    export_model(options(tiny_checkpoint, tmp_path))
    assert files_in(tmp_path) == {"tiny.onnx", "tiny.json"}, "the log went with its plan"


@needs_rtx
def test_refit_needs_the_gpu_of_the_plan(plan_export: ExportResult, tiny_checkpoint: Path, no_gpu: None) -> None:
    assert plan_export.plan
    with pytest.raises(ArtifactError, match="was not built to take other weights") as caught:
        export_model(replace(options(tiny_checkpoint, plan_export.onnx.parent), refit=plan_export.plan))
    assert "--weights refittable" in caught.value.hint
    passport = read_passport(plan_export.plan)
    assert passport.builder and passport.builder.settings
    refittable = replace(passport.builder.settings, weights="refittable")
    write_passport(plan_export.passport_file, replace(passport, builder=replace(passport.builder, settings=refittable)))
    try:
        with pytest.raises(MissingCapabilityError, match="put into a plan on its GPU"):
            export_model(replace(options(tiny_checkpoint, plan_export.onnx.parent), refit=plan_export.plan))
    finally:
        write_passport(plan_export.passport_file, passport)


@needs_rtx
def test_fp16_graph_is_compared_even_where_the_plan_cannot_run(plan_export: ExportResult) -> None:
    parity = plan_export.passport.parity
    assert parity.graph is not None and parity.graph.passed and parity.onnx is not None
    assert parity.graph.max_abs_error > parity.onnx.max_abs_error
    if parity.plan is None:
        assert "tiny.plan --data" in parity.notes["plan"]


@needs_rtx
def test_a_plan_without_a_gpu_names_the_graph_beside_it(plan_export: ExportResult, no_gpu: None) -> None:
    with pytest.raises(MissingCapabilityError) as caught:
        open_runner(str(plan_export.plan))
    assert str(plan_export.onnx) in caught.value.hint


@needs_rtx
def test_an_fp32_plan_is_built_from_the_graph_as_it_is(
    tiny_checkpoint: Path, tmp_path: Path, exports_this_graph: ModelProto
) -> None:
    result = export_model(replace(options(tiny_checkpoint, tmp_path), trt="fp32", builder="tensorrt-rtx"))
    assert result.passport.files.plan is not None and result.passport.files.plan.precision == "fp32"
    assert result.passport.parity.graph is not None
    assert result.passport.parity.graph == result.passport.parity.onnx


@pytest.fixture
def in_another_backend(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """OpenVINO, installed or not, is ONNX Runtime under its name; returns which back ends were opened."""
    opened: list[str] = []

    def open_fake(artifact: str, *, backend: str) -> OnnxRunner:
        opened.append(backend)
        return OnnxRunner(Path(artifact), device="cpu")

    monkeypatch.setattr("export.backends.find_spec", lambda name: object())
    monkeypatch.setattr("export.pipeline.open_runner", open_fake)
    return opened


def test_the_graph_goes_through_the_same_gate_in_every_back_end_asked_for(
    tiny_checkpoint: Path, tmp_path: Path, exports_this_graph: ModelProto, in_another_backend: list[str]
) -> None:
    asked = ("openvino", "openvino-bf16")
    result = export_model(replace(options(tiny_checkpoint, tmp_path), backends=asked))
    assert in_another_backend == [*asked]
    passport = read_passport(result.onnx)
    assert passport == result.passport
    found = {one.backend: one.parity for one in passport.parity.backends}
    assert list(found) == [*asked] and all(parity.passed and parity.n == 12 for parity in found.values())
    assert found["openvino"].tolerance == passport.parity.onnx.tolerance  # type: ignore[union-attr]
    assert found["openvino-bf16"].tolerance.max_error > found["openvino"].tolerance.max_error
    assert any(remark.startswith("In openvino-bf16: max error") for remark in export_remarks(result))


def test_a_back_end_that_answers_otherwise_leaves_nothing_behind(
    tiny_checkpoint: Path,
    tmp_path: Path,
    exports_this_graph: ModelProto,
    in_another_backend: list[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    infer = OnnxRunner.infer
    monkeypatch.setattr(
        OnnxRunner, "infer", lambda self, pictures: infer(self, pictures) + 0.5 * bool(in_another_backend)
    )
    with pytest.raises(VerdictError, match=r"tiny\.onnx in openvino differs from the checkpoint on digits"):
        export_model(replace(options(tiny_checkpoint, tmp_path / "new"), backends=("openvino",)))
    assert not list((tmp_path / "new").glob("*"))


def test_a_back_end_that_is_not_installed_is_told_first(
    tiny_checkpoint: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("export.backends.find_spec", lambda name: None)
    with pytest.raises(MissingCapabilityError, match="openvino is not installed"):
        export_model(replace(options(tiny_checkpoint, tmp_path / "new"), backends=("openvino",)))
    assert not (tmp_path / "new").exists() or not list((tmp_path / "new").glob("*"))


def damage(graph: ModelProto) -> None:
    """Move one weight of the classifier, as a wrong export would."""
    weight = next(weight for weight in graph.graph.initializer if weight.name == "classifier.weight")
    values = numpy_helper.to_array(weight).copy()
    values[4] += 0.05
    weight.CopyFrom(numpy_helper.from_array(values, weight.name))


def test_a_graph_that_answers_otherwise_leaves_nothing_behind(
    tiny_checkpoint: Path, tmp_path: Path, exports_this_graph: ModelProto
) -> None:
    damage(exports_this_graph)
    with pytest.raises(VerdictError, match=r"tiny\.onnx differs from the checkpoint on digits: max error") as caught:
        export_model(options(tiny_checkpoint, tmp_path / "new"))
    assert caught.value.exit_code == 3
    assert files_in(tmp_path) == set(), "neither artifacts, nor the staging folder, nor the folder made for them"


def test_a_failed_export_leaves_the_last_good_one_alone(
    tiny_checkpoint: Path, tmp_path: Path, exports_this_graph: ModelProto
) -> None:
    good = export_model(options(tiny_checkpoint, tmp_path))
    before = {path: path.read_bytes() for path in (good.onnx, good.passport_file)}
    damage(exports_this_graph)
    with pytest.raises(VerdictError):
        export_model(options(tiny_checkpoint, tmp_path))
    assert {path: path.read_bytes() for path in tmp_path.iterdir()} == before


def test_an_fp16_graph_beyond_its_tolerance_leaves_nothing_behind(
    tiny_checkpoint: Path, tmp_path: Path, exports_this_graph: ModelProto, monkeypatch: pytest.MonkeyPatch
) -> None:
    from export.precision.rows import find_precision

    strict = replace(find_precision("fp16"), tolerance=Tolerance(max_error=1e-9, mean_error=1e-9, tie_margin=0))
    monkeypatch.setattr("export.pipeline.find_precision", lambda id: strict if id == "fp16" else find_precision(id))
    with pytest.raises(VerdictError, match="the fp16 graph differs"):
        export_model(replace(options(tiny_checkpoint, tmp_path), trt="fp16"))
    assert files_in(tmp_path) == set()


def test_skipping_the_gate_is_recorded(tiny_checkpoint: Path, tmp_path: Path, exports_this_graph: ModelProto) -> None:
    damage(exports_this_graph)
    result = export_model(replace(options(tiny_checkpoint, tmp_path), parity=False))
    assert result.passport.parity.to_dict() == {
        "onnx": None,
        "graph": None,
        "plan": None,
        "notes": dict.fromkeys(("onnx", "graph", "plan"), "not run: --no-parity"),
    }


def test_without_tensorrt_the_graph_is_written_before_the_error(
    tiny_checkpoint: Path, tmp_path: Path, exports_this_graph: ModelProto, no_gpu: None, no_tensorrt: None
) -> None:
    with pytest.raises(MissingCapabilityError) as caught:
        export_model(replace(options(tiny_checkpoint, tmp_path), trt="fp16"))
    assert caught.value.hint == "pip install 'zoo[rtx]'" and "tiny.onnx was written" in caught.value.problem
    assert files_in(tmp_path) == {"tiny.onnx", "tiny.json"}
    passport = read_passport(tmp_path / "tiny.onnx")
    assert passport.files.plan is None and passport.builder is None
    assert "not installed" in passport.parity.notes["plan"]
    assert passport.parity.graph is not None and passport.parity.graph.passed, (
        "the fp16 graph was compared all the same"
    )


def test_a_build_that_fails_keeps_the_graph(
    tiny_checkpoint: Path, tmp_path: Path, exports_this_graph: ModelProto, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: object, **__: object) -> None:
        raise EngineBuildError("TensorRT 99 could not build the engine: no tactic.", "Look at the log.")

    monkeypatch.setattr("export.pipeline.engine_from_onnx", fail)
    monkeypatch.setattr("export.pipeline.choose_builder", lambda *_, **__: find_rtx())
    with pytest.raises(EngineBuildError, match=r"no tactic\. tiny\.onnx was written"):
        export_model(replace(options(tiny_checkpoint, tmp_path), trt="fp16"))
    assert files_in(tmp_path) == {"tiny.onnx", "tiny.json"}


def find_rtx() -> object:
    from export.engine.builders import RTX

    return RTX


def test_a_plan_of_an_earlier_export_goes(
    tiny_checkpoint: Path, tmp_path: Path, exports_this_graph: ModelProto
) -> None:
    (tmp_path / "tiny.plan").write_bytes(b"old engine")
    export_model(options(tiny_checkpoint, tmp_path))
    assert {file.name for file in tmp_path.iterdir()} == {"tiny.onnx", "tiny.json"}


@pytest.mark.parametrize("name", ["tiny.onnx", "tiny.json"])
def test_a_folder_in_the_way_publishes_nothing(
    name: str, tiny_checkpoint: Path, tmp_path: Path, exports_this_graph: ModelProto
) -> None:
    (tmp_path / name).mkdir()
    with pytest.raises(ZooError, match="is a folder"):
        export_model(options(tiny_checkpoint, tmp_path))
    assert [file.name for file in tmp_path.iterdir()] == [name]


def test_image_size_is_the_checkpoints_own_unless_told_otherwise(tiny_checkpoint: Path, tmp_path: Path) -> None:
    result = export_model(replace(options(tiny_checkpoint, tmp_path), image_size=48))
    assert result.passport.contract.preprocessing.image_size == 48
    (remark,) = [words for words in export_remarks(result) if "MMACs" in words]
    assert remark.endswith("measures it.") and "What it costs in accuracy is not known: " in remark
    untrained = replace(result, passport=replace(result.passport, random_weights=True))
    assert not [words for words in export_remarks(untrained) if "accuracy" in words]
    (pictures,) = onnx.load(result.onnx).graph.input
    assert [dim.dim_value for dim in pictures.type.tensor_type.shape.dim] == [0, 48, 48, 3]


def test_inference_resolution_is_capped(tiny_checkpoint: Path, tmp_path: Path) -> None:
    cap = find_variant("tiny").max_size
    with pytest.raises(ZooError, match=f"above the {cap} px") as caught:
        export_model(replace(options(tiny_checkpoint, tmp_path), image_size=cap + 1))
    assert f"--image-size {cap}" in caught.value.hint


def test_random_weights_are_never_silent(in_folder: Path) -> None:
    with pytest.raises(CheckpointError, match="no trained weights"):
        export_model(ExportOptions(model="tiny"))
    assert files_in(in_folder) == set()
    result = export_model(ExportOptions(model="tiny", random_weights=True, num_pictures=4))
    assert result.passport.random_weights
    assert result.passport.checkpoint.source == "random weights"
    assert result.passport.parity.onnx is not None
    assert result.passport.parity.onnx.pictures == "sample photographs"
    assert result.onnx == Path("tiny.onnx") and result.onnx.is_file()


def test_random_weights_are_settled_and_seeded() -> None:
    import torch

    variant = find_variant("tiny")
    state_before = torch.random.get_rng_state()
    first, second = (make_random_network(variant, variant.preprocessing) for _ in range(2))
    assert torch.equal(torch.random.get_rng_state(), state_before)
    assert not first.training and not any(module.training for module in first.modules())
    for name, value in first.state_dict().items():
        assert torch.equal(value, second.state_dict()[name]), name
    variances = first.state_dict()["stem.norm.running_var"].numpy()
    assert not np.allclose(variances, 1.0), "the norms saw pictures"
    assert {norm.momentum for norm in first.modules() if isinstance(norm, torch.nn.BatchNorm2d)} == {0.1}


@pytest.mark.parametrize(
    ("change", "error"),
    [
        ({"model": "no-such-model"}, UnknownNameError),
        ({"trt": "fp17"}, RowError),
        ({"data": "no-such-folder"}, DataError),
        ({"out": Path("s.plan")}, ZooError),
        ({"precision": "bf16", "opset": 21}, ZooError),
        ({"precision": "fp8", "opset": 18}, ZooError),
        ({"trt": "int8", "opset": 18}, ZooError),
    ],
)
def test_bad_options_leave_nothing_behind(
    change: dict[str, object],
    error: type[ZooError],
    tiny_checkpoint: Path,
    in_folder: Path,
    exports_this_graph: ModelProto,
) -> None:
    with pytest.raises(error):
        export_model(replace(options(tiny_checkpoint, Path("new")), **change))
    assert files_in(in_folder) == set()


def test_a_truncated_checkpoint_is_one_error(tiny_checkpoint: Path, tmp_path: Path) -> None:
    cut = tmp_path / "cut.safetensors"
    cut.write_bytes(tiny_checkpoint.read_bytes()[:5000])
    with pytest.raises(CheckpointError, match="truncated"):
        export_model(options(cut, tmp_path / "out"))
    assert files_in(tmp_path) == {"cut.safetensors"}


def test_an_unwritable_place_is_one_error(
    tiny_checkpoint: Path, tmp_path: Path, exports_this_graph: ModelProto
) -> None:
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(ZooError):
        export_model(options(tiny_checkpoint, tmp_path / "file"))
    with pytest.raises(ZooError, match="Cannot write"):
        export_model(options(tiny_checkpoint, tmp_path / "file" / "below"))


def test_paths_of_this_machine_stay_here(
    tiny_checkpoint: Path, tmp_path: Path, picture_folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A checkpoint remembers the folder it was trained on; what is exported from it says its name only."""
    from zoo.weights.checkpoint import load_checkpoint, save_checkpoint

    network, card = load_checkpoint(tiny_checkpoint)
    moved = tmp_path / "trained.safetensors"
    save_checkpoint(moved, network.state_dict(), replace(card, provenance={"data": str(picture_folder), "seed": 0}))
    result = export_model(options(moved, tmp_path))
    assert result.passport.parity.onnx is not None and result.passport.parity.onnx.pictures == "val"
    assert result.passport.checkpoint.provenance["data"] == picture_folder.name
    for written in (result.onnx, result.passport_file):
        assert str(picture_folder).encode() not in written.read_bytes()
        assert str(tmp_path).encode() not in written.read_bytes()
