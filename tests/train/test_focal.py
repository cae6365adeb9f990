"""Whole runs with the focal loss: they begin at what guessing costs under it, and they learn."""

from __future__ import annotations

import json
import math
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from train.input.loader import Batch
from train.learn.run import enter_stage, start_run
from train.learn.step import train_step
from train.learn.throughput import noise_job
from train.progressive.recipe import LossName, find_recipe
from train.settings import Settings
from zoo.model.variants import find_variant
from zoo.weights.checkpoint import read_card


def test_a_run_with_the_focal_loss_begins_at_chance_and_learns(zoo: Callable, in_folder: Path) -> None:
    """(1 − 1/10)² ln 10 = 1.87 is where it begins; a check that took ln 10 for chance would not see a bad beginning."""
    sizes = ("--epochs", 4, "--image-size", 32, "--batch-size", 32, "--lr", "1e-2", "--device", "cpu", "--workers", 0)
    run = zoo("train", "tiny", *sizes, "--focal-gamma", 2, "-o", "run")
    assert run.code == 0, run.err
    assert "guessing costs" not in run.err
    lines = [json.loads(line) for line in Path("run/metrics.jsonl").read_text().splitlines()]
    assert 0 < lines[0]["train_loss"] < 0.9**2 * math.log(10)
    assert lines[-1]["val_top1"] > 0.5
    card = read_card(Path("run/checkpoint.safetensors"))
    assert card.recipe["focal_gamma"] == 2.0
    again = zoo("train", "tiny", *sizes, "--focal-gamma", 0.5, "--plan")
    assert "focal_gamma 0.5" in " ".join(again.out.split())


@pytest.mark.parametrize("gamma", ["-1", "many"])
def test_a_gamma_that_is_none_is_refused(gamma: str, zoo: Callable, in_folder: Path) -> None:
    assert zoo("train", "tiny", "--focal-gamma", gamma).code == 2
    assert list(in_folder.iterdir()) == []


@pytest.mark.parametrize(
    ("loss", "chance"), [("cross_entropy", (2 / 3) ** 2 * math.log(3)), ("bce", 3 * math.log(2) / 4)]
)
def test_the_first_step_is_judged_by_the_focal_losses_own_chance(loss: LossName, chance: float) -> None:
    row = find_variant("tiny")
    recipe = replace(find_recipe("folder", row), loss=loss, focal_gamma=2.0)
    settings = Settings(device=torch.device("cpu"), precision="fp32", seed=0, workers=0)
    job = noise_job(row, recipe, settings, 3)
    run = start_run(job)
    enter_stage(run, recipe.stages[0], settings)
    pictures = torch.randint(0, 256, (6, 32, 32, 3), dtype=torch.uint8)
    batch = Batch(pictures, torch.arange(6) % 3, (), torch.arange(6))
    loss_sum, _, count = train_step(run, job, recipe.stages[0], [batch], np.random.default_rng(0))
    assert run.first_loss is not None
    assert loss_sum.item() / count == pytest.approx(chance, rel=0.02)
    assert run.first_loss[1].item() == pytest.approx(chance, rel=0.02)
