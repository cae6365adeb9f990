"""Graphs of every form: what goes in, what comes out, and that all who read the outputs read them alike."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable
from dataclasses import replace
from importlib.util import find_spec
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from numpy.typing import NDArray
from onnx import ModelProto
from starlette.testclient import TestClient

from export.contract import Contract, Form
from export.engine.build import engine_from_onnx
from export.engine.builders import RTX, BatchProfile, EngineSettings
from export.graph import LEFT_OVERS, export_onnx
from export.interface import as_input, as_logits, input_of, outputs_of, scores_of
from export.options import ExportOptions
from export.parity import Gate, Probe, infer_all
from export.pipeline import export_model
from export.precision.rows import find_precision
from export.runners.onnx_runtime import OnnxRunner
from export.runners.pytorch import TorchRunner
from serve.core.service import Limits
from serve.core.slot import Slot
from serve.engine import open_engine
from serve.options import ServeOptions
from serve.web.app import create_app
from zoo.data.digits import write_samples
from zoo.data.preprocess import softmax
from zoo.errors import ArtifactError, VerdictError, ZooError
from zoo.model.efficientnet import EfficientNet
from zoo.model.spec import Preprocessing
from zoo.weights.checkpoint import Checkpoint

Model = tuple[EfficientNet, Checkpoint]
FORMS = [
    Form(input=taken, output=answered, topk=topk)
    for taken, answered, topk in product(("uint8", "float"), ("logits", "probabilities"), (None, 3))
][1:]
ALL_OF_IT = Form(input="float", output="probabilities", topk=3)
COLOURS = Preprocessing(image_size=4, mean=(120.0, 110.0, 100.0), std=(60.0, 50.0, 40.0))


@pytest.fixture(scope="module")
def exported(tiny_checkpoint: Path, tiny_contract: Contract) -> Callable[[Form], ModelProto]:
    """The trained tiny network in a form, exported once each."""
    from zoo.weights.checkpoint import load_checkpoint

    made: dict[Form, ModelProto] = {}

    def export(form: Form) -> ModelProto:
        if form not in made:
            network = load_checkpoint(tiny_checkpoint)[0]
            made[form] = export_onnx(network, replace(tiny_contract, form=form), checkpoint={})
        return made[form]

    return export


@pytest.mark.parametrize("form", FORMS, ids=str)
def test_a_graph_of_any_form_answers_as_pytorch_does(
    form: Form,
    exported: Callable[[Form], ModelProto],
    tiny_model: Model,
    tiny_contract: Contract,
    digit_pictures: NDArray[np.uint8],
) -> None:
    with OnnxRunner(exported(form).SerializeToString(), device="cpu") as candidate:
        assert candidate.contract.form == form
        found = candidate.outputs(digit_pictures)
    with TorchRunner(tiny_model[0], replace(tiny_contract, form=form)) as reference:
        wanted = reference.outputs(digit_pictures)
    assert list(found) == list(wanted) == list(form.output_names)
    for name, values in wanted.items():
        np.testing.assert_allclose(found[name], values, rtol=1e-4, atol=1e-5)
        assert found[name].dtype == values.dtype
    if form.output == "probabilities":
        np.testing.assert_allclose(found["probabilities"].sum(axis=1), 1.0, rtol=1e-5)


@pytest.mark.parametrize("form", FORMS, ids=str)
def test_a_graph_of_any_form_has_the_networks_structure(
    form: Form, exported: Callable[[Form], ModelProto], tiny_graph: ModelProto
) -> None:
    graph = exported(form).graph
    found, usual = (Counter(node.op_type for node in each.node) for each in (graph, tiny_graph.graph))
    more = {"Softmax"} if form.output == "probabilities" else set()
    more |= {"TopK"} if form.topk else set()
    assert set(found - usual) == more
    assert set(usual - found) == (set() if form.input == "uint8" else {"Cast", "Transpose", "Mul", "Add"})
    assert not found.keys() & LEFT_OVERS
    assert {node.name for node in graph.node if node.op_type in more} == {f"answers/{each}" for each in more}
    assert all("/" in node.name for node in graph.node)
    used = {tensor for node in graph.node for tensor in node.input}
    assert all(weight.name in used for weight in graph.initializer)


@pytest.mark.parametrize("form", [*FORMS, Form()], ids=str)
def test_inputs_and_outputs_are_those_of_the_contract(
    form: Form, exported: Callable[[Form], ModelProto], tiny_contract: Contract
) -> None:
    contract, graph = replace(tiny_contract, form=form), exported(form).graph
    for told, values in (((input_of(contract),), graph.input), (outputs_of(contract), graph.output)):
        for tensor, value in zip(told, values, strict=True):
            dims = [dim.dim_param or dim.dim_value for dim in value.type.tensor_type.shape.dim]
            kind = onnx.helper.tensor_dtype_to_np_dtype(value.type.tensor_type.elem_type)
            assert (tensor.name, tensor.dtype, ["batch", *tensor.shape]) == (value.name, str(kind), dims)


def test_the_same_form_is_the_same_file(
    exported: Callable[[Form], ModelProto], tiny_model: Model, tiny_contract: Contract
) -> None:
    again = export_onnx(tiny_model[0], replace(tiny_contract, form=ALL_OF_IT), checkpoint={})
    assert again.SerializeToString() == exported(ALL_OF_IT).SerializeToString()


def test_the_usual_form_is_written_as_before(tiny_contract: Contract) -> None:
    assert "form" not in tiny_contract.to_dict()
    told = replace(tiny_contract, form=ALL_OF_IT).to_dict()
    assert told["form"] == {"input": "float", "output": "probabilities", "topk": 3}
    assert Contract.from_dict(told).form == ALL_OF_IT


@pytest.mark.parametrize("form", [ALL_OF_IT, Form(topk=2), Form(input="float")], ids=str)
def test_outputs_of_an_fp16_graph_stay_float32(
    form: Form, exported: Callable[[Form], ModelProto], digit_pictures: NDArray[np.uint8]
) -> None:
    half = find_precision("fp16").apply(exported(form))
    with OnnxRunner(half.SerializeToString(), device="cpu") as candidate:
        found = candidate.outputs(digit_pictures)
    with OnnxRunner(exported(form).SerializeToString(), device="cpu") as full:
        np.testing.assert_allclose(found[form.output], full.infer(digit_pictures), rtol=0.1, atol=0.05)
    assert found[form.output].dtype == np.float32
    last = [node.name for node in half.graph.node if node.op_type in ("Cast", "Softmax", "TopK")]
    assert last[-1] == "answers/TopK" or not form.topk
    assert [name for name in last if name.startswith("answers/")] == last[last.index("classifier/ToFloat32") + 1 :]


@pytest.mark.skipif(find_spec("tensorrt_rtx") is None, reason="tensorrt-rtx is not installed")
@pytest.mark.parametrize("form", [ALL_OF_IT, Form(output="probabilities", topk=3)], ids=str)
def test_tensorrt_builds_what_the_options_make(form: Form, exported: Callable[[Form], ModelProto]) -> None:
    graph = find_precision("fp16").apply(exported(form)).SerializeToString()
    settings = EngineSettings(profiles=(BatchProfile(min=1, opt=2, max=4),), targets=("8.6",))
    engine = engine_from_onnx(graph, builder=RTX, settings=settings)
    assert len(engine.plan) > 10_000 and engine.card.targets == ("8.6",)


@pytest.mark.parametrize("opset", [18, 23])
def test_the_opset_is_the_one_asked_for_and_runs_here(
    opset: int, tiny_model: Model, tiny_contract: Contract, digit_pictures: NDArray[np.uint8]
) -> None:
    graph = export_onnx(tiny_model[0], replace(tiny_contract, form=ALL_OF_IT), checkpoint={}, opset=opset)
    assert [(each.domain, each.version) for each in graph.opset_import] == [("", opset)]
    with OnnxRunner(graph.SerializeToString(), device="cpu") as runner:
        assert runner.infer(digit_pictures).shape == (len(digit_pictures), 10)


def test_an_opset_the_exporter_did_not_make_is_an_error(
    tiny_model: Model, tiny_contract: Contract, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As where it cannot convert: it says so in its log and keeps its own."""
    import torch

    export = torch.onnx.export
    monkeypatch.setattr("torch.onnx.export", lambda *args, **named: export(*args, **named | {"opset_version": 18}))
    with pytest.raises(ArtifactError, match="exported opset 18 where 21 was asked for"):
        export_onnx(tiny_model[0], tiny_contract, checkpoint={}, opset=21)


