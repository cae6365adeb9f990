from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from onnx import ModelProto

from export.contract import Contract, Form
from export.engine.builders import BatchProfile, BuildCard, EngineSettings
from export.inspection import abilities
from export.inspection.card import inspect_artifact
from export.inspection.commands import export_command
from export.options import ExportOptions
from export.passport import CheckpointCard, FileCard, read_passport, write_passport
from export.pipeline import export_model
from export.precision.bf16 import to_bf16
from export.runners.open import open_runner
from zoo.errors import ArtifactError, MissingCapabilityError, UnknownNameError
from zoo.machine import Driver, Gpu
from zoo.model.spec import Preprocessing

Zoo = Callable[..., Any]
BUILT = BuildCard(
    name="tensorrt-rtx",
    version="1.7",
    targets=("8.6", "8.9"),
    profile=BatchProfile(min=1, opt=2, max=4),
    gpu=None,
    build_s=1.5,
    warnings=(),
)


@pytest.fixture
def onnx(tiny_checkpoint: Path, in_folder: Path, exports_this_graph: ModelProto) -> Path:
    """tiny.onnx and its passport in the working folder."""
    return export_model(ExportOptions(model=str(tiny_checkpoint), num_pictures=4)).onnx


@pytest.fixture
def plan(onnx: Path) -> Path:
    """A plan beside it that is no engine, but has a passport."""
    made = onnx.with_suffix(".plan")
    made.write_bytes(b"engine")
    passport = read_passport(onnx)
    files = replace(passport.files, plan=FileCard.of(made, "fp16"))
    write_passport(onnx.with_suffix(".json"), replace(passport, files=files, builder=BUILT))
    return made


def test_a_checkpoint_a_graph_and_a_plan_say_what_they_are(
    tiny_checkpoint: Path, plan: Path, no_gpu: None, zoo: Zoo
) -> None:
    found = {}
    for artifact in (tiny_checkpoint, plan.with_suffix(".onnx"), plan):
        answer = zoo("inspect", artifact)
        assert answer.code == 0, answer.err
        for said in (
            " of tiny",
            "pictures: batch ×",
            "10: 0, 1, 2",
            "val top-1",
            "Fused-MBConv",
            "parameters",
            "sha256",
        ):
            assert said in answer.out, said
        told = json.loads(zoo("inspect", artifact, "--json").out)
        found[told["kind"]] = told
    assert found.keys() == {"checkpoint", "onnx", "plan"}
    assert len({json.dumps(each["stages"]) for each in found.values()}) == 1
    for told in found.values():
        assert told["macs"] == sum(stage["macs"] for stage in told["stages"])
        assert told["inputs"][0]["shape"][1:] == [told["contract"]["preprocessing"]["image_size"]] * 2 + [3]
    assert found["checkpoint"]["made_by"].startswith("zoo train tiny --data digits")
    assert found["onnx"]["made_by"].startswith("zoo export tiny --image-size")
    assert found["onnx"]["parity"]["onnx"]["passed"] and found["onnx"]["passport"] == "describes it"
    assert found["onnx"]["opset"] == 20
    assert "--trt fp16 --builder tensorrt-rtx --profile 1 2 4 --target 8.6 --target 8.9" in found["plan"]["made_by"]
    assert not found["plan"]["opens_here"][0]["opens"]
    assert "no NVIDIA GPU" in found["plan"]["opens_here"][0]["why"]


def test_a_graph_of_another_form_is_shown_as_it_is(tiny_checkpoint: Path, in_folder: Path, zoo: Zoo) -> None:
    asked = ExportOptions(model=str(tiny_checkpoint), num_pictures=4, input="float", softmax=True, topk=2, opset=18)
    export_model(asked)
    answer = zoo("inspect", "tiny.onnx")
    for said in ("planes: batch × 3 ×", "probabilities: batch × 10", "top_classes: batch × 2 int64", "by the client"):
        assert said in answer.out, said
    Path("tiny.json").unlink()
    told = json.loads(zoo("inspect", "tiny.onnx", "--json").out)
    assert told["checkpoint"]["source"] == "checkpoint.safetensors", "the graph says it too"
    assert "--input float --softmax --topk 2 --opset 18" in told["made_by"]


