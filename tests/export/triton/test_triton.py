"""A model repository for Triton, read by Triton's own protobuf where that is, and an InferenceService for KServe."""

from __future__ import annotations

import errno
import importlib.util
import json
import re
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from onnx import ModelProto

from export.contract import Contract, Form
from export.engine.builders import CLASSIC, RTX, BatchProfile, BuildCard
from export.options import ExportOptions
from export.passport import read_passport
from export.pipeline import ExportResult, export_model
from export.triton.config import Served, labels_text, signature, tuning
from export.triton.kserve import inference_service, service_name
from export.triton.repository import Entry, add_version, planned_entry
from zoo.errors import ZooError
from zoo.model.spec import Preprocessing

yaml = pytest.importorskip("yaml")

SMALL = BatchProfile(min=1, opt=4, max=16)
BUILT = BuildCard(
    name=CLASSIC.id,
    version="10.16.1",
    targets=("8.9",),
    profile=SMALL,
    gpu="NVIDIA L4",
    build_s=1.0,
    warnings=(),
)


@pytest.fixture(scope="module")
def model_config() -> Any:
    """Triton's generated message. `tritonclient.grpc` itself is not imported: it needs gRPC, and an older protobuf."""
    if not (client := importlib.util.find_spec("tritonclient")) or not client.submodule_search_locations:
        pytest.skip("tritonclient is not installed: pip install --no-deps tritonclient")
    path = Path(client.submodule_search_locations[0], "grpc", "model_config_pb2.py")
    spec = importlib.util.spec_from_file_location("model_config_pb2", path)
    assert spec and spec.loader
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def contract_of(form: Form) -> Contract:
    return Contract(model="s", classes=("cat", "dog", "gnu"), preprocessing=Preprocessing(image_size=64), form=form)


@pytest.mark.parametrize("served", ["onnx", "plan"])
@pytest.mark.parametrize("form", [Form(), Form(input="float", output="probabilities", topk=2)], ids=["usual", "all"])
def test_triton_reads_the_config_as_it_is_meant(form: Form, served: Served, model_config: Any) -> None:
    from google.protobuf import text_format

    contract = contract_of(form)
    text = f"{signature('s', contract, served, SMALL.max)}\n{tuning(contract, served, SMALL)}"
    config = text_format.Parse(text, model_config.ModelConfig())
    assert (config.name, config.backend, config.max_batch_size) == (
        "s",
        {"onnx": "onnxruntime", "plan": "tensorrt"}[served],
        16,
    )
    (taken,) = config.input
    if form.input == "uint8":
        assert (taken.name, taken.data_type, list(taken.dims)) == ("pictures", model_config.TYPE_UINT8, [64, 64, 3])
    else:
        assert (taken.name, taken.data_type, list(taken.dims)) == ("planes", model_config.TYPE_FP32, [3, 64, 64])
    assert [each.name for each in config.output] == list(form.output_names)
    assert [each.label_filename for each in config.output] == ["labels.txt"] + [""] * (len(config.output) - 1)
    if form.topk:
        assert config.output[2].data_type == model_config.TYPE_INT64 and list(config.output[2].dims) == [2]
    assert list(config.dynamic_batching.preferred_batch_size) == [4, 16]
    assert config.dynamic_batching.max_queue_delay_microseconds == 0
    (group,) = config.instance_group
    kinds = model_config.ModelInstanceGroup
    assert (group.count, group.kind) == (1, kinds.KIND_GPU if served == "plan" else kinds.KIND_AUTO)
    assert config.version_policy.latest.num_versions == 1
    assert [each.batch_size for each in config.model_warmup] == [1, 16]
    for warm in config.model_warmup:
        value = warm.inputs[taken.name]
        assert value.zero_data and list(value.dims) == list(taken.dims) and value.data_type == taken.data_type


def test_every_class_is_a_line_of_the_labels() -> None:
    assert labels_text(("cat", "two\nlines", "Hündin")) == "cat\ntwo lines\nHündin\n"


def exported(checkpoint: Path, **more: Any) -> ExportResult:
    return export_model(ExportOptions(model=str(checkpoint), parity=False, triton=Path("models"), **more))


def files_in(folder: Path) -> set[str]:
    return {str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file()}


