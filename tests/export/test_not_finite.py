"""A network with one NaN: no command makes a figure of its answers."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
from safetensors.torch import load_file

from zoo.weights.checkpoint import read_card, save_checkpoint


@pytest.fixture(scope="module")
def ruined(tiny_checkpoint: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A checkpoint of tiny with one weight that is NaN."""
    path = tmp_path_factory.mktemp("ruined") / "checkpoint.safetensors"
    state = load_file(tiny_checkpoint)
    state["classifier.weight"][3, 5] = float("nan")
    save_checkpoint(path, state, read_card(tiny_checkpoint))
    return path


@pytest.fixture(scope="module")
def ruined_onnx(ruined: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The same as an .onnx that nobody compared with anything."""
    from export.options import ExportOptions
    from export.pipeline import export_model

    folder = tmp_path_factory.mktemp("ruined-onnx")
    found = export_model(ExportOptions(model=str(ruined), parity=False, out=folder)).onnx
    assert found
    return found


@pytest.fixture
def digits(zoo: Callable, tmp_path: Path) -> list[Path]:
    assert zoo("sample", "--count", 3, "-o", tmp_path / "digits").code == 0
    return sorted((tmp_path / "digits").rglob("*.png"))


@pytest.mark.parametrize("kind", ["checkpoint", "onnx"])
def test_no_figure_is_made_of_it(
    kind: str, zoo: Callable, digits: list[Path], ruined: Path, ruined_onnx: Path, in_folder: Path
) -> None:
    artifact = ruined if kind == "checkpoint" else ruined_onnx
    for command, said in (
        (("evaluate", artifact, "--data", "digits"), "360 of 360 pictures with logits that are not finite"),
        (("evaluate", artifact, "--data", "digits", "--json"), "360 of 360 pictures"),
        (("predict", artifact, *digits), "3 of 3 pictures with logits that are not finite"),
        (("predict", artifact, *digits, "--json"), "3 of 3 pictures"),
    ):
        answer = zoo(*command)
        assert (answer.code, answer.out) == (1, ""), command
        assert said in answer.err
        assert "Traceback" not in answer.err
    timed = zoo("bench", "latency", artifact, "--batch-size", 2, "--duration-s", 0.1, "-o", "results")
    assert (timed.code, timed.out) == (3, "")
    assert "NaN or infinity for 2 of 2 pictures" in timed.err
    assert not Path("results").exists() or not list(Path("results").iterdir())


def test_an_export_of_it_is_refused_without_a_way_around(zoo: Callable, ruined: Path, in_folder: Path) -> None:
    answer = zoo("export", ruined, "-o", "made", "--num-pictures", 8)
    assert answer.code == 1
    assert "The network itself answers 8 of 8 pictures with logits that are not finite." in answer.err
    assert "--no-parity" not in answer.err
    assert not list(in_folder.rglob("*.onnx"))


def test_a_training_that_begins_with_it_ends_with_an_error(zoo: Callable, ruined: Path, in_folder: Path) -> None:
    answer = zoo("train", ruined, "--epochs", 4, "--image-size", 16, "--device", "cpu", "--workers", 0, "-o", "run")
    assert answer.code == 1
    assert "The loss became nan in epoch 1, step 1" in answer.err
    assert answer.out == ""
    assert not (in_folder / "run" / "checkpoint.safetensors").exists()


def test_it_is_not_quantized_either(ruined: Path, in_folder: Path, zoo: Callable) -> None:
    answer = zoo("export", ruined, "--no-parity", "--precision", "int8")
    assert answer.code == 1 and "The network itself answers 128 of 128 pictures with logits that are not" in answer.err
    assert "Warning" not in answer.err and not [*in_folder.iterdir()]