def test_a_passport_of_another_file_is_not_believed(onnx: Path, zoo: Zoo) -> None:
    passport = json.loads(onnx.with_suffix(".json").read_text())
    passport["files"]["onnx"]["sha256"] = "0" * 64
    onnx.with_suffix(".json").write_text(json.dumps(passport))
    told = json.loads(zoo("inspect", onnx, "--json").out)
    assert told["passport"] == "describes another file" and told["parity"] is None
    onnx.with_suffix(".json").unlink()
    told = json.loads(zoo("inspect", onnx, "--json").out)
    assert told["passport"] == "missing" and told["file"]["precision"] == "unknown"
    assert told["checkpoint"] is None and told["made_by"].startswith("zoo export tiny")


def test_what_is_no_artifact_of_ours_is_one_error(plan: Path) -> None:
    plan.write_bytes(b"malice")
    with pytest.raises(ArtifactError, match="not the file its passport describes"):
        inspect_artifact(str(plan))
    for content in (b"not a graph", b""):
        Path("theirs.onnx").write_bytes(content)
        with pytest.raises(ArtifactError, match=r"theirs\.onnx"):
            inspect_artifact("theirs.onnx")
    with pytest.raises(ArtifactError, match="There is no file"):
        inspect_artifact("nowhere.onnx")
    with pytest.raises(UnknownNameError):
        inspect_artifact("no-such-model")


def test_a_network_of_ones_own_has_no_stages_but_all_else(onnx: Path, tiny_graph: ModelProto, zoo: Zoo) -> None:
    own = ModelProto()
    own.CopyFrom(tiny_graph)
    (entry,) = (each for each in own.metadata_props if each.key == "zoo")
    entry.value = entry.value.replace('"model": "tiny"', '"model": "mine"')
    onnx.write_bytes(own.SerializeToString())
    told = json.loads(zoo("inspect", onnx, "--json").out)
    assert (told["contract"]["model"], told["stages"], told["macs"]) == ("mine", [], None)
    assert zoo("inspect", onnx).code == 0


def test_published_weights_say_their_licence(zoo: Zoo, in_folder: Path) -> None:
    told = json.loads(zoo("inspect", "lite0", "--json").out)
    assert told["licence"] == "Apache-2.0" and told["made_by"].startswith("zoo pull lite0.")
    assert told["accuracy"].startswith("published top-1")


# What this machine can do with a plan.


