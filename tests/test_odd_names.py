"""Names that are no plain text, from the folder to the server: every command works, and none commands the terminal."""

from __future__ import annotations

import json
import os
import re
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from safetensors.torch import load_file

from zoo.data.folder import read_folder
from zoo.errors import DataError
from zoo.weights.checkpoint import read_card, save_checkpoint

# As the file system has them.
CLASSES = [
    "猫".encode(),
    "👨\u200d👩\u200d👧".encode(),
    "עברית".encode(),
    b"esc\x1b[31mred\x1b]0;owned\x07",
    b"caf\xe9",
    "cafe\u0301".encode(),
    b"new\nline",
    b"x" * 200,
    b"[bold]$math$ <script>",
    "rtl\u202eexe".encode(),
]
FILES = [
    b"\x1b[31m.png",
    b"caf\xe9.png",
    b"new\nline.png",
    "\u202egnp.png".encode(),
    b"[red]%s?#&.png",
    b"y" * 200 + b".png",
]
# What no output may hold: controls but line ends and tabs, of C1 too, and changes of direction.
COMMANDS = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f\u202a-\u202e\u2066-\u2069]")


@pytest.fixture(scope="module")
def odd_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Ten classes of six pictures."""
    root = tmp_path_factory.mktemp("odd") / "data"
    rng = np.random.default_rng(0)
    for number, name in enumerate(CLASSES):
        folder = root / os.fsdecode(name)
        folder.mkdir(parents=True)
        for file in FILES:
            pixels = rng.integers(0, 60, (24, 24, 3)) + np.array([number * 19, number * 7, 190 - number * 19])
            Image.fromarray(pixels.astype(np.uint8)).save(folder / os.fsdecode(file))
        (folder / os.fsdecode(b"br\x1boken\xff.png")).write_bytes(b"no picture")
    return root


def test_every_command_takes_odd_names(odd_folder: Path, zoo: Callable, in_folder: Path) -> None:
    sizes = ("--epochs", 4, "--image-size", 16, "--batch-size", 16, "--device", "cpu")
    pictures = sorted(path for path in odd_folder.rglob("*.png") if "oken" not in path.name)
    for command, code in (
        (("data", "check", odd_folder), 0),
        (("data", "check", odd_folder, "--json"), 0),
        (("train", "tiny", "--data", odd_folder, *sizes, "--workers", 1, "-o", "run"), 0),
        (("data", "pack", odd_folder, "-o", "shards"), 0),
        (("train", "run", "--data", "shards", *sizes, "--workers", 0, "-o", "again"), 0),
        (("evaluate", "run", "--data", odd_folder), 0),
        (("evaluate", "run", "--data", "shards", "--json"), 0),
        (("predict", "run", *pictures), 0),
        (("predict", "run", *pictures, "--json"), 0),
        (("predict", "run", next(odd_folder.rglob("br*oken*"))), 1),
    ):
        answer = zoo(*command)
        assert answer.code == code, (command, answer.err)
        assert "Traceback" not in answer.err
        assert not COMMANDS.search(answer.out + answer.err), command
        if "--json" in command:
            for line in answer.out.splitlines() if command[0] == "predict" else [answer.out]:
                json.loads(line)
    classes = read_card(Path("run/checkpoint.safetensors")).classes
    assert {"猫", "👨\u200d👩\u200d👧", "עברית", r"caf\xe9", "cafe\u0301", r"new\nline", "x" * 200} < set(classes)
    for page in (*Path("run").glob("*.html"), *Path("run").glob("*.svg"), *Path("shards").glob("*.[jt][sx]*")):
        assert not COMMANDS.search(page.read_text("utf-8")), page


def test_names_inside_a_checkpoint_may_come_from_anywhere(tiny_run: Path, zoo: Callable, in_folder: Path) -> None:
    """Files of others were not read from a folder by this project."""
    source = tiny_run / "checkpoint.safetensors"
    odd = ("esc\x1b[31mRED", "c1\x9b31m", "half\udce9", "new\nline", "\u202eexe", "<script>", "\t", "[bold]", "猫", "z")
    save_checkpoint(Path("odd.safetensors"), load_file(source), replace(read_card(source), classes=odd))
    assert zoo("sample", "--count", 1, "-o", "digits").code == 0
    (picture,) = Path("digits").iterdir()
    for command in (
        ("predict", "odd.safetensors", picture, "--top", 10),
        ("predict", "odd.safetensors", picture, "--top", 10, "--json"),
        ("evaluate", "odd.safetensors", "--data", "digits"),  # an error that names both sides' classes
    ):
        answer = zoo(*command)
        assert "Traceback" not in answer.err
        assert not COMMANDS.search(answer.out + answer.err), command
    found = json.loads(zoo("predict", "odd.safetensors", picture, "--top", 10, "--json").out)
    assert {one["class"] for one in found["predictions"]} == set(odd)


def test_wrong_usage_and_errors_show_what_was_typed(zoo: Callable, in_folder: Path) -> None:
    for command in (("pre\x1b[31mdict",), ("show", "\x1b[31ms"), ("predict", "\x1b]0;x\x07.onnx", "p.jpg")):
        answer = zoo(*command)
        assert answer.code in (1, 2)
        assert not COMMANDS.search(answer.out + answer.err), command
        assert r"\x1b" in answer.err


def test_two_folders_that_look_alike_are_not_one_class(tmp_path: Path) -> None:
    for name in ("a\x01", r"a\x01", "b"):
        (tmp_path / name).mkdir()
        Image.new("RGB", (4, 4)).save(tmp_path / name / "0.png")
    with pytest.raises(DataError, match="two folders that are shown as"):
        read_folder(tmp_path)
