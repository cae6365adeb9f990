from __future__ import annotations

import json
import shutil
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
from onnx import ModelProto
from PIL import Image

from export.evaluate import Recorded, cross_entropy, evaluate, match_classes, open_data, rank_of, recorded_data
from export.predict import best_of, predict
from export.runners.open import open_runner
from zoo.data.open import open_splits, open_val
from zoo.data.pictures import Pictures
from zoo.errors import ArtifactError, BrokenPictureError, DataError

COLOURS = ("red", "green", "blue")


def solid(colour: tuple[int, int, int]) -> NDArray[np.uint8]:
    return np.full((10, 10, 3), colour, np.uint8)


def pictures_of(labels: list[int], *, classes: tuple[str, ...] = COLOURS) -> Pictures:
    """Red, green and blue pictures, labelled as told."""
    sources = [solid(((200, 0, 0), (0, 200, 0), (0, 0, 200))[index % 3]) for index in range(len(labels))]
    return Pictures("colours", classes, sources, np.array(labels, np.int64))


def test_accuracy_counts_what_is_right(mean_colour_runner: Any) -> None:
    # The pictures are red, green, blue, red; the labels claim red, green, red, blue.
    broken: list[str] = []
    result = evaluate(mean_colour_runner(COLOURS), pictures_of([0, 1, 0, 2]), on_broken=broken.append)
    assert (result.top1, result.top5, result.n, broken) == (0.5, None, 4, [])
    assert result.to_dict().keys() == {"top1", "top5", "loss", "n", "artifact", "flip"}
    # Logits are 8 for the true colour and 0 for both others.
    right = np.log(np.exp(8) + 2) - 8
    assert result.loss == pytest.approx((2 * right + 2 * (right + 8)) / 4)


def test_top5_counts_the_first_five(mean_colour_runner: Any) -> None:
    classes = (*COLOURS, "d", "e", "f")
    result = evaluate(mean_colour_runner(classes), pictures_of([0, 4, 5], classes=classes))
    assert result.top1 == pytest.approx(1 / 3)
    assert result.top5 == pytest.approx(2 / 3), "the sixth of six classes is not among the first five"


@pytest.mark.parametrize(("count", "is_told"), [(3, False), (5, False), (6, True)])
def test_top5_is_told_of_more_than_five_classes_only(count: int, is_told: bool, mean_colour_runner: Any) -> None:
    """Of five it would be 100 %, whatever the answers."""
    classes = (*COLOURS, "d", "e", "f")[:count]
    result = evaluate(mean_colour_runner(classes), pictures_of([0, 1, 2], classes=classes))
    assert (result.top5 is not None) is is_told


def test_classes_are_matched_by_name_not_by_place(mean_colour_runner: Any) -> None:
    runner = mean_colour_runner(COLOURS)
    shuffled = Pictures("shuffled", ("blue", "red"), [solid((200, 0, 0)), solid((0, 0, 200))], np.array([1, 0]))
    assert evaluate(runner, shuffled).top1 == 1.0


def test_a_class_the_artifact_does_not_know_is_named() -> None:
    with pytest.raises(DataError, match=r"1 of the 2 classes of colours .* 3: mauve") as caught:
        match_classes(pictures_of([0], classes=("red", "mauve")), COLOURS)
    assert "red, green, blue" in caught.value.hint


def test_a_name_that_two_classes_share_is_refused() -> None:
    """ImageNet has two classes called crane, a bird and a machine."""
    with pytest.raises(DataError, match="two classes called 'crane'"):
        match_classes(pictures_of([0], classes=("crane",)), ("crane", "crate", "crane"))
    same = ("crane", "crane")
    np.testing.assert_array_equal(match_classes(pictures_of([0], classes=same), same), [0, 1])