# One place turns outputs into scores.


def contract_of(form: Form, *, thresholds: tuple[float, ...] | None = None) -> Contract:
    return Contract(model="m", classes=("a", "b", "c"), preprocessing=COLOURS, thresholds=thresholds, form=form)


@pytest.mark.parametrize("thresholds", [None, (0.5, 0.5, 0.5)])
def test_scores_of_logits_and_of_probabilities_are_the_same(thresholds: tuple[float, ...] | None) -> None:
    logits = np.random.default_rng(0).normal(0, 4, (50, 3)).astype(np.float32)
    of_logits = contract_of(Form(), thresholds=thresholds)
    of_shares = contract_of(Form(output="probabilities"), thresholds=thresholds)
    shares = scores_of(logits, of_logits)
    assert scores_of(shares, of_shares) is shares, "no second softmax"
    for temperature in (1.0, 0.5, 2.5):
        found = scores_of(shares, of_shares, temperature=temperature)
        np.testing.assert_allclose(found, scores_of(logits, of_logits, temperature=temperature), rtol=1e-4, atol=1e-6)
    assert as_logits(logits, of_logits) is logits
    np.testing.assert_allclose(
        softmax(as_logits(shares, contract_of(Form(output="probabilities")))),
        shares / shares.sum(axis=1, keepdims=True),
        rtol=1e-4,
    )


