"""What is said of each class, on the page and in classes.csv; and a whole run with a test split and odd names."""

from __future__ import annotations

import csv
import json
import re
import shutil
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import pytest

from train.spreadsheets import read_predictions
from train.watch.classes import ClassLine
from zoo.intervals import share_interval
from zoo.weights.checkpoint import read_card


def a_line(pictures: int, answers: int, right: int) -> ClassLine:
    return ClassLine("cat", 100, 10, None, pictures, answers, right)


def test_precision_recall_and_f1_have_intervals() -> None:
    line = a_line(20, 30, 15)
    assert line.recall == (0.75, *share_interval(15, 20))
    assert line.precision == (0.5, *share_interval(15, 30))
    assert line.f1 is not None
    assert line.f1.value == pytest.approx(2 * 0.75 * 0.5 / 1.25)
    # 15 of the 35 pictures and answers of the class; F1 is 2J / (1 + J).
    low, high = share_interval(15, 35)
    assert line.f1[1:] == pytest.approx((2 * low / (1 + low), 2 * high / (1 + high)))


def test_what_has_no_pictures_or_no_answers_has_no_figure() -> None:
    assert a_line(0, 3, 0).recall is None
    assert a_line(0, 3, 0).f1 is None
    assert a_line(3, 0, 0).precision is None
    assert a_line(3, 0, 0).f1 == (0, 0, pytest.approx(2 * 0.5615 / 1.5615, abs=1e-3))


NAMES = {"red": "=cmd|' /C calc'!A1", "green": "-\x07 שלום\u202e", "blue": "猫 $a$ <b>"}


@pytest.fixture
def odd_run(zoo: Callable, picture_folder: Path, in_folder: Path) -> Path:
    """A run over classes whose names are formulas, markup and controls, with a test split."""
    for split, there in (("train", "train"), ("val", "val"), ("test", "val")):
        for colour, name in NAMES.items():
            folder = "pictures" / Path(split) / name.replace("/", "\N{DIVISION SLASH}")
            shutil.copytree(picture_folder / there / colour, folder)
    flags = ("--epochs", 4, "--image-size", 16, "--batch-size", 12, "--workers", 0, "--device", "cpu")
    answer = zoo("train", "tiny", "--data", "pictures", *flags, "-o", "run")
    assert answer.code == 0, answer.err
    return Path("run")


def test_a_run_leaves_every_answer_and_every_class(odd_run: Path) -> None:
    answers = read_predictions(odd_run / "predictions.csv")
    of_val, of_test = ([line for line in answers if line.split == split] for split in ("val", "test"))
    assert {line.picture for line in of_val} == {line.picture for line in of_test}
    card = read_card(odd_run / "checkpoint.safetensors")
    share = sum(line.true == line.predicted for line in of_test) / len(of_test)
    assert share == pytest.approx(card.provenance["test_top1"])
    assert "-\\x07 שלום\\u202e" in {line.true for line in answers}
    assert all(line.score >= line.true_score for line in answers)
    with (odd_run / "classes.csv").open(encoding="utf-8", newline="") as file:
        classes = list(csv.DictReader(file))
    assert {row["split"] for row in classes} == {"test"}
    counted = Counter(line.true for line in of_test)
    assert {row["class"].removeprefix("'"): int(row["pictures"]) for row in classes} == counted
    assert all(row["class"].startswith("'") == (row["class"][1] in "=-") for row in classes)
    assert "猫 $a$ <b>" in {row["class"] for row in classes}


def test_the_page_of_a_run_with_odd_names_shows_them_as_text(odd_run: Path) -> None:
    page = (odd_run / "report.html").read_text(encoding="utf-8")
    assert not re.findall(r"<script|<b>|[\x00-\x08]|https?://", page)
    assert "猫 $a$ &lt;b&gt;" in page
    for heading in (
        "Classes",
        "Confusion",
        "Pictures classified right",
        "Can the scores be believed?",
        "What the network is fed",
        "What it sees in validation",
    ):
        assert f"<h2>{heading}</h2>" in page
    assert "the number of test pictures that the figures are of" in page
    kept = read_card(odd_run / "checkpoint.safetensors").provenance["temperature"]
    assert (kept is None) is ("No temperature is kept" in page)
    assert json.loads((odd_run / "metrics.jsonl").read_text(encoding="utf-8").splitlines()[-1])["epoch"] == 4
