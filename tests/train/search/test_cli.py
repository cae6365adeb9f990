"""`zoo search` on a command line, and its winner in the commands that come after it."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

SMALL = "--recipe fixed --epochs 1 --batch-size 16 --image-size 16 --workers 0 --device cpu"


def test_the_winner_is_trained_exported_and_benched(
    zoo: Callable[..., Any], in_folder: Path, few: Path, quick: None
) -> None:
    searched = zoo("search", *f"--data {few} --space control --trials 2 --finalists 0 {SMALL}".split())
    assert searched.code == 0 and searched.out.strip().endswith("runs/search/winner.toml"), searched.err
    assert "trial 1/2  f3e1x1-f3e2x1s25-f3e2x1" in searched.err
    winner = "runs/search/winner.toml"
    id = json.loads(zoo("show", winner, "--json").out)["id"]
    trained = zoo("train", winner, "--data", few, *SMALL.split())
    assert trained.code == 0 and Path("runs", id, "checkpoint.safetensors").is_file(), trained.err
    exported = zoo("export", winner, "--num-pictures", "2")
    assert exported.code == 0 and Path(f"{id}.onnx").is_file(), exported.err
    brief = "--image-size 16 --on torch --duration-s 0.01 --warmup-ms 0 --rounds 3 --device cpu"
    benched = zoo("bench", "stages", winner, *brief.split())
    assert benched.code == 0, benched.err


def test_json_is_all_there_is_on_stdout(zoo: Callable[..., Any], in_folder: Path, few: Path, quick: None) -> None:
    answer = zoo("search", *f"--data {few} --space control --trials 1 --finalists 0 {SMALL} --json".split())
    told = json.loads(answer.out)
    assert told["format"] == "zoo-search-1" and told == json.loads(Path("runs/search/search.json").read_text())


def test_a_space_is_written_to_be_edited(zoo: Callable[..., Any], in_folder: Path) -> None:
    assert zoo("search", "--space", "small", "--write-space", "my.toml").out == "my.toml\n"
    again = zoo("search", "--space", "small", "--write-space", "my.toml")
    assert again.code == 1 and "there already" in again.err


def test_a_plan_trains_nothing(zoo: Callable[..., Any], in_folder: Path, few: Path) -> None:
    answer = zoo("search", *f"--data {few} --space control --plan --trials 7 {SMALL}".split())
    assert answer.code == 0 and "7 trials and 12 long trainings" in answer.out, answer.err
    assert not list(in_folder.iterdir())


@pytest.mark.parametrize(
    ("words", "said"),
    [
        ("--space nosuch", "Unknown space 'nosuch'"),
        ("--space none.toml", "There is no space file none.toml"),
        ("--data nosuch", "nosuch"),
        ("--budget soon", "soon"),
        ("--sampler best", "best"),
        ("--trials 0", "0"),
        ("--store nosuch://x", "no kind of database"),
        ("--image-size 8", "16"),
    ],
)
def test_wrong_words_are_refused_before_anything_is_trained(
    words: str, said: str, zoo: Callable[..., Any], in_folder: Path, few: Path, quick: None
) -> None:
    rest = "" if "--data" in words else f"--data {few}"
    usual = "--space control" if "--space" not in words else ""
    answer = zoo("search", *f"{rest} {usual} --epochs 1 {words}".split())
    assert answer.code in (1, 2) and said in answer.err and "Traceback" not in answer.err
    assert not Path("runs/search/winner.toml").exists()
