"""A disk that is full at every place where a command writes: our error, the earlier file, no half ones.

A limit of file sizes stands in for the disk: the system's error has another number, its way is the same.
"""

from __future__ import annotations

import os
import resource
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from zoo.model.build import build_network
from zoo.model.variants import find_variant
from zoo.weights.checkpoint import Checkpoint, save_checkpoint

ROOT = Path(__file__).parents[1]
TRAIN = ("train", "tiny", "--epochs", 4, "--image-size", 16, "--batch-size", 12, "--workers", 0, "--device", "cpu")
# What each command writes, and how many bytes fit.
COMMANDS = {
    "scale": (("scale", "s", "--depth", 1.2, "-o", "made/my.toml"), 500, "made/my.toml"),
    "convert .pth": (("convert", "b0.safetensors", "--to", "timm", "-o", "made/b0.pth"), 50_000, "made/b0.pth"),
    "convert": (("convert", "b0.safetensors", "--to", "timm", "-o", "made/b0.safetensors"), 50_000, None),
    "import": (("import", "b0", "b0.pth", "--from", "timm", "-o", "made/b0.safetensors"), 50_000, None),
    "pack": (("data", "pack", "pictures", "-o", "made"), 20_000, "made/train-000000.tar"),
    "index": (("data", "index", "made"), 400, "made/train.index.npy"),
    "export": (("export", "run", "--no-parity", "-o", "made/tiny.onnx"), 20_000, "made/tiny.onnx"),
    "bench latency": (("bench", "latency", "run", "--duration-s", 0.1, "-o", "made"), 2500, None),
    "bench stages": (
        ("bench", "stages", "tiny", "--on", "torch", "--by", "isolated", "--duration-s", 0.1, "-o", "made"),
        2500,
        None,
    ),
    "bench train": (("bench", "train", "tiny", "--steps", 3, "--image-size", 16, "-o", "made"), 2000, None),
    "bench report": (("bench", "report", "results", "-o", "made/report.html"), 4000, "made/report.html"),
    "train": ((*TRAIN, "--data", "pictures", "--save-every", 0, "-o", "made"), 50_000, "made/state.pt"),
}


@contextmanager
def disk_of(size_bytes: int) -> Iterator[None]:
    """No file of this process may become larger."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size_bytes, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


@pytest.fixture
def place(in_folder: Path, picture_folder: Path, tiny_run: Path, zoo: Callable) -> Path:
    """A working folder with all that the commands read."""
    (in_folder / "pictures").symlink_to(picture_folder)
    (in_folder / "run").symlink_to(tiny_run)
    (in_folder / "made").mkdir()
    return in_folder


def prepare(name: str, place: Path, zoo: Callable) -> None:
    """What only one command reads."""
    if "b0" in str(COMMANDS[name]):
        variant = find_variant("b0")
        network = build_network(variant, 10)
        card = Checkpoint(
            variant=variant,
            classes=tuple("0123456789"),
            preprocessing=variant.preprocessing,
            padding=network.padding,
            recipe={},
        )
        save_checkpoint(place / "b0.safetensors", network.state_dict(), card)
        if name == "import":
            assert zoo("convert", "b0.safetensors", "--to", "timm", "-o", "b0.pth").code == 0
    if name == "index":
        assert zoo("data", "pack", "pictures", "-o", "packed").code == 0
        for tar in (place / "packed").glob("*.tar"):
            tar.rename(place / "made" / tar.name)
    if name == "bench report":
        assert zoo("bench", "train", "tiny", "--steps", 3, "--image-size", 16, "-o", "results").code == 0


@pytest.mark.parametrize("name", COMMANDS)
def test_a_full_disk_is_one_line_and_leaves_no_half_file(name: str, place: Path, zoo: Callable) -> None:
    command, size_bytes, file = COMMANDS[name]
    prepare(name, place, zoo)
    if file and name != "pack":  # which wants an empty folder
        if name == "train":
            (place / "made" / "metrics.jsonl").write_text("an earlier run")
        elif name not in ("index", "scale"):
            (place / file).write_text("earlier")
    before = {path: path.read_bytes() for path in place.rglob("*") if path.is_file()}
    with disk_of(size_bytes):
        answer = zoo(*command)
    assert answer.code == 1, answer.err
    assert "Traceback" not in answer.err
    assert f"Cannot write {file or 'made'}" in answer.err
    assert "File too large" in answer.err
    assert "Make room" in answer.err
    kept = place / "made.1" if name == "train" else place / "made"
    for path, content in before.items():
        there = kept / path.name if path.parent.name == "made" else path
        assert there.read_bytes() == content
    half = [path for path in place.rglob("*") if path.name.startswith(".") or (path.is_file() and path not in before)]
    assert [path for path in half if path.parent != place / "made.1"] == []
    if name.startswith("bench") and name != "bench report":
        assert "stage" in answer.out or "p50" in answer.out  # what was measured is not lost


def test_the_same_command_goes_on_once_there_is_room(place: Path, zoo: Callable) -> None:
    """The state of before is the one that is resumed."""
    command = (*TRAIN, "--data", "pictures", "--save-every", 0, "-o", "again", "--auto-resume")
    with disk_of(50_000):
        assert zoo(*command).code == 1
    assert zoo(*command).code == 0
    with disk_of(20_000):
        assert zoo("data", "pack", "pictures", "-o", "shards").code == 1
    assert zoo("data", "pack", "pictures", "-o", "shards").code == 0


def run_process(*command: str, **options: Any) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-c", "from zoo.cli import main; main()", *command],
        env=os.environ | {"PYTHONPATH": str(ROOT)},
        stderr=subprocess.PIPE,
        text=True,
        timeout=300,
        **options,
    )


def test_not_even_a_picture_of_eight_pixels_fits(in_folder: Path) -> None:
    """In a process of its own: the line on stderr is longer than the picture."""

    def limit() -> None:
        resource.setrlimit(resource.RLIMIT_FSIZE, (50, 50))

    done = run_process("sample", "-o", "made", preexec_fn=limit)
    assert (done.returncode, done.stderr.splitlines()[0]) == (
        1,
        "Error: Cannot write made/7/digit-7-000.png: File too large.",
    )
    assert not [path for path in (in_folder / "made").rglob("*") if path.is_file()]


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="this system has no /dev/full")
def test_output_that_is_redirected_to_a_full_disk_is_one_line() -> None:
    with Path("/dev/full").open("w") as full:
        done = run_process("list", stdout=full)
    assert done.returncode == 1
    assert done.stderr.splitlines() == [
        "Error: The output cannot be written: No space left on device.",
        "Hint:  Make room where it is redirected to.",
    ]


def test_no_place_for_temporary_files_is_told_before_the_work(
    place: Path, zoo: Callable, monkeypatch: pytest.MonkeyPatch
) -> None:
    """PyTorch imports half of itself where there is none, and fails in ways of its own."""

    def nowhere() -> str:
        raise FileNotFoundError(2, "No usable temporary directory found in ['/tmp']")

    for command in ((*TRAIN, "-o", "x"), ("export", "run", "-o", "x"), ("bench", "train", "tiny", "-o", "x")):
        with monkeypatch.context() as patch:
            patch.setattr(tempfile, "gettempdir", nowhere)
            answer = zoo(*command)
        assert answer.code == 1
        assert "There is no place for temporary files" in answer.err
        assert not (place / "x").exists()
