"""What a result says of an artifact besides its speed, and that two artifacts of one name never share a file."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from export.passport import passport_path
from zoo.files import sha256_of

BRIEF = ("--batch-size", 1, "--duration-s", 0.01, "--warmup-ms", 0, "--rounds", 3, "--device", "cpu", "-o", "results")


@pytest.fixture
def export(zoo: Callable, in_folder: Path) -> Callable[[str], Path]:
    """Export `tiny` with random weights into a folder."""

    def run(folder: str, *options: str) -> Path:
        answer = zoo("export", "tiny", "--random-weights", "--no-parity", *options, "-o", folder)
        assert answer.code == 0, answer.err
        return Path(folder) / "tiny.onnx"

    return run


def measure(zoo: Callable, *arguments: Any) -> dict[str, Any]:
    answer = zoo("bench", "latency", *arguments, *BRIEF, "--json")
    assert answer.code == 0, answer.err
    result: dict[str, Any] = json.loads(answer.out)
    return result


def test_two_artifacts_of_one_name_have_a_file_each(zoo: Callable, in_folder: Path, export: Callable) -> None:
    one, other = export("one"), export("other", "--image-size", "24")
    results = [measure(zoo, path) for path in (one, other)]
    (first,), (second,) = (result["settings"]["subjects"] for result in results)
    assert first["sha256"] == sha256_of(one) != second["sha256"] == sha256_of(other)
    assert (first["name"], first["precision"], first["batch_sizes"]) == ("tiny.onnx", "fp32", [1])
    kept = sorted(path.name for path in (in_folder / "results").iterdir())
    assert len(kept) == 2
    assert all(any(subject["sha256"][:8] in name for name in kept) for subject in (first, second))
    measure(zoo, one)
    assert sorted(path.name for path in (in_folder / "results").iterdir()) == kept  # the same run replaces its result
    report = zoo("bench", "report", "results", "-o", "report.html")
    for subject in (first, second):  # two results of one name are told apart in the sentences, and on the page
        assert "tiny.onnx (40 px, fp32, " in report.out and "tiny.onnx (24 px, fp32, " in report.out
        assert f", SHA-256 {subject['sha256'][:8]}…) answers one picture" in report.out
        assert f" · SHA-256 {subject['sha256'][:8]}…" in Path("report.html").read_text()


def test_more_threads_are_another_result(zoo: Callable, in_folder: Path, export: Callable) -> None:
    path = export("one")
    results = [measure(zoo, path, "--threads", threads) for threads in (1, 2)]
    assert [result["settings"]["subjects"][0]["threads"] for result in results] == [1, 2]
    assert len(list((in_folder / "results").iterdir())) == 2
    zoo("bench", "report", "results", "-o", "report.html")
    page = Path("report.html").read_text()
    assert "threads: 1<" in page
    assert "threads: 2<" in page


@pytest.mark.parametrize("damage", ["missing", "of another file", "foreign"])
def test_without_a_passport_of_its_own_the_precision_is_unknown(
    zoo: Callable, in_folder: Path, export: Callable, damage: str
) -> None:
    path = export("one")
    passport = passport_path(path)
    if damage == "missing":
        passport.unlink()
    elif damage == "foreign":
        passport.write_text("{}")
    else:
        passport.write_text(passport.read_text().replace(sha256_of(path), "0" * 64))
    assert measure(zoo, path)["settings"]["subjects"][0]["precision"] == "unknown precision"


def test_checkpoints_have_a_hash_too(zoo: Callable, in_folder: Path, tiny_run: Path) -> None:
    checkpoint = tiny_run / "checkpoint.safetensors"
    (subject,) = measure(zoo, tiny_run)["settings"]["subjects"]
    assert (subject["sha256"], subject["precision"]) == (sha256_of(checkpoint), "fp32")