@pytest.mark.parametrize("thresholds", [None, (0.5, 0.5, 0.5)])
def test_scores_that_were_rounded_to_nothing_or_all_are_finite_logits(thresholds: tuple[float, ...] | None) -> None:
    logits = as_logits(
        np.array([[0.0, 1.0, 0.0]], np.float32), contract_of(Form(output="probabilities"), thresholds=thresholds)
    )
    assert np.isfinite(logits).all() and logits.argmax() == 1 and logits.dtype == np.float32


def test_planes_are_what_the_contract_says() -> None:
    pictures = np.random.default_rng(0).integers(0, 256, (2, 4, 4, 3), dtype=np.uint8)
    planes = as_input(pictures, contract_of(Form(input="float")))
    wanted = (pictures.astype(np.float64) - COLOURS.mean) / COLOURS.std
    np.testing.assert_allclose(planes, wanted.transpose(0, 3, 1, 2), rtol=1e-5, atol=1e-6)
    assert planes.dtype == np.float32 and planes.flags.c_contiguous
    assert as_input(pictures, contract_of(Form())) is pictures


class Parrot:
    """A candidate that answers what it was told."""

    backend, artifact, max_batch_size = "parrot", "parrot", None

    def __init__(self, outputs: dict[str, NDArray[Any]], contract: Contract) -> None:
        self.told, self.contract = outputs, contract

    def outputs(self, pictures: NDArray[np.uint8]) -> dict[str, NDArray[Any]]:
        return self.told


@pytest.mark.parametrize(
    ("scores", "classes", "passes"),
    [
        ([[0.7, 0.2]], [[0, 1]], True),
        ([[0.7, 0.2]], [[1, 0]], False),
        ([[0.2, 0.7]], [[1, 0]], False),
        ([[0.7, 0.1]], [[0, 2]], False),
        ([[0.7, 0.2]], [[0, 9]], False),
    ],
)
def test_the_gate_refuses_highest_scores_that_are_not(
    scores: list[list[float]], classes: list[list[int]], passes: bool
) -> None:
    contract = contract_of(Form(output="probabilities", topk=2))
    every = np.array([[0.7, 0.2, 0.1]], np.float32)
    told = {"probabilities": every, "top_scores": np.array(scores, np.float32), "top_classes": np.array(classes)}
    gate = Gate("torch", Probe("one", np.zeros((1, 4, 4, 3), np.uint8)), every)
    candidate: Any = Parrot(told, contract)
    if passes:
        assert gate.check(candidate, "parrot", find_precision("fp32")).passed
        return
    with pytest.raises(VerdictError, match="names other highest classes than its own scores do, on 1 of 1"):
        gate.check(candidate, "parrot", find_precision("fp32"))


# From the command line.


