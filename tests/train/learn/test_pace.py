"""How fast this machine is: measured on the job's own pictures, remembered, and what a budget makes of it."""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from train.learn.pace import _line, measure_pace
from train.options import TrainOptions
from train.processes.distributed import ALONE
from train.progressive.budget import FINISH_S, PLANNED_SHARE, Pace
from train.progressive.known_paces import FILE, MOST_KNOWN, known_pace, pace_key, remember_pace
from train.progressive.plan import plan_training
from train.session import make_job, measure_pace_of


def test_a_line_goes_through_two_sizes_and_is_never_negative() -> None:
    assert _line((10, 20), [3.0, 6.0]) == (2.0, 0.01)
    assert _line((10, 20), [6.0, 6.0]) == (6.0, 0.0)
    assert _line((10, 20), [8.0, 6.0]) == (6.0, 0.0)  # noise: larger pictures are not faster
    assert _line((10, 20), [0.1, 6.0]) == (0.0, 6.0 / 400)


def test_a_pace_is_that_of_real_steps(small: Callable, picture_folder: Path, tmp_path: Path) -> None:
    options = small(picture_folder, tmp_path)
    job = make_job(options, ALONE, None, None, None, None)
    began = time.perf_counter()
    pace = measure_pace(job)
    taken = time.perf_counter() - began
    assert 0 < pace.training(job.recipe.largest_size) < taken
    assert 0 < pace.validation(job.recipe.test_size) < taken
    assert measure_pace_of(options).training(24) > 0


def test_what_was_measured_is_remembered(picture_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ZOO_CACHE", str(tmp_path))
    options = TrainOptions(model="tiny", data=str(picture_folder))
    key = pace_key(plan_training(options), options)
    larger = replace(options, image_size=64)
    assert key == pace_key(plan_training(options), options) != pace_key(plan_training(larger), larger)
    assert known_pace(key) is None
    pace = Pace(train_s=1, train_s_per_px=0, validate_s=1, validate_s_per_px=0)
    remember_pace(key, pace)
    assert known_pace(key) == pace
    for number in range(MOST_KNOWN):
        remember_pace(f"other {number}", pace)
    assert len(json.loads((tmp_path / FILE).read_text())) == MOST_KNOWN and known_pace(key) is None
    (tmp_path / FILE).write_text("no JSON")
    assert known_pace(key) is None


def test_a_cache_that_cannot_be_written_is_no_reason_to_fail(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "file").write_text("in the way")
    monkeypatch.setenv("ZOO_CACHE", str(tmp_path / "file"))
    remember_pace("key", Pace(train_s=1, train_s_per_px=0, validate_s=1, validate_s_per_px=0))
    assert known_pace("key") is None


def test_a_budget_is_filled_and_said_beforehand(
    zoo: Callable, picture_folder: Path, in_folder: Path, killed_after: Callable
) -> None:
    """With the pace of this machine: 36 pictures of 16 px in a few seconds."""
    asked = ("train", "tiny", "--data", picture_folder, "--image-size", 16, "--device", "cpu", "--workers", 0)
    answer = zoo(*asked, "--budget", "8s", "-o", "run", "--json")
    assert answer.code == 0, answer.err
    assert "8.0\N{NO-BREAK SPACE}s are" in answer.err and "passes over the pictures here" in answer.err
    assert json.loads(answer.out)["epochs"] == 1  # of four seconds or more
    refused = zoo(*asked, "--budget", "8s", "--epochs", 3)
    assert refused.code == 2 and "--epochs has no effect with --budget" in refused.err
    planned = zoo(*asked, "--budget", "5s", "--plan", "--json")
    left = PLANNED_SHARE * 5 - FINISH_S
    assert 0.8 * left < json.loads(planned.out)["seconds"] <= left
    soon = zoo(*asked, "--budget", "soon")
    assert soon.code == 1 and "'soon' is no time" in soon.err