def test_every_export_is_the_next_version_and_nothing_is_overwritten(
    tiny_checkpoint: Path, in_folder: Path, exports_this_graph: ModelProto
) -> None:
    first = exported(tiny_checkpoint)
    assert first.triton == Path("models/tiny/1")
    assert files_in(Path("models")) == {
        *(f"tiny/{name}" for name in ("config.pbtxt", "labels.txt", "1/model.onnx", "1/model.json"))
    }
    assert Path("models/tiny/1/model.onnx").read_bytes() == first.onnx.read_bytes()
    assert read_passport(Path("models/tiny/1/model.onnx")) == first.passport
    config = Path("models/tiny/config.pbtxt")
    tuned = config.read_text().replace("count: 1", "count: 2")
    config.write_text(tuned)
    Path("models/tiny/7").mkdir()
    before = {path: path.read_bytes() for path in Path("models").rglob("*") if path.is_file()}
    assert exported(tiny_checkpoint).triton == Path("models/tiny/8")
    assert {path: path.read_bytes() for path in before} == before, "what a person tuned stays too"
    assert files_in(Path("models/tiny/8")) == {"model.onnx", "model.json"}


def test_the_commands_take_a_version_where_it_lies(
    tiny_checkpoint: Path, in_folder: Path, exports_this_graph: ModelProto, zoo: Callable[..., Any]
) -> None:
    answer = zoo("export", tiny_checkpoint, "--no-parity", "--triton", "models", "--kserve", "k.yaml")
    assert answer.code == 0 and "--model-repository=models" in answer.out and "k.yaml" in answer.out
    told = json.loads(zoo("export", tiny_checkpoint, "--no-parity", "--triton", "models", "--json").out)
    assert told["triton"] == "models/tiny/2" and "kserve" not in told
    found = json.loads(zoo("inspect", "models/tiny/2/model.onnx", "--json").out)
    assert found["passport"] == "describes it"


