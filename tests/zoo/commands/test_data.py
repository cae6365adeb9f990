from __future__ import annotations

import io
import json
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
from PIL import Image


@pytest.fixture
def damaged(picture_folder: Path, tmp_path: Path) -> Path:
    """Every finding once: a broken file, a copy within a split, one across them, one of another class."""
    root = tmp_path / "damaged"
    shutil.copytree(picture_folder, root)
    train, val = root / "train", root / "val"
    (train / "red" / "003.jpg").write_bytes((train / "red" / "003.jpg").read_bytes()[:300])
    shutil.copy(train / "red" / "000.jpg", train / "red" / "copy.jpg")
    shutil.copy(train / "blue" / "001.jpg", val / "blue" / "leak.jpg")
    # The same picture with other metadata, under another class.
    data = (train / "green" / "002.jpg").read_bytes()
    (val / "red" / "renamed.jpg").write_bytes(data[:2] + b"\xff\xfe\x00\x08remark" + data[2:])
    Image.new("RGB", (300, 50)).save(train / "green" / "empty.png")
    Image.new("RGB", (300, 50)).save(train / "green" / "empty.bmp")
    return root


def test_check_finds_everything_once(zoo: Callable, damaged: Path) -> None:
    answer = zoo("data", "check", damaged, "--json")
    assert answer.code == 0, answer.err
    found = json.loads(answer.out)
    assert found["splits"] == {"train": 39, "val": 20}
    assert [Path(line.split(" cannot")[0]).name for line in found["broken"]] == ["003.jpg"]
    named = {key: [sorted(Path(name).name for name in group) for group in found[key]] for key in found if "_" in key}
    assert named["duplicates_within"] == [["000.jpg", "copy.jpg"]]
    assert sorted(named["duplicates_across"]) == [["001.jpg", "leak.jpg"], ["002.jpg", "renamed.jpg"]]
    assert [[Path(name).name for name in group] for group in found["conflicts"]] == [["002.jpg", "renamed.jpg"]]
    assert found["classes"] == [
        {"class": "blue", "train": 12, "val": 7},
        {"class": "green", "train": 14, "val": 6},
        {"class": "red", "train": 12, "val": 7},
    ]
    assert found["imbalance"] == pytest.approx(20 / 19)
    assert found["sizes"]["width"] == {"min": 40, "median": 40, "max": 300}
    assert found["sizes"]["shorter_side"] == {"min": 40, "median": 40, "max": 50}


def test_the_table_says_the_same(zoo: Callable, damaged: Path) -> None:
    answer = zoo("data", "check", damaged)
    assert answer.code == 0, answer.err
    assert "Duplicates across the splits: 2" in answer.out
    assert "003.jpg" in answer.out
    assert "leak.jpg" in answer.out
    assert "Sizes: width 40–300 px (median 40)" in answer.out


def test_a_clean_folder_has_no_findings(zoo: Callable, picture_folder: Path) -> None:
    found = json.loads(zoo("data", "check", picture_folder, "--json").out)
    assert not any(found[key] for key in ("broken", "duplicates_within", "duplicates_across", "conflicts"))


def test_embedded_digits_can_be_checked(zoo: Callable) -> None:
    found = json.loads(zoo("data", "check", "digits", "--json").out)
    assert found["splits"] == {"train": 1437, "val": 360}
    assert found["sizes"]["width"] == {"min": 8, "median": 8, "max": 8}


def test_nothing_readable_is_an_error_after_the_report(zoo: Callable, tmp_path: Path) -> None:
    buffer = io.BytesIO()
    Image.new("RGB", (40, 40)).save(buffer, "JPEG")
    for split in ("train", "val"):
        for name in ("a", "b"):
            (tmp_path / split / name).mkdir(parents=True)
            (tmp_path / split / name / "x.jpg").write_bytes(buffer.getvalue()[:200])
    answer = zoo("data", "check", tmp_path, "--json")
    assert answer.code == 1
    assert len(json.loads(answer.out)["broken"]) == 4
    assert "not one readable picture" in answer.err


def test_a_missing_folder_says_so(zoo: Callable, in_folder: Path) -> None:
    answer = zoo("data", "check", "nowhere")
    assert (answer.code, answer.out) == (1, "")
    assert "no folder nowhere" in answer.err


def test_a_seed_that_splits_nothing_is_refused(zoo: Callable, picture_folder: Path) -> None:
    for data in ("digits", picture_folder):
        answer = zoo("data", "check", data, "--seed", 0)
        assert answer.code == 1 and f"--seed has no effect: {data} is divided already." in answer.err
    assert zoo("data", "check", picture_folder / "train", "--seed", 1).code == 0


def test_a_model_beside_a_size_is_a_wrong_use(zoo: Callable, picture_folder: Path, tmp_path: Path) -> None:
    answer = zoo("data", "pack", picture_folder, "-o", tmp_path / "out", "--size", 32, "--model", "s")
    assert answer.code == 2 and "--model has no effect with --size" in answer.err
