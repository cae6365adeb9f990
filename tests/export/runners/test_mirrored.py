from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from numpy.typing import NDArray

from export.contract import Contract, Form
from export.evaluate import evaluate
from export.options import ExportOptions
from export.pipeline import export_model
from export.predict import predict
from export.runners.mirrored import Mirrored, check_flip, mean_of_views
from export.runners.open import open_runner
from train.options import TrainOptions
from train.session import train_model
from zoo.data.open import open_val
from zoo.data.pictures import Pictures, load_prepared
from zoo.errors import ArtifactError, DataError, ZooError
from zoo.model.spec import Preprocessing

LOGITS = arrays(np.float32, (2, 3, 4), elements=st.floats(-300, 300, width=32))


@given(LOGITS)
def test_the_softmax_of_the_mean_is_the_mean_of_the_softmax(logits: NDArray[np.float32]) -> None:
    mean = mean_of_views([*logits], several_labels=False)
    assert mean.dtype == np.float32 and np.isfinite(mean).all()
    expected = torch.from_numpy(logits).double().softmax(2).mean(0)
    torch.testing.assert_close(torch.from_numpy(mean).double().softmax(1), expected, rtol=1e-4, atol=1e-9)


@given(LOGITS)
def test_the_sigmoid_of_the_mean_is_the_mean_of_the_sigmoids(logits: NDArray[np.float32]) -> None:
    mean = mean_of_views([*logits], several_labels=True)
    assert np.isfinite(mean).all()
    expected = torch.from_numpy(logits).double().sigmoid().mean(0)
    torch.testing.assert_close(torch.from_numpy(mean).double().sigmoid(), expected, rtol=1e-4, atol=1e-9)


@pytest.mark.parametrize("several_labels", [False, True])
@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_one_view_that_is_not_finite_is_no_answer(value: float, several_labels: bool) -> None:
    logits = np.zeros((2, 3, 4), np.float32)
    logits[1, 1, 2] = value
    mean = mean_of_views([*logits], several_labels=several_labels)
    assert np.isnan(mean[1]).all()
    assert np.isfinite(mean[[0, 2]]).all()


class LeftRunner:
    """Says “left” of what is bright on its left side: of mirror images the reverse."""

    artifact, backend, device = "left.plan", "numpy", "CPU"
    max_batch_size: int | None = 2
    temperature: float | None = 1.5
    threads: int | None = 1

    def __init__(self) -> None:
        self.contract = Contract(model="left", classes=("left", "right"), preprocessing=Preprocessing(image_size=8))
        self.batches: list[int] = []
        self.closed = False

    def infer(self, pictures: NDArray[np.uint8]) -> NDArray[np.float32]:
        self.batches.append(len(pictures))
        halves = pictures[:, :, :4].mean(axis=(1, 2, 3)), pictures[:, :, 4:].mean(axis=(1, 2, 3))
        return np.stack(halves, 1).astype(np.float32) / 50

    def outputs(self, pictures: NDArray[np.uint8]) -> dict[str, NDArray[np.float32]]:
        return {"logits": self.infer(pictures)}

    def __enter__(self) -> LeftRunner:
        return self

    def __exit__(self, *raised: object) -> None:
        self.closed = True


def bright_left() -> NDArray[np.uint8]:
    pixels = np.zeros((8, 8, 3), np.uint8)
    pixels[:, :4] = 250
    return pixels


def test_any_runner_is_asked_for_both_views_in_its_own_batches() -> None:
    runner = LeftRunner()
    pictures = Pictures("bright", ("left", "right"), [bright_left()] * 3, np.array([0, 0, 0], np.int64))
    with Mirrored(runner) as both:
        found = evaluate(both, pictures)
        answer = both.infer(bright_left()[None])
    assert runner.batches == [2, 2, 1, 1, 1, 1]
    assert runner.closed
    np.testing.assert_allclose(answer, np.log([[0.5, 0.5]]), atol=1e-6)
    assert found.flip and found.to_dict()["flip"] is True
    assert found.loss == pytest.approx(np.log(2))
    assert not evaluate(runner, pictures).flip


def test_probabilities_have_a_mean_without_logarithms() -> None:
    runner = LeftRunner()
    runner.contract = replace(runner.contract, form=Form(output="probabilities"))
    answer = Mirrored(runner).outputs(bright_left()[None])
    np.testing.assert_allclose(answer["probabilities"], [[2.5, 2.5]])


def test_pictures_that_change_their_class_are_refused() -> None:
    pictures = Pictures("letters", ("left", "right"), [bright_left()], np.array([0], np.int64), flip_keeps_class=False)
    with pytest.raises(DataError, match="Mirrored, the pictures of letters are of another class"):
        evaluate(Mirrored(LeftRunner()), pictures)


