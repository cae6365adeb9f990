"""`zoo compare`: runs over the same pictures, paired; other pictures are refused."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path

import pytest

from train.compare import compare_runs
from train.options import CompareOptions
from train.spreadsheets import HEADS, Answered, sheet
from zoo.errors import DataError, ZooError
from zoo.intervals import mcnemar
from zoo.weights.checkpoint import load_checkpoint, save_checkpoint


@pytest.fixture
def a_run(tmp_path: Path) -> Callable[..., Path]:
    """`a_run("a", [1, 0, 1])`: the folder of a run that has the first and third picture right."""

    def write(name: str, right: Sequence[int], pictures: Sequence[str] = (), split: str = "val") -> Path:
        names = pictures or [f"cat/{number}.jpg" for number in range(len(right))]
        lines = [
            Answered(split, picture, "cat", "cat" if good else "dog", 0.5, 0.5)
            for picture, good in zip(names, right, strict=True)
        ]
        (tmp_path / name).mkdir()
        (tmp_path / name / "predictions.csv").write_text(sheet(HEADS, lines), encoding="utf-8")
        return tmp_path / name

    return write


def test_pictures_are_paired_by_name_whatever_their_order(a_run: Callable[..., Path]) -> None:
    names = [f"cat/{number}.jpg" for number in range(12)]
    first = a_run("a", [1] * 2 + [0] * 10, names)
    second = a_run("b", [0] + [1] * 11, names)
    shuffled = a_run("c", [1] * 11 + [0], names[::-1])
    found = compare_runs(CompareOptions(runs=(first, second, shuffled)))
    assert found.pictures == 12
    assert found.runs[0].against_first is None
    for run in found.runs[1:]:
        assert run.against_first is not None
        assert (run.right, run.against_first.only_first, run.against_first.only_this) == (11, 1, 10)
        assert run.against_first.difference == pytest.approx(9 / 12)
        assert run.against_first.p == mcnemar(1, 10)
        assert 0 < run.against_first.low < 0.75 < run.against_first.high


def test_answers_to_other_pictures_are_refused(a_run: Callable[..., Path]) -> None:
    first = a_run("a", [1, 0], ["cat/1.jpg", "cat/2.jpg"])
    other = a_run("b", [1, 0], ["cat/1.jpg", "cat/3.jpg"])
    with pytest.raises(
        DataError, match=r"1 are only in .*a and 1 only in .*b, such as cat/2.jpg of class cat in .*a\."
    ):
        compare_runs(CompareOptions(runs=(first, other)))
    fewer = a_run("c", [1], ["cat/1.jpg"])
    with pytest.raises(DataError, match=r"1 are only in .*a and 0 only in"):
        compare_runs(CompareOptions(runs=(first, fewer)))
    with pytest.raises(DataError, match="has no answers to test pictures"):
        compare_runs(CompareOptions(runs=(first, first), split="test"))
    with pytest.raises(ZooError, match="One run cannot be compared"):
        compare_runs(CompareOptions(runs=(first,)))


def test_what_is_no_finished_run_is_called_what_it_is(a_run: Callable[..., Path], tmp_path: Path) -> None:
    first, going = a_run("a", [1, 0]), tmp_path / "going"
    going.mkdir()
    (going / "metrics.jsonl").touch()
    file = first / "predictions.txt"
    file.touch()
    for other, said in (
        (going, "The run in .*going is not finished"),
        (tmp_path / "nowhere", "nowhere is not there; a run is a folder"),
        (file, "predictions.txt is a file; a run is a folder"),
    ):
        with pytest.raises(DataError, match=said):
            compare_runs(CompareOptions(runs=(first, other)))


def test_other_pictures_of_the_same_names_are_refused(tiny_run: Path, tmp_path: Path) -> None:
    """Names such as cat/1.jpg are everywhere: the checkpoints say which files they were."""
    other = shutil.copytree(tiny_run, tmp_path / "other")
    model, card = load_checkpoint(tiny_run / "checkpoint.safetensors")
    assert compare_runs(CompareOptions(runs=(tiny_run, other))).pictures == 360
    told = card.provenance | {"fingerprints": {"val": "0" * 64}}
    save_checkpoint(other / "checkpoint.safetensors", model.state_dict(), replace(card, provenance=told))
    with pytest.raises(DataError, match="other pictures of the same names"):
        compare_runs(CompareOptions(runs=(tiny_run, other)))


def test_real_runs_are_compared_with_what_their_checkpoints_say(tiny_run: Path, zoo: Callable) -> None:
    answer = zoo("compare", tiny_run, tiny_run, "--json")
    assert answer.code == 0, answer.err
    found = json.loads(answer.out)
    assert found["split"] == "val"
    assert found["runs"][0]["against_first"] is None
    assert found["runs"][1]["against_first"]["p"] == 1
    assert found["runs"][1]["recipe"] == "digits"
    assert found["runs"][1]["training_seconds"] > 0
    shown = zoo("compare", tiny_run, tiny_run)
    assert f"{found['pictures']:,} val pictures" in shown.out
    assert "1.0000" in shown.out
