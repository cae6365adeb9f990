"""What a run leaves behind, the checkpoint first; what only shows the run may fail without losing it."""

from __future__ import annotations

import json
import math
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

import train.learn.loop
import train.watch.record
from train.learn.run import Epoch
from train.learn.validation import validate_together
from train.progressive.recipe import TrainingStage
from train.session import train_model
from train.watch.record import RunRecord
from zoo.errors import RowError
from zoo.weights.checkpoint import load_checkpoint

FLAGS = ("--epochs", 4, "--image-size", 16, "--batch-size", 12, "--workers", 0, "--device", "cpu", "-o", "run")


def fail(*_: Any) -> str:
    raise OSError("the disk is [full]")


def test_a_page_and_pictures_that_cannot_be_written_do_not_lose_the_run(
    zoo: Callable, in_folder: Path, picture_folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A folder is where the page should be, and one picture cannot be drawn; the other one is there."""

    def take_the_place(self: RunRecord, index: int, stage: TrainingStage) -> None:
        (self.folder / "report.html").mkdir(parents=True, exist_ok=True)

    monkeypatch.setattr("train.watch.record.draw_curves", fail)
    monkeypatch.setattr(RunRecord, "on_stage", take_the_place)
    answer = zoo("train", "tiny", "--data", picture_folder, *FLAGS)
    assert answer.code == 0, answer.err
    said = " ".join(answer.err.split())
    assert "Warning: run/report.html was not written: Cannot write run/report.html: Is a directory." in said
    assert "Warning: run/curves.svg was not written: the disk is [full]" in said
    assert {path.name for path in Path("run").iterdir()} == {
        "checkpoint.safetensors",
        "classes.csv",
        "confusion.svg",
        "metrics.jsonl",
        "predictions.csv",
        "report.html",
    }
    load_checkpoint(Path("run/checkpoint.safetensors"))
    again = zoo("train", "tiny", "--data", picture_folder, *FLAGS, "--resume")
    assert again.code == 1
    assert "Nothing to resume in run: that run is finished." in again.err


def test_the_checkpoint_is_written_before_all_that_shows_the_run(
    small: Callable, picture_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    there: list[set[str]] = []

    def look(*_: Any) -> str:
        there.append({path.name for path in (tmp_path / "run").iterdir()})
        return ""

    monkeypatch.setattr("train.watch.record.REPORT_INTERVAL_S", math.inf)
    for name in ("render_report", "draw_curves", "draw_matrix"):
        monkeypatch.setattr(f"train.watch.record.{name}", look)
    train_model(small(picture_folder, tmp_path / "run", save_every_s=0))
    assert len(there) >= 3
    assert {"checkpoint.safetensors", "state.pt"} <= there[-3]


def test_a_checkpoint_that_cannot_be_written_leaves_the_state(
    small: Callable, picture_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    options = small(picture_folder, tmp_path / "run", save_every_s=0)
    with monkeypatch.context() as patch, pytest.raises(OSError, match="full"):
        patch.setattr("train.room.save_checkpoint", fail)
        train_model(options)
    assert (tmp_path / "run" / "state.pt").is_file()
    outcome = train_model(replace(options, resume=True))
    assert outcome.checkpoint.is_file()
    assert not (tmp_path / "run" / "state.pt").exists()


def test_figures_that_cannot_be_written_for_a_while_do_not_end_a_run(
    small: Callable, picture_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The disk is full at the first epoch; the next one's figures have those of all before it."""
    written, refused = train.watch.record.write_text, []

    def full_at_first(path: Path, text: str) -> None:
        if path.name == "metrics.jsonl" and not refused:
            refused.append(path)
            fail()
        written(path, text)

    monkeypatch.setattr("train.watch.record.write_text", full_at_first)
    outcome = train_model(small(picture_folder, tmp_path / "run"))
    assert refused
    assert len((outcome.folder / "metrics.jsonl").read_text().splitlines()) == len(outcome.history)


def test_no_line_of_the_metrics_can_hold_nan() -> None:
    line = {
        "epoch": 1,
        "stage": 1,
        "image_size": 24,
        "learning_rate": 0.1,
        "train_loss": 1.0,
        "train_top1": 0.5,
        "val_loss": None,
        "val_top1": 0.5,
        "val_size": 30,
        "pictures_per_second": 10.0,
        "seconds": 1.0,
        "broken": 0,
        "val_map": None,
        "val_pictures": None,
        "val_balanced": None,
    }
    assert json.loads(json.dumps(Epoch.from_dict(line).to_dict(), allow_nan=False)) == line
    for name, value in line.items():
        if isinstance(value, float):
            with pytest.raises(RowError, match=f"{name} is nan"):
                Epoch.from_dict(line | {name: math.nan})


def test_a_validation_loss_that_is_no_number_is_null(
    small: Callable, picture_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def diverged(*arguments: Any) -> Any:
        return replace(validate_together(*arguments), loss=math.nan)

    monkeypatch.setattr(train.learn.loop, "validate_together", diverged)
    outcome = train_model(small(picture_folder, tmp_path / "run"))
    text = (tmp_path / "run" / "metrics.jsonl").read_text()
    assert [json.loads(line)["val_loss"] for line in text.splitlines()] == [None] * 4
    assert "NaN" not in text
    _, card = load_checkpoint(outcome.checkpoint)
    assert card.provenance["val_loss"] is None
    assert torch.isfinite(torch.tensor(outcome.history[-1].train_loss))


def test_a_file_is_no_run_folder(zoo: Callable, in_folder: Path) -> None:
    Path("run").write_text("precious")
    answer = zoo("train", "tiny", *FLAGS)
    assert answer.code == 1
    assert "Cannot write to run" in answer.err
    assert Path("run").read_text() == "precious"
