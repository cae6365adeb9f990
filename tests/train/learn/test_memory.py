"""The dry run, on devices that are made up."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

import train.learn.memory
from train.learn.job import Job
from train.learn.memory import choose_accumulation, fit_to_memory, largest_part, smallest_parts
from train.learn.throughput import noise_job
from train.options import TrainOptions
from train.progressive.recipe import Recipe, TrainingStage, find_recipe
from train.session import train_model
from train.settings import Settings
from zoo.errors import ZooError
from zoo.model.spec import Variant
from zoo.model.variants import find_variant

S = find_variant("s")
TINY = find_variant("tiny")


class Device:
    """Holds so many million input pixels, and remembers what was tried."""

    def __init__(self, pixels: float) -> None:
        self.pixels = pixels
        self.tried: list[tuple[int, int]] = []

    def __call__(self, stage: TrainingStage) -> bool:
        self.tried.append((stage.image_size, stage.part_size))
        return stage.part_size * stage.image_size**2 <= self.pixels


def imagenet() -> Recipe:
    return find_recipe("s_imagenet", S)


def test_what_fits_is_tried_once_and_left_alone() -> None:
    device = Device(1e12)
    assert choose_accumulation(imagenet(), device, auto_batch=False) == imagenet()
    assert device.tried == [(300, 4096)]  # the smaller stages of the same batch need not be


def test_a_run_that_would_end_at_its_last_stage_is_stopped_before_its_first() -> None:
    with pytest.raises(ZooError) as error:
        choose_accumulation(imagenet(), Device(250e6), auto_batch=False)  # 243 px: 242 M, 300 px: 369 M
    assert "stage 4 (300 px, 4096 pictures at once) does not fit" in error.value.problem
    assert "--set stages.4.accumulate=2 does; --auto-batch takes it." in error.value.hint
    assert "stages.3" not in error.value.hint


def test_auto_batch_takes_what_it_proposes_and_keeps_the_batch() -> None:
    device = Device(20e6)
    fitted = choose_accumulation(imagenet(), device, auto_batch=True)
    assert [stage.batch_size for stage in fitted.stages] == [4096] * 4
    for before, after in zip(imagenet().stages, fitted.stages, strict=True):
        assert after.part_size * after.image_size**2 <= 20e6
        assert 2 * after.part_size * after.image_size**2 > 20e6  # the next smaller divisor of 4096 would not do
        assert replace(after, accumulate=1) == before
    assert len(device.tried) < 60


@given(st.integers(2, 5000), st.integers(1, 5000))
def test_bisection_finds_the_largest_part(batch: int, capacity: int) -> None:
    stage = replace(imagenet().stages[0], batch_size=batch)
    tried: list[int] = []

    def attempt(stage: TrainingStage) -> bool:
        tried.append(stage.part_size)
        return stage.part_size <= capacity

    assert largest_part(stage, attempt) == max(1, min(capacity, batch - 1))
    assert len(tried) <= 13  # log2 of 5000


def test_two_pictures_that_do_not_fit_are_no_matter_of_batches() -> None:
    with pytest.raises(ZooError, match="not even two pictures of 300 px"):
        choose_accumulation(imagenet(), Device(1000), auto_batch=True)


def test_a_batch_without_parts_that_fit_is_said_so() -> None:
    stage = replace(imagenet().stages[3], batch_size=31)
    with pytest.raises(ZooError, match=r"20 pictures fit at once, and the batch of 31.*batch_size=20"):
        choose_accumulation(replace(imagenet(), stages=(stage,)), Device(20 * 300**2), auto_batch=True)


def test_a_frozen_stage_says_nothing_about_one_that_is_not() -> None:
    recipe = find_recipe("finetune", S)
    same = tuple(replace(stage, batch_size=8, image_size=64) for stage in recipe.stages)
    same = (replace(same[0], freeze_backbone=True), *same)
    device = Device(1e9)
    choose_accumulation(replace(recipe, stages=same), device, auto_batch=False)
    assert len(device.tried) == 2


def test_processes_agree_on_the_parts_of_the_one_with_least_memory() -> None:
    fitted = [choose_accumulation(imagenet(), Device(pixels), auto_batch=True) for pixels in (80e6, 20e6, 40e6)]
    assert len({recipe.stages[0].accumulate for recipe in fitted}) == 3
    assert smallest_parts(fitted) == fitted[1]
    first, last = (replace(imagenet().stages[0], accumulate=parts) for parts in (1, 2))
    mixed = [replace(imagenet(), stages=stages) for stages in ((first, last), (last, first))]
    assert [stage.accumulate for stage in smallest_parts(mixed).stages] == [2, 2]


@pytest.fixture
def out_of_memory_above(monkeypatch: pytest.MonkeyPatch) -> None:
    """A device whose memory ends at 4 pictures of 24 px."""
    step = train.learn.memory.train_step

    def limited(run, job, stage, *rest, **options):  # type: ignore[no-untyped-def]
        if stage.part_size * stage.image_size**2 > 4 * 24**2:
            raise torch.OutOfMemoryError("made up")
        return step(run, job, stage, *rest, **options)

    monkeypatch.setattr("train.learn.memory.train_step", limited)


SETTINGS = Settings(device=torch.device("cpu"), precision="fp32", seed=0, workers=0)


def small_recipe() -> Recipe:
    recipe = find_recipe("folder", TINY)
    small = tuple(replace(s, image_size=24, batch_size=8, epochs=1) for s in recipe.stages)
    return replace(recipe, stages=small, warmup_epochs=1)


def a_job(recipe: Recipe, variant: Variant = TINY, settings: Settings = SETTINGS) -> Job:
    return noise_job(variant, recipe, settings, 3)


@pytest.mark.usefixtures("out_of_memory_above")
def test_real_steps_are_tried_and_an_out_of_memory_error_is_an_answer() -> None:
    fitted = fit_to_memory(a_job(small_recipe()), auto_batch=True)
    assert [stage.accumulate for stage in fitted.stages] == [2, 2, 2, 2]
    with pytest.raises(ZooError, match="would end without memory"):
        fit_to_memory(a_job(small_recipe()), auto_batch=False)


@pytest.mark.usefixtures("out_of_memory_above")
def test_the_dry_run_leaves_no_trace_in_the_run(picture_folder: Path, tmp_path: Path) -> None:
    """With and without it, the same weights: it has a network of its own."""
    from safetensors.torch import load_file

    options = TrainOptions(model="tiny", data=str(picture_folder), device="cpu", workers=0)
    fitted = replace(small_recipe(), stages=tuple(replace(stage, accumulate=2) for stage in small_recipe().stages))
    train_model(replace(options, out=tmp_path / "a"), recipe=fitted)
    tried = fit_to_memory(a_job(small_recipe()), auto_batch=True)
    assert tried == fitted
    train_model(replace(options, out=tmp_path / "b"), recipe=tried)
    a, b = (load_file(tmp_path / name / "checkpoint.safetensors") for name in "ab")
    assert all(torch.equal(a[key], b[key]) for key in a)


@pytest.mark.gpu
def test_a_gpu_that_is_too_small_is_known_beforehand() -> None:
    if not torch.cuda.is_available():
        pytest.skip("no NVIDIA GPU; the made-up devices above run everywhere")
    settings = replace(SETTINGS, device=torch.device("cuda"))
    recipe = find_recipe("finetune_1k", S)
    huge = replace(recipe, stages=(replace(recipe.stages[0], batch_size=65536, image_size=480),))
    fitted = fit_to_memory(a_job(huge, S, settings), auto_batch=True)
    assert fitted.stages[0].accumulate > 1
