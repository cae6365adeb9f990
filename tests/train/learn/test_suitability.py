"""What a head start shows of the pictures: if mirror images and smaller ones are of use, and what a run makes of it."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from train.learn.detail import loses_detail
from train.learn.job import make_job
from train.learn.suitability import is_clear_fall, is_clear_loss
from train.options import TrainOptions
from train.processes.distributed import ALONE
from train.progressive.budget import Pace
from train.progressive.overrides import choose_recipe
from train.progressive.recipe import Recipe
from train.session import Outcome, train_model
from zoo.model.variants import find_variant
from zoo.weights.checkpoint import load_checkpoint

Pixels = NDArray[np.uint8]
PACE = Pace(train_s=0.001, train_s_per_px=0, validate_s=0.001, validate_s_per_px=0)


@pytest.mark.parametrize(
    ("lost", "gained", "pictures", "clear"),
    [(9, 0, 125, True), (8, 0, 125, False), (30, 15, 200, False), (150, 0, 10_000, False), (250, 40, 10_000, True)],
)
def test_right_answers_are_lost_beyond_chance_and_trifles(lost: int, gained: int, pictures: int, clear: bool) -> None:
    assert is_clear_loss(lost, gained, pictures) is clear


def test_a_fall_of_few_pictures_may_be_chance() -> None:
    assert is_clear_fall(0.9, 0.2, 18) and not is_clear_fall(0.6, 0.3, 18)
    assert is_clear_fall(0.6, 0.57, 10_000) and not is_clear_fall(0.6, 0.59, 100_000)


def ramps(number: int, rng: np.random.Generator) -> Pixels:
    """Brighter to the right, or to the left: a mirror image is of the other class."""
    ramp = np.linspace(20, 235, 32)[:: 1 if number % 2 else -1]
    return noisy(np.broadcast_to(ramp[None, :, None], (32, 32, 3)), rng)


def shades(number: int, rng: np.random.Generator) -> Pixels:
    """Bright or dark, mirrored or not."""
    return noisy(np.full((32, 32, 3), 190.0 if number % 2 else 60.0), rng)


def stripes(number: int, rng: np.random.Generator) -> Pixels:
    """Lines of one pixel, across or down, that fade towards the edges: grey, at a quarter of the size."""
    window = np.sin(np.linspace(0, np.pi, 64)) ** 2
    lines = np.where(np.arange(64) % 2, 100.0, -100.0) * window
    pattern = np.outer(lines, window) if number % 2 else np.outer(window, lines)
    return noisy(128 + np.repeat(pattern[..., None], 3, 2), rng)


def noisy(pixels: NDArray[Any], rng: np.random.Generator) -> Pixels:
    return np.clip(pixels + rng.normal(0, 12, pixels.shape), 0, 255).astype(np.uint8)


def write_set(path: Path, draw: Callable[[int, np.random.Generator], Pixels], count: int = 120) -> Path:
    rng = np.random.default_rng(0)
    pictures = np.stack([draw(number, rng) for number in range(count + 30)])
    labels = np.arange(len(pictures)) % 2
    parts = {"x_train": pictures[:count], "y_train": labels[:count], "x_test": pictures[count:]}
    np.savez(path, **parts, y_test=labels[count:])
    return path


def fine_tuned(weights: Path, data: Path, folder: Path, *overrides: str, **changes: Any) -> Outcome:
    options = {"epochs": 2, "image_size": 32, "workers": 0, "device": "cpu", "recipe": "finetune", **changes}
    return train_model(TrainOptions(model=str(weights), data=str(data), out=folder, overrides=overrides, **options))


def mirrors_used(folder: Path) -> bool:
    _, card = load_checkpoint(folder / "checkpoint.safetensors")
    return bool(card.provenance["flip_keeps_class"])


def test_mirror_images_of_another_class_are_left_out(tiny_run: Path, tmp_path: Path, killed_after: Callable) -> None:
    data = write_set(tmp_path / "ramps.npz", ramps)
    outcome = fine_tuned(tiny_run, data, tmp_path / "auto")
    assert outcome.head_start is not None and not outcome.head_start.mirrors
    assert not mirrors_used(tmp_path / "auto")
    assert "Mirror images are of another class here" in (tmp_path / "auto" / "report.html").read_text()
    with killed_after(1):
        fine_tuned(tiny_run, data, tmp_path / "again", save_every_s=0)
    fine_tuned(tiny_run, data, tmp_path / "again", resume=True)
    whole, resumed = ((tmp_path / name / "metrics.jsonl").read_text().splitlines() for name in ("auto", "again"))
    assert [json.loads(line)["train_loss"] for line in whole] == [json.loads(line)["train_loss"] for line in resumed]
    assert not mirrors_used(tmp_path / "again")


@pytest.mark.parametrize(
    ("draw", "setting", "used"), [(shades, "auto", True), (ramps, "always", True), (shades, "never", False)]
)
def test_mirror_images_are_used_where_they_are_of_use_or_as_told(
    draw: Callable, setting: str, used: bool, tiny_run: Path, tmp_path: Path
) -> None:
    outcome = fine_tuned(
        tiny_run, write_set(tmp_path / "set.npz", draw), tmp_path / "run", f"mirror={setting}", epochs=1
    )
    assert outcome.head_start is not None and outcome.head_start.mirrors
    assert mirrors_used(tmp_path / "run") is used


def test_a_run_has_one_size_where_smaller_pictures_are_answered_wrong(
    tiny_run: Path, picture_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import train.learn.head_start as head_start

    validate = head_start.validate_together

    def judge(model: Any, pictures: Any, preprocessing: Any, *rest: Any) -> Any:
        return replace(
            validate(model, pictures, preprocessing, *rest), top1=0.95 if preprocessing.image_size > 30 else 0.1
        )

    monkeypatch.setattr(head_start, "validate_together", judge)
    asked = {"epochs": 4, "batch_size": 12}
    sizes = {}
    for setting in ("auto", "always"):
        outcome = fine_tuned(tiny_run, picture_folder, tmp_path / setting, f"grow={setting}", **asked)
        _, card = load_checkpoint(outcome.checkpoint)
        planned = [stage["image_size"] for stage in card.recipe["stages"]]
        sizes[setting] = planned, [line.image_size for line in outcome.history]
    assert sizes == {"auto": ([32, 32], [32] * 4), "always": ([26, 32], [26, 26, 32, 32])}
    given = TrainOptions(model="tiny", recipe="finetune", epochs=4, overrides=("stages.1.image_size=16",))
    assert choose_recipe(given, find_variant("tiny")).grow == "always"


@pytest.mark.parametrize(("draw", "lost"), [(stripes, True), (shades, False)])
def test_features_of_both_sizes_tell_whether_small_pictures_lose_detail(
    draw: Callable, lost: bool, tiny_run: Path, tmp_path: Path
) -> None:
    data = write_set(tmp_path / "set.npz", draw)

    def recipe(size: int) -> Recipe:
        told = TrainOptions(model="tiny", recipe="finetune", epochs=1, image_size=size)
        return replace(choose_recipe(told, find_variant("tiny")), test_size=size)

    options = TrainOptions(model=str(tiny_run), data=str(data), workers=0, device="cpu")
    job = make_job(options, ALONE, recipe(64), None, None, None)
    assert loses_detail(job, recipe(16), PACE, seconds=10) is lost
    assert not loses_detail(job, recipe(16), PACE, seconds=1)  # a tenth of it is 50 pictures of both
