"""A name that is no model, no artifact and no data is told what it is, and where that goes; nothing is guessed."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

Zoo = Callable[..., Any]

MODEL_COMMANDS = (
    "show NAME",
    "train NAME --data pictures",
    "export NAME",
    "scale NAME -o x.toml",
    "convert NAME --to timm -o x.pth",
    "bench stages NAME",
    "bench train NAME",
    "pull NAME",
    "import NAME weights.pth --from timm",
)
ARTIFACT_COMMANDS = (
    "predict NAME photo.jpg",
    "evaluate NAME --data pictures",
    "serve NAME --port 0",
    "serve --engine NAME --port 0",
    "bench latency NAME",
)


@pytest.fixture
def things(in_folder: Path, picture_folder: Path, tiny_run: Path) -> Path:
    """A folder with one of everything."""
    shutil.copytree(picture_folder / "train", "pictures")
    shutil.copy("pictures/red/000.jpg", "photo.jpg")
    shutil.copytree(tiny_run, "runs/mine")
    for name in ("made.onnx", "made.json", "weights.pth", "note.txt", "shards.tar"):
        Path(name).write_bytes(b"x")
    return in_folder


@pytest.mark.parametrize("command", (*MODEL_COMMANDS, *ARTIFACT_COMMANDS))
@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("photo.jpg", ("photo.jpg is a picture", "Pictures come after it")),
        ("made.json", ("made.json is a passport or a result", "Pass the .onnx")),
        ("weights.pth", ("another project's weights file", "`zoo import MODEL weights.pth --from …`")),
        ("pictures", ("The folder pictures has no checkpoint.safetensors", "They go to --data")),
        ("runs", ("The folder runs has no checkpoint.safetensors", "runs/mine")),
        ("note.txt", ("note.txt is a file of another kind",)),
        ("s.timm-in1", ("Unknown weights 's.timm-in1'. Did you mean s.timm-in1k",)),
        ("m/none", ("There is no file or folder m/none",)),
        ("http://127.0.0.1:9/s", ("is an address",)),
        ("EfficientNetV2-S", ("Unknown model 'EfficientNetV2-S'. Did you mean s?",)),
    ],
)
def test_a_mistaken_name_is_told_what_it_is(
    command: str, name: str, said: tuple[str, ...], things: Path, zoo: Zoo
) -> None:
    answer = zoo(*(name if word == "NAME" else word for word in command.split()))
    assert answer.code == 1
    assert answer.out == ""
    for words in said:
        assert words in answer.err
    assert "Traceback" not in answer.err
    if not name.startswith(("s.", "Eff")):
        assert "Did you mean" not in answer.err


@pytest.mark.parametrize("command", MODEL_COMMANDS)
@pytest.mark.parametrize("name", ["made.onnx", "s.onnx", "s.plan"])
def test_an_artifact_where_a_model_is_expected(command: str, name: str, things: Path, zoo: Zoo) -> None:
    answer = zoo(*(name if word == "NAME" else word for word in command.split()))
    assert answer.code == 1
    expected = "a network of the zoo is expected" if command.startswith(("pull", "import")) else "a model is an id"
    assert f"{name} is an exported artifact" in answer.err and expected in answer.err
    assert ("there is no such file" in answer.err) is not Path(name).exists()
    assert "Did you mean" not in answer.err


@pytest.mark.parametrize("command", ARTIFACT_COMMANDS)
@pytest.mark.parametrize("name", ["none.onnx", "none.plan", "none.safetensors"])
def test_an_artifact_that_is_not_there(command: str, name: str, things: Path, zoo: Zoo) -> None:
    answer = zoo(*(name if word == "NAME" else word for word in command.split()))
    assert answer.code == 1
    assert f"There is no file {name}" in answer.err or f"There is no checkpoint {name}" in answer.err


@pytest.mark.parametrize(
    "command",
    ["data check NAME", "data pack NAME -o out", "train tiny --data NAME --plan", "evaluate runs/mine --data NAME"],
)
@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("photo.jpg", ("photo.jpg is one picture", "`zoo predict ARTIFACT photo.jpg`")),
        ("note.txt", ("note.txt is a file, and neither of labels nor an .npz",)),
        ("made.onnx", ("made.onnx is a file, and neither of labels nor an .npz",)),
        ("shards.tar", ("shards.tar is one tar file", "`zoo data index FOLDER`")),
        ("nowhere", ("There is no folder nowhere", "Expected `digits`")),
        ("pictures/red", ("12 pictures, but none in a sub-folder", "pass the folder it is in")),
        ("runs", ("has no pictures in sub-folders",)),
    ],
)
def test_mistaken_data_is_told_what_it_is(
    command: str, name: str, said: tuple[str, ...], things: Path, zoo: Zoo
) -> None:
    answer = zoo(*(name if word == "NAME" else word for word in command.split()))
    assert answer.code == 1
    for words in said:
        assert words in answer.err
    assert len(answer.err) < 500, "not every ending of a picture is listed"


def test_a_folder_one_too_high_is_told_which_to_pass(things: Path, zoo: Zoo) -> None:
    Path("outer").mkdir()
    Path("pictures").rename("outer/pictures")
    answer = zoo("data", "check", "outer")
    assert answer.code == 1 and "Are the classes the folders in outer/pictures?" in answer.err


def test_a_run_folder_may_have_a_dot_in_its_name(things: Path, zoo: Zoo) -> None:
    Path("runs/mine").rename("runs/lr0.1")
    assert zoo("predict", "runs/lr0.1", "photo.jpg").code == 0


@pytest.mark.parametrize(
    "command",
    [
        "import s https://host/s.pth --from timm",
        "sample -o https://host/pictures",
        "train tiny --out https://host/runs",
        "export tiny -o s3://bucket/x",
        "data index https://host/shards",
    ],
)
def test_an_address_is_no_path(command: str, in_folder: Path, zoo: Zoo) -> None:
    """As a path it would lose a slash, and `-o` would make a folder called https:."""
    answer = zoo(*command.split())
    assert answer.code == 2
    assert "is an address; a path on this machine is expected" in answer.err and "://" in answer.err
    assert list(in_folder.iterdir()) == []


def test_a_checkpoint_of_ours_need_not_be_imported(things: Path, zoo: Zoo) -> None:
    answer = zoo("import", "s", "runs/mine/checkpoint.safetensors", "--from", "timm")
    assert answer.code == 1 and "is a checkpoint of this project already" in answer.err


@pytest.mark.parametrize("command", ["pull NAME", "import NAME weights.pth --from timm"])
@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("runs/mine", "runs/mine is a checkpoint; a network of the zoo is expected"),
        ("runs/mine/checkpoint.safetensors", "is a checkpoint; a network of the zoo is expected"),
        ("own.toml", "own.toml is a row file; a network of the zoo is expected"),
    ],
)
def test_a_model_where_only_a_network_of_the_zoo_will_do(
    command: str, name: str, said: str, things: Path, zoo: Zoo
) -> None:
    answer = zoo(*(name if word == "NAME" else word for word in command.split()))
    assert answer.code == 1 and said in answer.err