@pytest.mark.parametrize(
    ("more", "said"),
    [
        ({"softmax": True}, r"config\.pbtxt describes another model"),
        ({"image_size": 64}, r"config\.pbtxt describes another model"),
        ({"profiles": ((1, 2, 4),)}, r"config\.pbtxt describes another model"),
    ],
)
def test_a_version_of_another_form_is_refused_before_the_export(
    more: dict[str, Any],
    said: str,
    tiny_checkpoint: Path,
    in_folder: Path,
    exports_this_graph: ModelProto,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    exported(tiny_checkpoint)
    before = files_in(in_folder)
    monkeypatch.setattr("export.pipeline.export_onnx", lambda *_, **__: pytest.fail("exported"))
    with pytest.raises(ZooError, match=said) as caught:
        exported(tiny_checkpoint, **more)
    assert "-o NAME.onnx" in caught.value.hint and files_in(in_folder) == before


def test_other_classes_are_another_model(
    tiny_checkpoint: Path, in_folder: Path, exports_this_graph: ModelProto
) -> None:
    exported(tiny_checkpoint)
    labels = Path("models/tiny/labels.txt")
    labels.write_text(labels.read_text().replace("9", "nine"))
    with pytest.raises(ZooError, match="other classes"):
        exported(tiny_checkpoint)


def test_what_triton_cannot_serve_is_refused(
    tiny_checkpoint: Path, in_folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    options = ExportOptions(model="s", triton=Path("models"))
    with pytest.raises(ZooError, match="no model called 'a b'"):
        planned_entry(options, "a b", contract_of(Form()))
    with pytest.raises(ZooError, match="single pictures"):
        planned_entry(replace(options, trt="fp16", profiles=((2, 4, 8),)), "s", contract_of(Form()))
    for builder, served in ((RTX, None), (CLASSIC, "plan")):
        monkeypatch.setattr("export.triton.repository.choose_builder", lambda *_, chosen=builder, **__: chosen)
        if served:
            entry = planned_entry(replace(options, trt="fp16"), "s", contract_of(Form()))
            assert entry is not None and entry.served == served
            continue
        with pytest.raises(ZooError, match="does not load plans of TensorRT-RTX"):
            planned_entry(replace(options, trt="fp16"), "s", contract_of(Form()))
    assert not list(in_folder.iterdir())


def test_a_version_that_cannot_be_written_leaves_no_model_without_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    contract = contract_of(Form())
    entry = Entry(tmp_path / "new" / "models", "tiny", contract, "onnx", BatchProfile())

    def full(*_: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr("shutil.copyfile", full)
    with pytest.raises(ZooError, match=r"models.tiny: No space left on device\. .* was written all the same"):
        add_version(entry, tmp_path / "tiny.onnx")
    assert not (tmp_path / "new").exists()


def test_where_the_service_goes_is_checked_before_the_export(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    for kserve, said in ((tmp_path, "it is a folder"), (tmp_path / "file" / "s.yaml", "Not a directory")):
        options = ExportOptions(model="tiny", triton=tmp_path / "models", kserve=kserve)
        with pytest.raises(ZooError, match=said) as caught:
            planned_entry(options, "tiny", contract_of(Form()))
        assert "--kserve" in caught.value.hint


def test_two_exports_at_once_are_two_versions(tmp_path: Path) -> None:
    from export.triton.repository import _publish

    folder = tmp_path / "s"
    for number in (1, 2):
        made = tmp_path / f"made-{number}"
        made.mkdir()
        (made / "model.onnx").write_bytes(b"graph")
        folder.mkdir(exist_ok=True)
        assert _publish(made, folder) == folder / str(number)


# KServe.


@pytest.mark.parametrize(("served", "built"), [("onnx", None), ("plan", BUILT)])
def test_the_service_is_what_kserve_takes(served: Served, built: BuildCard | None) -> None:
    service = yaml.safe_load(inference_service("My_Net.v2", "models", served, built))
    assert (service["apiVersion"], service["kind"]) == ("serving.kserve.io/v1beta1", "InferenceService")
    assert service["metadata"] == {"name": "my-net-v2"}
    model = service["spec"]["predictor"]["model"]
    assert model["modelFormat"] == {"name": "tensorrt" if built else "onnx"}
    assert (model["protocolVersion"], model["runtime"]) == ("v2", "kserve-tritonserver")
    assert model["storageUri"] == "s3://CHANGE-ME/models"
    assert ("nvidia.com/gpu" in model["resources"]["limits"]) == bool(built)
    assert all(isinstance(value, str) for part in model["resources"].values() for value in part.values())


@pytest.mark.parametrize(("served", "built"), [("onnx", None), ("plan", BUILT)])
def test_kserves_own_models_know_every_field(served: Served, built: BuildCard | None) -> None:
    """Read from the package's files: importing it needs Kubernetes' client, FastAPI and more."""
    if not (package := importlib.util.find_spec("kserve")) or not package.submodule_search_locations:
        pytest.skip("kserve is not installed: pip install --no-deps kserve")
    models = Path(package.submodule_search_locations[0], "models")

    def known(row: str) -> set[str]:
        text = (models / f"v1beta1_{row}.py").read_text(encoding="utf-8")
        (table,) = re.findall(r"attribute_map = \{(.*?)\}", text, re.DOTALL)
        return set(re.findall(r": '(\w+)'", table))

    service = yaml.safe_load(inference_service("s", "models", served, built))
    assert service.keys() <= known("inference_service")
    assert service["spec"].keys() <= known("inference_service_spec")
    assert service["spec"]["predictor"].keys() <= known("predictor_spec")
    model = service["spec"]["predictor"]["model"]
    assert model.keys() <= known("model_spec") and model["modelFormat"].keys() <= known("model_format")
    assert "storageURI" not in known("model_spec"), "a misspelt field would be noticed"


@pytest.mark.parametrize(
    ("name", "wanted"), [("s", "s"), ("v1-b0", "v1-b0"), ("3d_Net", "model-3d-net"), ("x" * 80 + "-", "x" * 63)]
)
def test_a_service_has_a_name_that_kubernetes_takes(name: str, wanted: str) -> None:
    assert service_name(name) == wanted and re.fullmatch(r"[a-z]([-a-z0-9]{0,61}[a-z0-9])?", wanted)


def test_batches_of_a_graph_are_for_triton_to_know(
    tiny_checkpoint: Path, in_folder: Path, exports_this_graph: ModelProto, zoo: Callable[..., Any]
) -> None:
    """--profile is otherwise for plans."""
    answer = zoo("export", tiny_checkpoint, "--no-parity", "--triton", "models", "--profile", 1, 2, 4)
    assert answer.code == 0 and "max_batch_size: 4" in Path("models/tiny/config.pbtxt").read_text()
    assert zoo("export", tiny_checkpoint, "--no-parity", "--profile", 1, 2, 4).code == 2


def test_a_service_without_a_repository_has_no_effect(in_folder: Path, zoo: Callable[..., Any]) -> None:
    answer = zoo("export", "tiny", "--kserve", "s.yaml")
    assert answer.code == 2 and "--kserve has no effect without --triton" in answer.err
