"""Flip and RandAugment on batches are what `train.augment.host` does to one picture after the other.

On x86-64 all of it is equal to the bit. Where Pillow is compiled with fused multiply-add, `color` and interpolated
geometry may cut a fraction off on the other side of a whole level: LEVELS.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from safetensors.torch import load_file
from sklearn.datasets import load_sample_image

from train.augment.device import augment_batch, sort_by_kind
from train.augment.device_geometry import GEOMETRY
from train.augment.host import OPERATIONS, augment, draw_augmentation
from train.augment.strength import SMOOTH_BELOW_PX
from train.input.decoders import load
from train.input.loader import Augmented
from train.input.order import epoch_batches
from train.learn.memory import fits
from train.learn.run import start_run
from train.learn.throughput import noise, noise_job
from train.options import TrainOptions
from train.progressive.overrides import choose_recipe
from train.progressive.recipe import Recipe
from train.session import train_model
from train.settings import Settings, choose_augmentation
from zoo.data.open import open_splits
from zoo.model.variants import find_variant

TINY = find_variant("tiny")
NAMES = tuple(OPERATIONS)
SIZES = (1, 2, 17, 48, 63, 64, 97, 128)
MAGNITUDES = (0.5, 5.0, 10.0, 25.0)
CPU = Settings(device=torch.device("cpu"), precision="fp32", seed=0, workers=0)
# Of one operation, and the share of values that two in a row may put further away (a level before equalize is more
# behind it).
LEVELS, SHARE_AWAY = 1, 1e-3

Pixels = np.ndarray


def photographs(size: int, count: int = 4) -> Pixels:
    """Real pictures, a pale one, a single colour and noise."""
    china, flower = load_sample_image("china.jpg"), load_sample_image("flower.jpg")
    rng = np.random.default_rng(size)
    one, two = (picture[100 : 100 + size, 250 : 250 + size] for picture in (china, flower))
    flat = np.full((size, size, 3), rng.integers(0, 256, 3), np.uint8)
    all_of_them = [one, two, one // 3 + 40, flat, rng.integers(0, 256, (size, size, 3), dtype=np.uint8)]
    return np.stack([all_of_them[index % 5] for index in range(count)]).astype(np.uint8)


def draw(count: int, seed: int, *, magnitude: float = 5.0, layers: int = 2) -> Pixels:
    rng = np.random.default_rng(seed)
    return np.stack([draw_augmentation(rng, flips=True, magnitude=magnitude, num_layers=layers) for _ in range(count)])


def on_batch(pictures: Pixels, draws: Pixels, magnitude: float, device: str = "cpu") -> Pixels:
    batch = torch.from_numpy(pictures).to(device)
    return augment_batch(batch, torch.from_numpy(draws), magnitude).cpu().numpy()


def one_by_one(pictures: Pixels, draws: Pixels, magnitude: float) -> Pixels:
    return np.stack([augment(pixels, own, magnitude) for pixels, own in zip(pictures, draws, strict=True)])


def tolerance(name: str, size: int) -> int:
    interpolated = name in GEOMETRY and size < SMOOTH_BELOW_PX
    return LEVELS if interpolated or name == "color" else 0


def distance(one: Pixels, other: Pixels) -> Pixels:
    return np.abs(one.astype(int) - other)


def assert_nearly_equal(one: Pixels, other: Pixels) -> None:
    assert (distance(one, other) > LEVELS).mean() <= SHARE_AWAY


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("size", SIZES)
def test_every_operation_is_that_of_one_picture(name: str, size: int) -> None:
    drawn = [[flip, NAMES.index(name), sign] for flip in (0, 1) for sign in (1, -1) for _ in range(5)]
    pictures, draws = photographs(size, len(drawn)), np.array(drawn, np.int8)
    for magnitude in MAGNITUDES:
        away = distance(on_batch(pictures, draws, magnitude), one_by_one(pictures, draws, magnitude))
        assert away.max() <= tolerance(name, size)


@given(st.data(), st.integers(1, 80), st.floats(0.1, 30), st.integers(0, 2**32))
def test_any_pictures_and_magnitude_in_one_batch(data: st.DataObject, size: int, magnitude: float, seed: int) -> None:
    """One layer of drawn operations; pixels in a few values only, as where ties are."""
    rng = np.random.default_rng(seed)
    values = np.array(data.draw(st.lists(st.integers(0, 255), min_size=1, max_size=4)), np.uint8)
    pictures, draws = rng.choice(values, (6, size, size, 3)), draw(6, seed, layers=1)
    away = distance(on_batch(pictures, draws, magnitude), one_by_one(pictures, draws, magnitude))
    assert away.max() <= LEVELS


@pytest.mark.parametrize("size", [24, 64, 130])
@pytest.mark.parametrize("magnitude", [5.0, 25.0])
@pytest.mark.parametrize("layers", [0, 2, 3])
def test_batches_are_augmented_as_their_pictures_would_be(size: int, magnitude: float, layers: int) -> None:
    pictures, draws = photographs(size, 70), draw(70, seed=layers, layers=layers)
    before = pictures.copy()
    done = on_batch(pictures, draws, magnitude)
    assert_nearly_equal(done, one_by_one(pictures, draws, magnitude))
    assert (done.shape, done.dtype) == (pictures.shape, np.uint8)
    assert np.array_equal(pictures, before)  # the batch is not written to
    assert not np.array_equal(done, before)


def test_every_operation_is_of_one_kind() -> None:
    operations = np.arange(len(NAMES), dtype=np.int8)
    (order, rows), groups = sort_by_kind(operations, np.ones_like(operations))
    covered = [NAMES[index] for _, first, last in groups for index in order[first:last]]
    assert sorted(covered) == sorted(set(NAMES) - {"identity"})
    for _, first, last in groups:
        assert len(set(rows[first:last].tolist())) == last - first  # each its own parameters


def test_no_step_waits_for_what_is_on_the_device() -> None:
    """Tensors without values: whatever would read one back, or depend on how many there are, fails."""
    for size in (32, 128):
        batch = torch.empty((40, size, size, 3), dtype=torch.uint8, device="meta")
        done = augment_batch(batch, torch.from_numpy(draw(40, seed=1)), 5.0)
        assert (done.shape, done.dtype, done.device.type) == (batch.shape, torch.uint8, "meta")


def small_recipe(data: str, **changes: int | float) -> Recipe:
    sizes = {"epochs": 4, "image_size": 24, "batch_size": 8}
    return choose_recipe(TrainOptions(model="tiny", data=data, **sizes | changes), TINY)


@pytest.mark.parametrize("workers", [0, 2])
def test_the_loader_draws_the_same_wherever_it_is_done(workers: int, picture_folder: Path) -> None:
    train = open_splits(str(picture_folder))[0]
    recipe = small_recipe(str(picture_folder))
    stage = recipe.stages[-1]
    batches = epoch_batches(len(train), stage, seed=3, epoch=2)
    here, later = (
        list(load(Augmented(train, recipe, stage, 3, 2, where), batches, workers=workers, pin=False))
        for where in ("workers", "device")
    )
    changed = 0
    for done, left in zip(here, later, strict=True):
        assert done.draws is None
        assert left.draws is not None
        assert torch.equal(done.labels, left.labels)
        ours = augment_batch(left.pictures, left.draws, stage.randaugment_magnitude)
        assert_nearly_equal(ours.numpy(), done.pictures.numpy())
        changed += not torch.equal(left.pictures, done.pictures)
    assert changed


def test_letters_are_flipped_nowhere() -> None:
    train = open_splits("digits")[0]
    recipe = small_recipe("digits")
    dataset = Augmented(train, recipe, recipe.stages[0], 0, 0, "device")
    drawn = np.stack([item.draws for item in map(dataset.__getitem__, range(40)) if not isinstance(item, str)])
    assert drawn.shape == (40, 1 + 2 * recipe.randaugment_layers)
    assert not drawn[:, 0].any()


def test_a_magnitude_of_zero_leaves_the_flip() -> None:
    drawn = draw(50, seed=0, magnitude=0.0)
    assert drawn.shape == (50, 1)
    pictures = photographs(16, 50)
    done = on_batch(pictures, drawn, 0.0)
    for before, after, (flip,) in zip(pictures, done, drawn, strict=True):
        assert np.array_equal(after, before[:, ::-1] if flip else before)


def test_who_augments_follows_the_device_unless_told() -> None:
    gpu, processor = torch.device("cuda"), torch.device("cpu")
    assert [choose_augmentation("auto", device) for device in (gpu, processor)] == ["device", "workers"]
    assert [choose_augmentation("workers", gpu), choose_augmentation("device", processor)] == ["workers", "device"]


@pytest.fixture(scope="session")
def run(small: Callable, picture_folder: Path) -> Callable[..., dict[str, torch.Tensor]]:
    """The weights of a run augmented by the device or the workers."""

    def train(folder: Path, where: str, *, resume: bool = False) -> dict[str, torch.Tensor]:
        options = small(picture_folder, folder, augment_on=where, resume=resume, save_every_s=0)
        return load_file(train_model(options).checkpoint)

    return train


@pytest.fixture(scope="module")
def device_run(run: Callable, tmp_path_factory: pytest.TempPathFactory) -> dict[str, torch.Tensor]:
    """The weights of a run augmented by the device."""
    return run(tmp_path_factory.mktemp("device") / "run", "device")


def test_a_run_is_the_same_wherever_it_is_augmented(
    run: Callable, device_run: dict[str, torch.Tensor], tmp_path: Path
) -> None:
    torch.testing.assert_close(run(tmp_path / "run", "workers"), device_run, rtol=1e-3, atol=1e-4)


@pytest.mark.parametrize(("first", "tolerance"), [("device", 0.0), ("workers", 1e-3)])
def test_a_killed_run_may_go_on_elsewhere(
    first: str,
    tolerance: float,
    run: Callable,
    device_run: dict[str, torch.Tensor],
    tmp_path: Path,
    killed_after: Callable,
) -> None:
    """Bit-identical where it stays on the device, of which there is a tolerance to the workers."""
    with killed_after(3):
        run(tmp_path / "run", first)
    resumed = run(tmp_path / "run", "device", resume=True)
    torch.testing.assert_close(resumed, device_run, rtol=tolerance, atol=tolerance / 10)


def test_the_command_line_chooses_and_the_report_says_so(zoo: Callable, in_folder: Path, picture_folder: Path) -> None:
    command = ("train", "tiny", "--data", picture_folder, "--epochs", 4, "--image-size", 16, "--batch-size", 8)
    answer = zoo(*command, "--workers", 0, "--device", "cpu", "--augment-on", "device", "--json")
    assert answer.code == 0, answer.err
    assert "by the device" in (in_folder / "runs/tiny/report.html").read_text()


def test_the_training_benchmark_augments_where_it_is_told(zoo: Callable, in_folder: Path) -> None:
    flags = ("--image-size", 16, "--batch-size", 4, "--steps", 3, "--device", "cpu", "-o", "results", "--json")
    for flag, where in (("auto", "workers"), ("device", "device")):
        answer = zoo("bench", "train", "tiny", "--augment-on", flag, *flags)
        assert answer.code == 0, answer.err
        assert json.loads(answer.out)["settings"]["augment_on"] == where


def test_the_dry_run_augments_where_the_run_will() -> None:
    recipe = small_recipe("digits")
    stage = recipe.stages[-1]
    here = noise_job(TINY, recipe, CPU, 3)
    assert noise(here, stage).draws is None
    there = replace(here, settings=replace(CPU, augment_on="device"))
    part = noise(there, stage)
    assert part.draws is not None
    assert part.draws.shape == (stage.part_size, 1 + 2 * recipe.randaugment_layers)
    assert fits(start_run(there), there, stage)


@pytest.mark.gpu
@pytest.mark.parametrize("size", [32, 128, 300])
@pytest.mark.parametrize("magnitude", [5.0, 25.0])
def test_a_gpu_augments_as_a_processor_and_nothing_waits(size: int, magnitude: float) -> None:
    if not torch.cuda.is_available():
        pytest.skip("no NVIDIA GPU; the tests above run everywhere")
    pictures, draws = photographs(size, 64), torch.from_numpy(draw(64, seed=2))
    batch = torch.from_numpy(pictures)
    there = batch.cuda()
    torch.cuda.synchronize()
    torch.cuda.set_sync_debug_mode("error")
    try:
        done = augment_batch(there, draws, magnitude)
    finally:
        torch.cuda.set_sync_debug_mode("default")
    assert_nearly_equal(done.cpu().numpy(), augment_batch(batch, draws, magnitude).numpy())
