"""Several labels a picture, the whole way: a file of labels, training, ONNX, prediction, evaluation, the server."""

from __future__ import annotations

import csv
import json
import math
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from starlette.testclient import TestClient

from export.evaluate import evaluate
from export.options import ExportOptions
from export.parity import infer_all
from export.pipeline import export_model
from export.runners.open import open_runner
from serve.core.service import Limits
from serve.core.slot import Slot
from serve.engine import open_engine
from serve.options import ServeOptions
from serve.web.app import create_app
from train.options import TrainOptions
from train.session import train_model
from zoo.data.labels import read_labels
from zoo.data.open import open_val
from zoo.data.pictures import load_prepared
from zoo.errors import CheckpointError, DataError, RowError, ZooError
from zoo.weights.checkpoint import read_card

CLASSES = ("circle", "square", "triangle")


@pytest.fixture(scope="module")
def shapes_onnx(shapes_run: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The exported run on the shapes."""
    folder = tmp_path_factory.mktemp("exported")
    return export_model(ExportOptions(model=str(shapes_run), out=folder)).onnx


def rows_of(path: Path) -> list[dict[str, str]]:
    with path.open(encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file))


def test_training_learns_several_labels_and_says_so(shapes_run: Path) -> None:
    lines = [json.loads(line) for line in (shapes_run / "metrics.jsonl").read_text().splitlines()]
    assert lines[-1]["val_map"] > 0.9 > lines[0]["val_map"] or lines[0]["val_map"] > 0.5
    assert lines[-1]["val_top1"] is lines[-1]["train_top1"] is None
    # Begun at the labels' frequencies the first epoch costs less than 3 ln 2 = 2.08.
    assert lines[0]["train_loss"] < 3 * math.log(2) * 1.05
    card = read_card(shapes_run / "checkpoint.safetensors")
    assert (card.classes, card.task, card.recipe["loss"], card.recipe["metric"]) == (
        CLASSES,
        "multi-label",
        "bce",
        "map",
    )
    assert card.thresholds is not None and len(card.thresholds) == 3
    assert card.provenance["val_map"] > 0.9
    assert card.provenance["temperature"] is None
    assert not (shapes_run / "confusion.svg").exists()
    page = (shapes_run / "report.html").read_text()
    for words in ("mAP on 20 test pictures", "micro F1", "Mean average precision, %", "<h2>Classes</h2>", "threshold"):
        assert words in page
    for words in ("Confusion", "Most confused", "Can the scores be believed", "top-1"):
        assert words not in page


def test_the_spreadsheets_agree_with_scikit_learn(shapes_run: Path, shapes: Path) -> None:
    from sklearn.metrics import average_precision_score, precision_score, recall_score

    test = read_labels(shapes).splits["test"]
    card = read_card(shapes_run / "checkpoint.safetensors")
    with open_runner(str(shapes_run), device="cpu") as runner:
        logits = infer_all(runner, load_prepared(test, runner.contract.preprocessing)[0])
    scores = 1 / (1 + np.exp(-logits.astype(np.float64)))
    answered = scores >= np.array(card.thresholds)
    assert test.targets is not None
    for place, row in enumerate(rows_of(shapes_run / "classes.csv")):
        truth = test.targets[:, place]
        assert row["class"] == CLASSES[place]
        assert float(row["average_precision"]) == pytest.approx(average_precision_score(truth, scores[:, place]), 1e-4)
        assert float(row["recall"]) == pytest.approx(recall_score(truth, answered[:, place]), 1e-4)
        assert float(row["precision"]) == pytest.approx(precision_score(truth, answered[:, place]), 1e-4)
        assert float(row["threshold"]) == pytest.approx(card.thresholds[place], 1e-4)  # type: ignore[index]
    rows = [row for row in rows_of(shapes_run / "predictions.csv") if row["split"] == "test"]
    assert len(rows) == 20
    for row, targets, found in zip(rows, test.targets, answered, strict=True):
        assert row["labels"] == ";".join(np.array(CLASSES)[targets])
        assert row["predicted"] == ";".join(np.array(CLASSES)[found])


def test_checkpoint_and_onnx_say_the_same(
    zoo: Callable[..., Any], shapes_run: Path, shapes_onnx: Path, shapes: Path
) -> None:
    passport = json.loads(shapes_onnx.with_suffix(".json").read_text())
    thresholds = list(read_card(shapes_run / "checkpoint.safetensors").thresholds or ())
    assert (passport["contract"]["task"], passport["contract"]["thresholds"]) == ("multi-label", thresholds)
    assert passport["parity"]["onnx"]["compared"] == "labels"
    assert passport["parity"]["onnx"]["passed"]
    metrics = json.loads((shapes_run / "metrics.jsonl").read_text().splitlines()[-1])
    picture = shapes.parent / "190.png"
    found = []
    for artifact in (shapes_run, shapes_onnx):
        evaluated = json.loads(zoo("evaluate", artifact, "--data", shapes, "--json").out)
        assert evaluated["task"] == "multi-label"
        assert (evaluated["n"], evaluated["classes"]) == (20, 3)
        assert evaluated["micro_f1"] > 0.9
        assert evaluated["map"] >= metrics["val_map"] - 1e-6  # the best epoch's
        answer = json.loads(zoo("predict", artifact, picture, "--json").out)
        assert answer["task"] == "multi-label"
        found.append((evaluated["map"], [one["class"] for one in answer["predictions"]]))
        assert all(one["score"] >= one["threshold"] for one in answer["predictions"])
        everything = json.loads(zoo("predict", artifact, picture, "--json", "--top", "9").out)["predictions"]
        assert {one["class"] for one in everything} == set(CLASSES)
        assert zoo("predict", artifact, picture, "--calibrated").code == 1
    assert found[0] == found[1]
    said = zoo("evaluate", shapes_onnx, "--data", shapes).out
    assert "mAP" in said and "micro F1" in said


def test_the_server_answers_what_predict_does(zoo: Callable[..., Any], shapes_onnx: Path, shapes: Path) -> None:
    engine = open_engine(ServeOptions(engine=str(shapes_onnx), device="cpu"))
    limits = Limits(max_body_bytes=1_000_000, timeout_s=60.0, max_in_flight=8, decode_threads=1, drain_s=10.0)
    try:
        with TestClient(create_app(Slot(engine), limits)) as client:
            engine.batcher.warmed.result(60)
            for number in (181, 190, 195):
                picture = shapes.parent / f"{number}.png"
                answer = client.post("/predict", content=picture.read_bytes()).json()
                predicted = json.loads(zoo("predict", shapes_onnx, picture, "--json").out)
                assert answer["task"] == "multi-label"
                assert [one["class"] for one in answer["predictions"]] == [
                    one["class"] for one in predicted["predictions"]
                ]
            assert client.get("/info").json()["task"] == "multi-label"
    finally:
        engine.close(10)


def test_a_run_goes_on_and_begins_from_its_weights(shapes_run: Path, shapes: Path, tmp_path: Path) -> None:
    """From its own weights it keeps its classifier, or one fitted to their features: a head start in mAP."""
    options = TrainOptions(
        model=str(shapes_run), data=str(shapes), recipe="finetune", epochs=1, device="cpu", workers=0, image_size=32
    )
    outcome = train_model(replace(options, batch_size=32, out=tmp_path / "run"))
    assert outcome.head_start is not None
    assert outcome.head_start.top1 is None
    assert outcome.head_start.merit > 0.9
    assert (outcome.result.map or 0.0) >= outcome.head_start.merit
    assert "mAP at 40 px on 20 test pictures" in outcome.summary


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"metric": "top1"}, "metric top1 is for one class"),
        ({"overrides": ("loss=cross_entropy",)}, "loss cross_entropy makes classes compete"),
        ({"teacher": "lite0.imagenet1k"}, "Distillation compares answers of one class"),
    ],
)
def test_what_has_no_form_for_several_labels_is_refused(changes: Any, message: str, shapes: Path) -> None:
    with pytest.raises(ZooError, match=message):
        train_model(TrainOptions(model="tiny", data=str(shapes), device="cpu", **changes))


def test_tasks_are_not_mixed_up(
    zoo: Callable[..., Any], shapes_run: Path, tiny_run: Path, shapes: Path, tmp_path: Path
) -> None:
    with pytest.raises(ZooError, match="map is for pictures with several labels"):
        train_model(TrainOptions(model="tiny", metric="map", device="cpu"))
    with pytest.raises(ZooError, match="answers several labels a picture, and distillation"):
        train_model(TrainOptions(model="tiny", teacher=str(shapes_run), device="cpu", out=tmp_path / "x"))
    digits = "\n".join(["path,label", *(f"{number:03d}.png,{number % 10};{(number + 1) % 10}" for number in range(20))])
    (shapes.parent / "digits.csv").write_text(digits)
    with open_runner(str(tiny_run), device="cpu") as runner, pytest.raises(DataError, match="answers one class"):
        evaluate(runner, open_val(str(shapes.parent / "digits.csv")))
    compared = zoo("compare", shapes_run, shapes_run)
    assert compared.code == 1
    assert "several labels" in compared.err


def test_pictures_of_one_class_each_are_sets_of_one_label(shapes_run: Path, shapes: Path) -> None:
    lines = [line.split(",") for line in shapes.read_text().splitlines()[1:]]
    one = ["path,label", *(f"{path},{names}" for path, names, _ in lines if names and ";" not in names)]
    (shapes.parent / "one.csv").write_text("\n".join(one))
    pictures = open_val(str(shapes.parent / "one.csv"))
    assert not pictures.multi_label
    with open_runner(str(shapes_run), device="cpu") as runner:
        found = evaluate(runner, pictures)
    assert found.to_dict()["map"] > 0.9


def test_thresholds_are_one_for_each_class(shapes_run: Path) -> None:
    card = read_card(shapes_run / "checkpoint.safetensors")
    with pytest.raises(RowError, match="1 thresholds for 3 classes"):
        replace(card, thresholds=(0.5,))
    single = replace(card, thresholds=None)
    assert not {"task", "thresholds"} & single.to_dict().keys()  # earlier versions read it


def test_an_interrupted_run_resumes_with_the_same_labels_only(
    shapes: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*arguments: object) -> None:
        raise OSError("full")

    labels = Path(shutil.copytree(shapes.parent, tmp_path / "shapes")) / "labels.csv"
    sizes = {"epochs": 4, "image_size": 32, "batch_size": 32}
    options = TrainOptions(
        model="tiny", data=str(labels), out=tmp_path / "run", device="cpu", workers=0, save_every_s=0, **sizes
    )
    with monkeypatch.context() as patch, pytest.raises(OSError, match="full"):
        patch.setattr("train.room.save_checkpoint", fail)
        train_model(options)
    text = labels.read_text()
    labels.write_text(text.replace("001.png,square;triangle,", "001.png,square,"))
    with pytest.raises(CheckpointError, match="a run with other labels"):
        train_model(replace(options, resume=True))
    labels.write_text(text)
    assert train_model(replace(options, resume=True)).result.map