def test_a_temperature_is_not_fitted_to_two_views(tmp_path: Path) -> None:
    with pytest.raises(ArtifactError, match="fitted to answers to one picture"):
        next(predict(Mirrored(LeftRunner()), [tmp_path / "a.png"], calibrated=True))


@pytest.mark.parametrize(
    ("provenance", "refused"),
    [
        ({"data": "digits"}, True),
        ({"data": "pictures"}, False),
        ({}, False),
        ({"data": "letters.npz", "flip_keeps_class": False}, True),
        ({"data": "letters.npz", "flip_keeps_class": True}, False),
    ],
)
def test_an_artifact_knows_whether_its_pictures_may_be_mirrored(provenance: dict[str, Any], refused: bool) -> None:
    if not refused:
        check_flip("s.onnx", provenance)
        return
    with pytest.raises(ArtifactError, match="mirrored, such pictures are of another class"):
        check_flip("s.onnx", provenance)


@pytest.fixture(scope="module")
def artifacts(picture_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    """A run on pictures of three colours, and its graph."""
    folder = tmp_path_factory.mktemp("colours")
    sizes = {"epochs": 4, "image_size": 24, "batch_size": 8, "workers": 0}
    train_model(TrainOptions(model="tiny", data=str(picture_folder), out=folder / "run", device="cpu", **sizes))
    exported = export_model(ExportOptions(model=str(folder / "run"), out=folder, data=str(picture_folder)))
    return [folder / "run" / "checkpoint.safetensors", exported.onnx]


def test_checkpoint_and_graph_answer_alike_and_say_that_they_looked_twice(
    artifacts: list[Path], picture_folder: Path, zoo: Callable
) -> None:
    found = []
    for artifact in artifacts:
        answer = zoo("evaluate", artifact, "--data", picture_folder, "--device", "cpu", "--flip", "--json")
        assert answer.code == 0, answer.err
        found.append(json.loads(answer.out))
        plain = json.loads(zoo("evaluate", artifact, "--data", picture_folder, "--device", "cpu", "--json").out)
        assert found[-1]["flip"] is True and plain["flip"] is False
        assert found[-1]["loss"] != plain["loss"]
    assert found[0]["top1"] == found[1]["top1"]
    assert found[0]["loss"] == pytest.approx(found[1]["loss"], rel=1e-3)
    with open_runner(str(artifacts[0]), device="cpu") as runner:
        prepared = load_prepared(open_val(str(picture_folder)), runner.contract.preprocessing)[0]
        views = [torch.from_numpy(runner.infer(view)).softmax(1) for view in (prepared, prepared[:, :, ::-1].copy())]
    labels = torch.from_numpy(open_val(str(picture_folder)).labels)
    by_hand = -(sum(views) / 2)[torch.arange(len(labels)), labels].log().mean()
    assert found[0]["loss"] == pytest.approx(by_hand.item(), rel=1e-4)
    said = zoo("evaluate", artifacts[1], "--data", picture_folder, "--device", "cpu", "--flip").out
    assert "each with its mirror image" in " ".join(said.split())


def test_predict_says_that_it_looked_twice(artifacts: list[Path], picture_folder: Path, zoo: Callable) -> None:
    picture = picture_folder / "val" / "red" / "000.jpg"
    for artifact in artifacts:
        both, one = (
            json.loads(zoo("predict", artifact, picture, "--device", "cpu", "--json", *flags).out)
            for flags in (("--flip",), ())
        )
        assert both["flip"] is True and "flip" not in one
        assert sum(row["score"] for row in both["predictions"]) == pytest.approx(1, abs=1e-5)
        assert both["predictions"] != one["predictions"]


def test_several_labels_are_looked_at_twice_too(shapes_run: Path, shapes: Path, zoo: Callable) -> None:
    command = ("evaluate", shapes_run, "--data", shapes, "--device", "cpu", "--json")
    both, one = (json.loads(zoo(*command, *flags).out) for flags in (("--flip",), ()))
    assert (both["task"], both["flip"], one["flip"]) == ("multi-label", True, False)
    assert both["map"] > 0.9 and both["loss"] != one["loss"]


@pytest.mark.parametrize("command", ["evaluate", "predict"])
def test_digits_are_not_mirrored(command: str, tiny_run: Path, picture_folder: Path, zoo: Callable) -> None:
    picture = picture_folder / "val" / "red" / "000.jpg"
    answer = zoo(command, tiny_run, *((picture,) if command == "predict" else ()), "--device", "cpu", "--flip")
    assert answer.code == 1
    assert "was trained on digits: mirrored, such pictures are of another class" in " ".join(answer.err.split())


def test_a_missing_artifact_is_told_as_ever(tmp_path: Path) -> None:
    with pytest.raises(ZooError, match="no file"):
        open_runner(str(tmp_path / "none.onnx"), flip=True)
