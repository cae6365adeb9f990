"""Whole runs with balanced sampling: what they say, that they resume to the bit, and the page."""

from __future__ import annotations

import json
import re
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

from train.learn.loop import _Loop
from train.session import train_model
from zoo.weights.checkpoint import read_card


@pytest.fixture(scope="module")
def uneven(picture_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The pictures, but of blue ones only three."""
    root = tmp_path_factory.mktemp("uneven") / "pictures"
    shutil.copytree(picture_folder, root)
    for path in sorted((root / "train" / "blue").iterdir())[3:]:
        path.unlink()
    return root


class Killed(BaseException):
    """Stands for a kill."""


@pytest.mark.parametrize("changes", [{}, {"overrides": ("epoch_pictures=20",)}])
def test_a_balanced_run_resumed_in_mid_epoch_ends_with_the_same_bits(
    changes: dict[str, Any], small: Callable, uneven: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    told = {"sampler": "balanced", **changes}
    train_model(small(uneven, tmp_path / "whole", **told))
    rest, calls = _Loop.rest, iter(range(100))

    def rest_and_die(self: _Loop, where: str) -> None:
        rest(self, where)
        if next(calls) == 4:
            raise Killed

    with monkeypatch.context() as patched, pytest.raises(Killed):
        patched.setattr(_Loop, "rest", rest_and_die)
        train_model(small(uneven, tmp_path / "cut", save_every_s=0, **told))
    train_model(small(uneven, tmp_path / "cut", resume=True, workers=1, **told))
    whole, resumed = (load_file(tmp_path / name / "checkpoint.safetensors") for name in ("whole", "cut"))
    assert all(torch.equal(whole[key], resumed[key]) for key in whole)
    assert read_card(tmp_path / "cut" / "checkpoint.safetensors").recipe["sampler"] == "balanced"


def test_plan_log_and_page_say_how_often_a_class_is_seen(zoo: Callable, uneven: Path, in_folder: Path) -> None:
    command = ("train", "tiny", "--data", uneven, "--epochs", 4, "--image-size", 16, "--sampler", "balanced")
    said = "Balanced sampling: an epoch sees a picture of blue (3) 3.0 times, one of green (12) 0.75 times."
    plan = zoo(*command, "--plan")
    assert plan.code == 0, plan.err
    assert said in " ".join(plan.out.split())
    as_json = json.loads(zoo(*command, "--plan", "--json").out)
    assert as_json["settings"]["sampler"] == "balanced"
    assert as_json["seen"][0] == {"name": "blue", "pictures": 3, "times": 3.0}
    for_a_time = json.loads(zoo(*command[:4], "--sampler", "balanced", "--budget", "1m", "--plan", "--json").out)
    pictures = for_a_time["settings"]["epoch_pictures"]
    assert for_a_time["seen"][0]["times"] == pytest.approx(pictures / 3 / 3)
    run = zoo(*command, "--device", "cpu", "--class-weights", "balanced", "-o", "run")
    assert run.code == 0, run.err
    log = " ".join(run.err.split())
    assert said in log
    assert log.count("correct for the same thing") == 1
    page = Path("run/report.html").read_text()
    assert "seen an epoch" in page and "Balanced sampling sees each training picture so often" in page
    assert re.search(r"blue.*?3\.0×", page, re.DOTALL)


def test_several_labels_are_balanced_by_each_of_them(zoo: Callable, shapes: Path, in_folder: Path) -> None:
    command = ("train", "tiny", "--data", shapes, "--epochs", 4, "--image-size", 16, "--device", "cpu")
    run = zoo(*command, "--sampler", "balanced", "-o", "run")
    assert run.code == 0, run.err
    assert "one with several labels comes for each of them" in " ".join(run.err.split())
    assert "guessing costs" not in run.err  # it begins at what the labels' frequencies in the draws cost
    assert "seen an epoch" in Path("run/report.html").read_text()


def test_shuffling_says_nothing_of_classes(zoo: Callable, uneven: Path, in_folder: Path) -> None:
    plan = zoo("train", "tiny", "--data", uneven, "--plan", "--json")
    assert json.loads(plan.out)["seen"] == []
