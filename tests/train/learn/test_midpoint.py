"""The weights halfway between the head start's and those that training made of them."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from train.options import TrainOptions
from train.session import Outcome, train_model
from zoo.weights.checkpoint import load_checkpoint


def fine_tuned(weights: Path, data: Path, folder: Path, *overrides: str, **changes: Any) -> Outcome:
    options = {"epochs": 3, "image_size": 24, "batch_size": 12, "workers": 0, "device": "cpu", "recipe": "finetune"}
    settings = ("learning_rate=0.01", *overrides)
    asked = {**options, **changes}
    return train_model(TrainOptions(model=str(weights), data=str(data), out=folder, overrides=settings, **asked))


@pytest.fixture
def midpoint_says(monkeypatch: pytest.MonkeyPatch) -> Callable[[float], None]:
    """`midpoint_says(0.7)`: that is its accuracy, and its loss is lower than any other."""
    import train.learn.midpoint as midpoint

    validate = midpoint.validate_together

    def say(top1: float) -> None:
        monkeypatch.setattr(
            midpoint, "validate_together", lambda *asked: replace(validate(*asked), top1=top1, loss=0.0)
        )

    return say


def test_the_midpoint_is_kept_if_it_is_the_best(
    tiny_run: Path, picture_folder: Path, tmp_path: Path, midpoint_says: Callable
) -> None:
    trained = fine_tuned(tiny_run, picture_folder, tmp_path / "trained", "midpoint=false", keep="last")
    midpoint_says(1.0)
    between = fine_tuned(tiny_run, picture_folder, tmp_path / "between", "metric=loss")
    assert between.halfway and between.result.top1 == 1.0 and "halfway from the head start to" in between.summary
    start, end, kept = (
        load_checkpoint(path)[0].state_dict()
        for path in (tiny_run / "checkpoint.safetensors", trained.checkpoint, between.checkpoint)
    )
    if between.best_epoch == len(between.history):
        for name in ("stem.conv.weight", "head.conv.weight"):
            torch.testing.assert_close(kept[name], (start[name] + end[name]) / 2)
    _, card = load_checkpoint(between.checkpoint)
    assert card.provenance["halfway"] is True
    assert "halfway from the head start" in (tmp_path / "between" / "report.html").read_text()


def test_the_midpoint_is_dropped_if_it_is_not(
    tiny_run: Path, picture_folder: Path, tmp_path: Path, midpoint_says: Callable
) -> None:
    usual = fine_tuned(tiny_run, picture_folder, tmp_path / "usual", "midpoint=false")
    midpoint_says(0.0)
    dropped = fine_tuned(tiny_run, picture_folder, tmp_path / "dropped")
    assert not dropped.halfway and dropped.best_epoch == usual.best_epoch
    first, second = (load_checkpoint(outcome.checkpoint)[0].state_dict() for outcome in (usual, dropped))
    assert all(torch.equal(first[name], second[name]) for name in first)


def test_a_resumed_run_knows_where_the_way_began(
    tiny_run: Path, picture_folder: Path, tmp_path: Path, midpoint_says: Callable, killed_after: Callable
) -> None:
    midpoint_says(1.0)
    whole = fine_tuned(tiny_run, picture_folder, tmp_path / "whole")
    with killed_after(2):
        fine_tuned(tiny_run, picture_folder, tmp_path / "part", save_every_s=0)
    resumed = fine_tuned(tiny_run, picture_folder, tmp_path / "part", resume=True)
    assert whole.halfway and resumed.halfway
    first, second = (load_checkpoint(outcome.checkpoint)[0].state_dict() for outcome in (whole, resumed))
    assert all(torch.equal(first[name], second[name]) for name in first)
    assert json.loads(json.dumps(resumed.to_dict()))["halfway"] is True


def test_a_run_for_int8_does_not_look_halfway(
    tiny_run: Path, picture_folder: Path, tmp_path: Path, midpoint_says: Callable
) -> None:
    midpoint_says(1.0)
    rounded = fine_tuned(tiny_run, picture_folder, tmp_path / "run", "metric=loss", qat=True)
    assert not rounded.halfway and rounded.result.loss > 0
