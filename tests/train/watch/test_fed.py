"""What the page shows of a network's input is what the loader and the step make; it never ends a run."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from train.input.loader import Augmented
from train.input.order import epoch_batches
from train.learn.job import Job, make_job
from train.processes.distributed import ALONE
from train.watch.fed import CROP_PX, NUM_FED, NUM_STAGES, _marked, fed_pictures, fed_sections, mixed_label
from train.watch.thumbnails import Drawn
from zoo.data.preprocess import crop_box, prepare
from zoo.errors import DataError
from zoo.model.spec import Preprocessing


@pytest.fixture
def job(small: Callable, picture_folder: Path, tmp_path: Path) -> Job:
    """Coloured pictures in four stages, nothing mixed and nothing erased."""
    plain = ("mixup_alpha=0", "cutmix_alpha=0", "random_erasing_prob=0")
    overrides = tuple(f"stages.all.{setting}" for setting in plain)
    options = small(picture_folder, tmp_path / "run", overrides=overrides, recipe="folder")
    return make_job(options, ALONE, None, None, None, None)


def changed(job: Job, **settings: float) -> Job:
    stages = tuple(replace(stage, **settings) for stage in job.recipe.stages)
    return replace(job, recipe=replace(job.recipe, stages=stages))


def test_a_stage_is_shown_as_its_first_step_has_it(job: Job) -> None:
    index = 2
    epoch = sum(stage.epochs for stage in job.recipe.stages[:index])
    stage, seed = job.recipe.stages[index], job.settings.seed
    first = epoch_batches(len(job.train_set), stage, seed=seed, epoch=epoch)[0][:NUM_FED]
    items = Augmented(job.train_set, job.recipe, stage, seed, epoch).__getitems__(first)
    pictures, labels = fed_pictures(job, index)
    assert pictures.shape[1:] == (stage.image_size, stage.image_size, 3)
    for pixels, share, item in zip(pictures, labels, items, strict=True):
        np.testing.assert_array_equal(pixels, item.pixels)
        assert share.argmax() == item.label
        assert share.max() == 1


def test_the_same_seed_shows_the_same_pictures_and_draws_from_no_one_elses_numbers(job: Job) -> None:
    mixed = changed(job, mixup_alpha=0.5, cutmix_alpha=1.0, random_erasing_prob=0.5)
    torch.manual_seed(1)
    before = torch.get_rng_state()
    pictures, labels = fed_pictures(mixed, 1)
    assert torch.equal(torch.get_rng_state(), before)
    again, _ = fed_pictures(mixed, 1)
    np.testing.assert_array_equal(pictures, again)
    assert labels.sum(1) == pytest.approx(1)
    assert (pictures != fed_pictures(job, 1)[0]).any()
    other = replace(mixed, settings=replace(mixed.settings, seed=5))
    assert (pictures != fed_pictures(other, 1)[0]).any()


def test_a_mixed_label_names_every_class_with_a_share() -> None:
    classes = ("cat", "d<o>g", "owl")
    assert mixed_label(np.array([0.3, 0.7, 0.0], np.float32), classes) == (
        'd&lt;o&gt;g <span class="muted">70 %</span> + cat <span class="muted">30 %</span>'
    )
    assert mixed_label(np.array([0, 0, 1], np.float32), classes) == "owl"


def test_stages_are_drawn_once_and_only_those_reached(job: Job) -> None:
    drawn = Drawn()
    page = "".join(fed_sections(job, 2, drawn))
    assert set(drawn.fed) == {0, 1}
    assert page.count("a training picture") == 2 * NUM_FED
    kept = dict(drawn.fed)
    fed_sections(job, 3, drawn)
    assert drawn.fed.items() > kept.items()
    long = replace(job, recipe=replace(job.recipe, stages=job.recipe.stages * 10))
    many = Drawn()
    fed_sections(long, 40, many)
    assert len(many.fed) == NUM_STAGES
    assert {0, 39} <= many.fed.keys()


def test_pictures_that_cannot_be_had_are_said_to_be_missing(job: Job, monkeypatch: pytest.MonkeyPatch) -> None:
    gone = [Path("gone.jpg")] * len(job.train_set)
    without = replace(job, train_set=replace(job.train_set, sources=gone), val_set=replace(job.val_set, sources=gone))
    page = "".join(fed_sections(without, 1, Drawn()))
    assert page.count("None of the pictures chosen can be read.") == 2

    def fails(*_: object) -> None:
        raise DataError("The server <x> is away.")

    monkeypatch.setattr(type(job.train_set), "read", fails)
    page = "".join(fed_sections(job, 1, Drawn()))
    assert "Its pictures cannot be shown: The server &lt;x&gt; is away." in page
    assert "No picture can be shown: The server &lt;x&gt; is away." in page


def test_the_crop_that_is_drawn_is_the_one_the_network_gets(job: Job) -> None:
    preprocessing = Preprocessing(image_size=40, resize="crop", resize_size=50)
    assert crop_box(200, 100, preprocessing) == (60, 10, 140, 90)
    assert crop_box(200, 100, Preprocessing(image_size=40, resize="squash")) == (0, 0, 200, 100)
    image = job.val_set.open(0)
    left, top, right, bottom = (round(side) for side in crop_box(*image.size, preprocessing))
    cut = image.crop((left, top, right, bottom))
    whole = Preprocessing(image_size=40, resize="squash")
    np.testing.assert_allclose(prepare(image, preprocessing), prepare(cut, whole), atol=12)
    text = "".join(fed_sections(replace(job, preprocessing=preprocessing), 1, Drawn()))
    assert "what lies outside the frame is never seen" in text
    squashed = "".join(fed_sections(replace(job, preprocessing=whole), 1, Drawn()))
    assert "nothing is cut off" in squashed


@pytest.mark.parametrize("size", [(2000, 2), (2, 2000), (1, 1)])
def test_the_crop_of_a_very_long_picture_is_drawn(size: tuple[int, int], job: Job) -> None:
    drawn = _marked(Image.new("RGB", size), replace(job, preprocessing=replace(job.preprocessing, resize="crop")))
    assert max(drawn.size) <= CROP_PX
    assert drawn.getpixel((drawn.width // 2, drawn.height // 2)) in {(0, 0, 0), (255, 156, 74)}