def test_broken_pictures_are_left_out_and_named(mean_colour_runner: Any, tmp_path: Path) -> None:
    for name, colour in (("red", (200, 0, 0)), ("blue", (0, 0, 200))):
        (tmp_path / name).mkdir()
        for index in range(3):
            Image.fromarray(solid(colour)).save(tmp_path / name / f"{index}.png")
    (tmp_path / "red" / "1.png").write_bytes(b"no picture")
    seen: list[tuple[int, int]] = []
    broken: list[str] = []
    result = evaluate(
        mean_colour_runner(COLOURS, max_batch_size=2),
        open_val(str(tmp_path)),
        on_progress=lambda *done: seen.append(done),
        on_broken=broken.append,
    )
    assert (result.top1, result.n) == (1.0, 5)
    assert len(broken) == 1 and str(Path("red") / "1.png") in broken[0]
    assert seen == [(2, 6), (4, 6), (6, 6)]


def test_only_broken_pictures_are_an_error(mean_colour_runner: Any, tmp_path: Path) -> None:
    for name in ("red", "blue"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "0.png").write_bytes(b"no picture")
    with pytest.raises(DataError, match="None of the 2 pictures"):
        evaluate(mean_colour_runner(COLOURS), open_val(str(tmp_path)))


@pytest.mark.parametrize("bad", [np.nan, np.inf])
def test_logits_that_are_not_finite_are_an_error_and_no_number(
    bad: float, mean_colour_runner: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    runner = mean_colour_runner(COLOURS)
    monkeypatch.setattr(runner, "infer", lambda pictures: np.full((len(pictures), 3), bad, np.float32))
    path = tmp_path / "red.png"
    Image.fromarray(solid((200, 0, 0))).save(path)
    with pytest.raises(ArtifactError, match="mean-colour answers 1 of 1 pictures with logits that are not finite"):
        list(predict(runner, [path]))
    with pytest.raises(ArtifactError, match="answers 2 of 2 pictures with logits that are not finite"):
        evaluate(runner, pictures_of([0, 1]))


def test_it_is_said_of_how_many_pictures_the_logits_are_not_finite(
    mean_colour_runner: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Those before and after are classified; the readable ones are counted."""
    runner = mean_colour_runner(COLOURS, max_batch_size=2)
    infer = runner.infer

    def overflow(pictures: NDArray[np.uint8]) -> NDArray[np.float32]:
        logits: NDArray[np.float32] = infer(pictures)
        logits[pictures[:, 0, 0, 2] > 100, 1] = np.inf
        return logits

    monkeypatch.setattr(runner, "infer", overflow)
    for name, colour in (("a", (200, 0, 0)), ("b", (0, 0, 200)), ("c", (0, 200, 0))):
        Image.fromarray(solid(colour)).save(tmp_path / f"{name}.png")
    paths = [tmp_path / f"{name}.png" for name in ("a", "b", "missing", "c")]
    found = []
    with pytest.raises(ArtifactError, match="1 of 3 pictures"):
        for one in predict(runner, paths):
            found.append((one.picture.stem, one.predictions[0].class_name if one.predictions else "broken"))
    assert found == [("a", "red"), ("missing", "broken"), ("c", "green")]
    with pytest.raises(ArtifactError, match="1 of 3 pictures"):
        evaluate(runner, pictures_of([0, 1, 2]))


LOGITS = arrays(np.float32, (3, 6), elements=st.floats(-30, 30, width=32))
LABELS = arrays(np.int64, 3, elements=st.integers(0, 5))


@given(logits=LOGITS, labels=LABELS)
def test_rank_agrees_with_a_stable_sort(logits: NDArray[np.float32], labels: NDArray[np.int64]) -> None:
    order = np.argsort(-logits, axis=1, kind="stable")
    expected = [int(np.flatnonzero(row == label)[0]) for row, label in zip(order, labels, strict=True)]
    assert rank_of(logits, labels).tolist() == expected


@given(logits=LOGITS, labels=LABELS)
def test_loss_agrees_with_torch(logits: NDArray[np.float32], labels: NDArray[np.int64]) -> None:
    expected = torch.nn.functional.cross_entropy(
        torch.tensor(logits, dtype=torch.float64), torch.tensor(labels), reduction="none"
    )
    np.testing.assert_allclose(cross_entropy(logits, labels), expected.numpy(), rtol=1e-9, atol=1e-9)


def test_loss_does_not_overflow() -> None:
    logits = np.array([[1000.0, 0.0], [-1000.0, 0.0]], np.float32)
    np.testing.assert_allclose(cross_entropy(logits, np.array([0, 0])), [0.0, 1000.0])


def test_checkpoint_and_graph_have_the_same_accuracy(
    tiny_checkpoint: Path, tiny_graph: ModelProto, tmp_path: Path
) -> None:
    path = tmp_path / "tiny.onnx"
    path.write_bytes(tiny_graph.SerializeToString())
    results = []
    for artifact in (tiny_checkpoint, path):
        with open_runner(str(artifact), device="cpu") as runner:
            results.append(evaluate(runner, open_val("digits"), batch_size=60))
    reference, candidate = results
    assert reference.n == candidate.n == 360
    assert candidate.top1 == pytest.approx(reference.top1, abs=1 / 360)
    assert candidate.loss == pytest.approx(reference.loss, abs=1e-4)


def test_a_checkpoint_evaluates_to_what_training_said(tiny_checkpoint: Path) -> None:
    from zoo.weights.checkpoint import read_card

    with open_runner(str(tiny_checkpoint), device="cpu") as runner:
        result = evaluate(runner, open_val("digits"))
    assert result.top1 == pytest.approx(read_card(tiny_checkpoint).provenance["val_top1"], abs=1 / 360)


def test_data_is_remembered_where_it_can_be(tiny_checkpoint: Path, in_folder: Path) -> None:
    assert recorded_data(str(tiny_checkpoint)) == Recorded(data="digits", seed=0, by_name=False, hold_out="stratified")
    assert recorded_data("lite0") is None
    assert recorded_data("no-passport.onnx") is None


@pytest.mark.parametrize("kind", [".safetensors", ".onnx"])
def test_a_folder_without_val_is_evaluated_on_what_training_held_out(
    kind: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """By its path or its name: counted with the pictures it has learnt, a model looks better than it is."""
    root = tmp_path / "pictures"
    for name in ("cat", "dog"):
        (root / name).mkdir(parents=True)
        for number in range(20):
            Image.fromarray(solid((number, 0, 0))).save(root / name / f"{number}.png")
    of_kind = Recorded(
        data=str(root) if kind == ".safetensors" else "pictures",
        seed=3,
        by_name=kind == ".onnx",
        hold_out="stratified",
    )
    monkeypatch.setattr("export.evaluate.recorded_data", lambda artifact: of_kind)
    held_out = open_splits(str(root), seed=3)[1]
    pictures = open_data(f"x{kind}", str(root))
    assert list(pictures.sources) == list(held_out.sources)
    assert pictures.name == f"{root}, the fifth that training with seed 3 holds out"
    # A version before it held out others, some of which this one would evaluate on though they were trained on.
    monkeypatch.setattr("export.evaluate.recorded_data", lambda artifact: replace(of_kind, hold_out=None))
    with pytest.raises(DataError, match="held out other pictures"):
        open_data(f"x{kind}", str(root))
    monkeypatch.setattr("export.evaluate.recorded_data", lambda artifact: None)
    with pytest.raises(DataError, match="--group-by has no effect"):
        open_data(f"x{kind}", str(root), group_by="parent")
    everything = open_data(f"x{kind}", str(root))
    assert (len(everything), everything.name) == (40, f"{root}, all of them")


def test_predictions_are_sorted_scores(mean_colour_runner: Any, tmp_path: Path) -> None:
    path = tmp_path / "greenish.png"
    Image.fromarray(solid((50, 100, 0))).save(path)
    (answer,) = predict(mean_colour_runner(COLOURS), [path], top=2)
    assert [row.class_name for row in answer.predictions] == ["green", "red"]
    assert [row.index for row in answer.predictions] == [1, 0]
    assert answer.predictions[0].score == pytest.approx(np.exp(4) / (np.exp(4) + np.exp(2) + 1), rel=1e-5)
    assert answer.to_dict()["predictions"][0]["class"] == "green"


def test_answers_come_in_the_order_of_the_pictures(mean_colour_runner: Any, tmp_path: Path) -> None:
    paths = []
    for index in range(11):
        paths.append(tmp_path / f"{index}.png")
        Image.fromarray(solid((200, 0, 0) if index % 2 else (0, 0, 200))).save(paths[-1])
    paths[4].write_bytes(b"no picture")
    paths.insert(9, tmp_path / "missing.png")
    runner = mean_colour_runner(COLOURS, max_batch_size=4)
    answers = list(predict(runner, paths, top=1))
    assert [answer.picture for answer in answers] == paths
    broken = [answer.picture.name for answer in answers if answer.error]
    assert broken == ["4.png", "missing.png"]
    assert all(isinstance(answer.error, BrokenPictureError) for answer in answers if answer.error)
    good = [answer for answer in answers if not answer.error]
    expected = ["red" if int(answer.picture.stem) % 2 else "blue" for answer in good]
    assert [answer.predictions[0].class_name for answer in good] == expected
    assert max(runner.batches) <= 4


def test_a_batch_of_broken_pictures_runs_nothing(mean_colour_runner: Any, tmp_path: Path) -> None:
    runner = mean_colour_runner(COLOURS)
    (answer,) = predict(runner, [tmp_path / "missing.png"])
    assert answer.error and not answer.predictions and runner.batches == []


def test_more_classes_than_there_are_gives_all() -> None:
    (rows,) = best_of(np.array([[0.2, 0.5, 0.3]], np.float32), COLOURS, 5)
    assert [row.class_name for row in rows] == ["green", "blue", "red"]
    (equal,) = best_of(np.array([[0.4, 0.2, 0.4]], np.float32), COLOURS, 2)
    assert [row.index for row in equal] == [0, 2]


@given(st.integers(1, 6), st.integers(1, 60), st.integers(1, 70), st.integers(0, 2**32 - 1))
def test_the_best_of_many_are_those_of_a_stable_sort(count: int, classes: int, top: int, seed: int) -> None:
    scores = np.random.default_rng(seed).integers(0, 5, (count, classes)).astype(np.float32)  # many are equal
    found = best_of(scores, tuple(map(str, range(classes))), top)
    for row, best in zip(scores, found, strict=True):
        order = sorted(range(classes), key=lambda index: -row[index])[:top]
        assert [(one.index, one.class_name, one.score) for one in best] == [(i, str(i), row[i]) for i in order]


def test_a_copied_folder_gives_the_same_numbers(mean_colour_runner: Any, picture_folder: Path, tmp_path: Path) -> None:
    copy = tmp_path / "copy"
    shutil.copytree(picture_folder, copy)
    runner = mean_colour_runner(COLOURS)
    first, second = (evaluate(runner, open_val(str(folder))) for folder in (picture_folder, copy))
    assert (first.top1, first.loss, first.n) == (second.top1, second.loss, second.n)


def test_groups_that_change_nothing_are_refused(tiny_checkpoint: Path) -> None:
    with pytest.raises(DataError, match="--group-by has no effect: no pictures of digits are held out"):
        open_data(str(tiny_checkpoint), None, group_by="parent")


def test_a_seed_that_changes_nothing_is_refused(tiny_checkpoint: Path, picture_folder: Path) -> None:
    for data in (None, "digits", str(picture_folder)):
        with pytest.raises(DataError, match=r"--seed has no effect: no pictures of .* are held out"):
            open_data(str(tiny_checkpoint), data, seed=3)


def test_arrays_without_validation_are_not_guessed_at_either(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """An earlier version held out others of them, which this one would evaluate on though they were trained on."""
    x, y = np.zeros((20, 8, 8, 3), np.uint8), np.arange(20) % 2
    np.savez(tmp_path / "whole.npz", x=x, y=y)
    np.savez(tmp_path / "divided.npz", x_train=x, y_train=y, x_test=x[:6], y_test=y[:6])
    for name in ("whole", "divided"):
        data = str(tmp_path / f"{name}.npz")
        before = Recorded(data=data, seed=3, by_name=False)
        monkeypatch.setattr("export.evaluate.recorded_data", lambda artifact, row=before: row)
        if name == "divided":
            assert len(open_data("x.safetensors", data)) == 6
            continue
        with pytest.raises(DataError, match="held out other pictures"):
            open_data("x.safetensors", data)
        row = replace(before, hold_out="stratified")
        monkeypatch.setattr("export.evaluate.recorded_data", lambda artifact, row=row: row)
        assert len(open_data("x.safetensors", data)) == 4


def test_calibrated_scores_are_the_softmax_at_the_temperature(mean_colour_runner: type, tmp_path: Path) -> None:
    path = tmp_path / "red.png"
    Image.new("RGB", (8, 8), (150, 100, 50)).save(path)
    runner = mean_colour_runner(("red", "green", "blue"))
    with pytest.raises(ArtifactError, match="mean-colour carries no temperature"):
        list(predict(runner, [path], calibrated=True))
    runner.temperature = 4.0
    (plain,), (mended,) = list(predict(runner, [path])), list(predict(runner, [path], calibrated=True))
    logits = np.array([150, 100, 50], np.float32) / 25
    for found, temperature in ((plain, 1), (mended, 4)):
        powers = np.exp(logits / temperature)
        assert [row.score for row in found.predictions] == pytest.approx((powers / powers.sum()).tolist(), rel=1e-5)


def test_the_temperature_goes_from_the_checkpoint_into_the_graph(
    zoo: Callable, tiny_run: Path, in_folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """And a checkpoint of before there was one says what to do."""
    from zoo.weights.checkpoint import load_checkpoint, save_checkpoint

    model, card = load_checkpoint(tiny_run / "checkpoint.safetensors")
    assert card.provenance["temperature"] > 0
    for name, temperature in (("with", 2.5), ("without", None)):
        provenance = dict(card.provenance)
        del provenance["temperature"]
        if temperature:
            provenance["temperature"] = temperature
        save_checkpoint(Path(f"{name}.safetensors"), model.state_dict(), replace(card, provenance=provenance))
        exported = zoo("export", f"{name}.safetensors", "-o", f"{name}.onnx", "--no-parity")
        assert exported.code == 0, exported.err
    Image.new("RGB", (8, 8), (150, 100, 50)).save("a.png")

    def scores(artifact: str, *flags: str) -> list[float]:
        answer = zoo("predict", artifact, "a.png", "--device", "cpu", "--top", 10, "--json", *flags)
        assert answer.code == 0, answer.err
        return [row["score"] for row in json.loads(answer.out)["predictions"]]

    plain, mended = scores("with.onnx"), scores("with.onnx", "--calibrated")
    softer = np.power(plain, 1 / 2.5)
    assert mended == pytest.approx((softer / softer.sum()).tolist(), rel=1e-3)
    assert scores("with.safetensors", "--calibrated") == pytest.approx(mended, rel=1e-3)
    for artifact in ("without.onnx", "without.safetensors"):
        refused = zoo("predict", artifact, "a.png", "--calibrated")
        assert refused.code == 1
        assert f"{artifact} carries no temperature" in refused.err
        assert "leave --calibrated out" in refused.err