@pytest.fixture(scope="module")
def all_of_it(tiny_checkpoint: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The .onnx of `zoo export --input float --softmax --topk 3`, and that of `zoo export` beside it, plain.onnx."""
    folder = tmp_path_factory.mktemp("forms")
    asked = ExportOptions(model=str(tiny_checkpoint), out=folder, num_pictures=8)
    export_model(replace(asked, out=folder / "plain.onnx"))
    return export_model(replace(asked, input="float", softmax=True, topk=3)).onnx


def test_the_passport_says_the_form_and_the_gate_passed(all_of_it: Path) -> None:
    passport = json.loads(all_of_it.with_suffix(".json").read_text())
    assert passport["contract"]["form"] == {"input": "float", "output": "probabilities", "topk": 3}
    assert passport["parity"]["onnx"]["passed"] and passport["parity"]["onnx"]["relative_max_error"] < 1e-5


def test_predict_and_evaluate_say_the_same_of_every_form(all_of_it: Path, in_folder: Path, zoo: Any) -> None:
    paths = write_samples(in_folder / "pictures", 4)
    both = (all_of_it, all_of_it.with_name("plain.onnx"))
    for flags in ((), ("--calibrated",)):
        ours, plain = (
            [
                json.loads(line)["predictions"]
                for line in zoo("predict", each, *paths, "--json", *flags).out.splitlines()
            ]
            for each in both
        )
        for of_ours, of_plain in zip(ours, plain, strict=True):
            assert [row["class"] for row in of_ours] == [row["class"] for row in of_plain]
            scores = [[row["score"] for row in rows] for rows in (of_ours, of_plain)]
            assert scores[0] == pytest.approx(scores[1], abs=1e-5)
    ours, plain = (json.loads(zoo("evaluate", each, "--data", "digits", "--json").out) for each in both)
    assert ours["top1"] == plain["top1"] and ours["loss"] == pytest.approx(plain["loss"], abs=1e-5)


def test_the_server_and_the_harness_take_every_form(all_of_it: Path, in_folder: Path, zoo: Any) -> None:
    (path,) = write_samples(in_folder / "pictures", 1)
    limits = Limits(max_body_bytes=10**6, timeout_s=60, max_in_flight=4, decode_threads=1, drain_s=10)
    engine = open_engine(ServeOptions(engine=str(all_of_it), device="cpu"))
    with TestClient(create_app(Slot(engine), limits)) as client:
        engine.batcher.warmed.result(60)
        answer = client.post("/predict?top=10", content=path.read_bytes()).json()
        assert client.get("/info").json()["form"]["output"] == "probabilities"
    engine.close()
    told = json.loads(zoo("predict", all_of_it, path, "--json", "--top", 10).out)
    assert [row["class"] for row in answer["predictions"]] == [row["class"] for row in told["predictions"]]
    assert sum(row["score"] for row in answer["predictions"]) == pytest.approx(1.0, abs=1e-5)
    brief = ("--duration-s", 0.01, "--warmup-ms", 0, "--rounds", 3, "--device", "cpu", "--batch-size", 2)
    timed = zoo("bench", "latency", all_of_it, *brief, "--json")
    assert timed.code == 0, timed.err
    assert json.loads(timed.out)["data"]["artifacts"][0]["num_classes"] == 10


def test_several_labels_are_answered_as_sigmoids(shapes_run: Path, tmp_path: Path) -> None:
    asked = ExportOptions(model=str(shapes_run), out=tmp_path, num_pictures=8)
    plain = export_model(replace(asked, out=tmp_path / "plain.onnx"))
    sigmoids = export_model(replace(asked, softmax=True, topk=2))
    assert sigmoids.passport.parity.onnx is not None and sigmoids.passport.parity.onnx.compared == "labels"
    size = plain.passport.contract.preprocessing.image_size
    pictures = np.random.default_rng(0).integers(0, 256, (5, size, size, 3), dtype=np.uint8)
    with OnnxRunner(plain.onnx, device="cpu") as of_logits, OnnxRunner(sigmoids.onnx, device="cpu") as of_shares:
        wanted = scores_of(infer_all(of_logits, pictures), of_logits.contract)
        outputs = of_shares.outputs(pictures)
    np.testing.assert_allclose(outputs["probabilities"], wanted, rtol=1e-4, atol=1e-6)
    np.testing.assert_array_equal(outputs["top_scores"], -np.sort(-outputs["probabilities"], axis=1)[:, :2])


def test_more_classes_than_there_are_is_refused(tiny_checkpoint: Path, tmp_path: Path) -> None:
    with pytest.raises(ZooError, match="--topk 11 asks for more classes than the 10") as caught:
        export_model(ExportOptions(model=str(tiny_checkpoint), out=tmp_path, topk=11))
    assert "--topk 10 or less" in caught.value.hint


@pytest.mark.parametrize(
    ("arguments", "said"),
    [(("--opset", 17), "18<=x<=23"), (("--opset", 24), "18<=x<=23"), (("--input", "int8"), "uint8")],
)
def test_what_cannot_be_asked_is_a_wrong_use(
    arguments: tuple[str | int, ...], said: str, in_folder: Path, zoo: Any
) -> None:
    answer = zoo("export", "tiny", *arguments)
    assert answer.code == 2 and said in answer.err


def test_another_size_says_what_it_costs(
    tiny_checkpoint: Path, tiny_graph: ModelProto, exports_this_graph: ModelProto, in_folder: Path, zoo: Any
) -> None:
    plain = zoo("export", tiny_checkpoint, "--no-parity")
    assert "MMACs" not in plain.out
    answer = zoo("export", tiny_checkpoint, "--no-parity", "--image-size", 64)
    told = json.loads(zoo("export", tiny_checkpoint, "--no-parity", "--image-size", 64, "--json").out)["cost"]
    assert told["image_size"] == 64 and told["own_size"] < 64
    assert f"{told['macs'] / told['own_macs']:.2f} ×" in answer.out
    assert "is of" in answer.out and "top-1" in answer.out and "zoo evaluate tiny.onnx" in answer.out
