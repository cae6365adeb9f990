"""Beside a user's own train.py, export.py, serve.py and zoo.py every command is ours, and none of their code runs."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from zoo.cli import BENCHMARKS, COMMANDS, DATA

ROOT = Path(__file__).parents[2]
# As pip's console script has it, whose own folder is the first on the path.
SCRIPT = "import sys; sys.path[0] = sys.argv.pop(1); from zoo.cli import main; main()"
ALL = [
    *((name, "--help") for name in COMMANDS),
    *(("bench", name, "--help") for name in BENCHMARKS),
    *(("data", name, "--help") for name in DATA),
    ("list",),
    ("train", "tiny", "--plan"),
]


def run(folder: Path, how: list[str], path: str, *arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, *how, *arguments],
        cwd=folder,
        env=os.environ | {"PYTHONPATH": path},
        capture_output=True,
        text=True,
        timeout=120,
    )


def theirs(folder: Path, *names: str) -> None:
    for name in names:
        (folder / name).parent.mkdir(exist_ok=True)
        (folder / name).write_text("raise SystemExit('their code ran')\n")


@pytest.mark.parametrize("names", [("train.py", "export.py", "serve.py"), ("train/__init__.py", "serve/__init__.py")])
def test_our_packages_are_found_behind_theirs(names: tuple[str, ...], tmp_path: Path) -> None:
    theirs(tmp_path, *names)
    for how, path in ((["-m", "zoo"], str(ROOT)), (["-c", SCRIPT, "bin"], f".{os.pathsep}{ROOT}")):
        # One process for all commands: each start takes a tenth of a second and an import of torch.
        for arguments in (
            ("bench", "train", "--help"),
            ("export", "--help"),
            ("serve", "--help"),
            ("train", "tiny", "--plan"),
        ):
            ended = run(tmp_path, how, path, *arguments)
            assert ended.returncode == 0, ended.stderr
            assert "their code ran" not in ended.stderr


def test_the_console_script_does_not_look_into_the_working_folder(tmp_path: Path) -> None:
    theirs(tmp_path, "zoo.py", "train.py", "export.py", "serve.py")
    for arguments in ALL:
        ended = run(tmp_path, ["-c", SCRIPT, "bin"], str(ROOT), *arguments)
        assert ended.returncode == 0, (arguments, ended.stderr)


def test_processes_that_decode_find_our_packages_too(tmp_path: Path, picture_folder: Path) -> None:
    theirs(tmp_path, "train.py")
    flags = ("--data", str(picture_folder), "--epochs", "4", "--image-size", "16", "--device", "cpu", "--workers", "1")
    ended = run(tmp_path, ["-m", "zoo"], str(ROOT), "train", "tiny", *flags)
    assert ended.returncode == 0, ended.stderr
    assert (tmp_path / "runs" / "tiny" / "checkpoint.safetensors").is_file()