@pytest.mark.parametrize(
    ("capability", "version", "opens", "rebuild", "said"),
    [
        ((8, 9), "1.7", True, False, "NVIDIA L4"),
        ((8, 9), "1.8", False, True, "here is TensorRT-RTX 1.8"),
        ((12, 0), "1.7", False, True, "for compute capability 8.6, 8.9; NVIDIA L4 has 12.0"),
        (None, "1.7", False, False, "no NVIDIA GPU"),
    ],
)
def test_a_plan_opens_where_its_version_and_its_gpu_are(
    capability: tuple[int, int] | None,
    version: str,
    opens: bool,
    rebuild: bool,
    said: str,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    driver = Driver("13.0", (Gpu("NVIDIA L4", 24 * 2**30, capability),)) if capability else None
    monkeypatch.setattr(abilities, "cuda_driver", lambda: driver)
    monkeypatch.setattr(abilities, "find_spec", lambda name: object())
    monkeypatch.setattr(abilities, "load_tensorrt", lambda builder: type("Fake", (), {"version": version}))
    ability, helps = abilities.of_plan(BUILT)
    assert (ability.opens, helps) == (opens, rebuild) and said in ability.why


def test_a_plan_without_tensorrt_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(abilities, "find_spec", lambda name: None)
    ability, helps = abilities.of_plan(BUILT)
    assert not ability.opens and not helps and "pip install 'zoo[rtx]'" in ability.why


def test_a_plan_for_another_gpu_names_the_command_that_builds_it_here(
    plan: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    driver = Driver("13.0", (Gpu("NVIDIA RTX 5090", 32 * 2**30, (12, 0)),))
    for module in ("abilities", "card"):
        monkeypatch.setattr(f"export.inspection.{module}.cuda_driver", lambda: driver)
    found = inspect_artifact(str(plan))
    assert found.rebuild and found.rebuild.endswith("--profile 1 2 4 --target 12.0")


def test_the_command_of_published_weights_names_them() -> None:
    contract = Contract(model="s", classes=("a", "b"), preprocessing=Preprocessing(image_size=384), form=Form(topk=1))
    card = CheckpointCard(source="s.timm-in1k", sha256=None, provenance={"weights": "s.timm-in1k"})
    assert export_command(contract, card) == "zoo export s.timm-in1k --image-size 384 --topk 1"
    assert export_command(contract, replace(card, source="random weights")).endswith("--random-weights")
    own = CheckpointCard(source="my best.safetensors", sha256=None, provenance={})
    assert export_command(contract, own).startswith("zoo export 'my best.safetensors' --image-size"), "not runs/s"


def test_a_graph_in_bf16_is_not_for_onnx_runtime_on_a_processor(tiny_graph: ModelProto, in_folder: Path) -> None:
    Path("a b.onnx").write_bytes(to_bf16(tiny_graph).SerializeToString())
    told = [(each.runner.split()[0], each.opens) for each in inspect_artifact("a b.onnx").opens_here]
    assert told[0] == ("ONNX", False)
    with pytest.raises(MissingCapabilityError, match=r"has no operators for a b\.onnx on the processor") as caught:
        open_runner("a b.onnx", device="cpu")
    assert "--backend openvino" in caught.value.hint


def test_what_to_type_next_can_be_typed(onnx: Path, zoo: Zoo) -> None:
    shutil.copy(onnx, "a b.onnx")
    assert "zoo inspect 'a b.onnx' --snippet python" in zoo("inspect", "a b.onnx").out


def test_inspecting_a_graph_loads_no_framework(onnx: Path, frameworks_loaded_by: Callable[..., list[str]]) -> None:
    shutil.copy(onnx, "other.onnx")
    assert "torch" not in frameworks_loaded_by("inspect", "other.onnx")


def test_a_plan_says_what_it_was_built_to_be_and_the_command_that_asks_for_it(
    plan: Path, no_gpu: None, zoo: Zoo
) -> None:
    settings = EngineSettings(
        profiles=(BatchProfile(min=1, opt=1, max=1), BatchProfile(min=2, opt=8, max=16)),
        workspace_mib=512,
        optimization_level=5,
        compat="ampere+",
        version_compatible=True,
        weights="stripped",
    )
    passport = read_passport(plan)
    built = replace(BUILT, name="tensorrt", version="11.4", settings=settings, refitted_from="0" * 64)
    write_passport(plan.with_suffix(".json"), replace(passport, builder=built))
    told = " ".join(zoo("inspect", plan).out.split())
    for words in (
        "batches 1 to 1, tuned for 1; batches 2 to 16, tuned for 8",
        "workspace 512 MiB; optimization level 5",
        "on Ampere and later; for later releases too; weights stripped",
        "refitted from a plan of sha256 000",
        "--profile 1 1 1 --profile 2 8 16 --workspace 512 --optimization-level 5 --compat ampere+",
        "--version-compatible --weights stripped",
    ):
        assert words in told, words
    refused = zoo("inspect", plan, "--snippet", "python")
    assert refused.code == 1 and "is kept without weights" in refused.err
