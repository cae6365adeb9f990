"""The schedules against the paper's tables and against properties they must have."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from train.options import TrainOptions
from train.progressive import recipe as recipes
from train.progressive.overrides import choose_recipe
from train.progressive.recipe import Recipe, find_recipe, larger_by
from train.progressive.schedule import ema_decay, interpolate, learning_rate, progressive_stages, stage_of_epoch
from train.recipes.folder import first_size
from zoo.errors import UnknownNameError, ZooError
from zoo.model.variants import find_variant

S = find_variant("s")


def paper_s(epochs: int = 350) -> Recipe:
    """Table 6's column S with the code's learning rate."""
    stages = progressive_stages(
        epochs=epochs,
        image_size=(128, 300),
        randaugment_magnitude=(5, 15),
        mixup_alpha=(0, 0),
        dropout=(0.1, 0.3),
        batch_size=(4096,) * 4,
    )
    return Recipe(
        name="paper",
        source="test",
        stages=stages,
        test_size=384,
        learning_rate=0.256,
        schedule="exponential",
        warmup_epochs=5,
    )


def test_algorithm_1_gives_the_papers_stages() -> None:
    stages = paper_s().stages
    assert [stage.image_size for stage in stages] == [128, 185, 243, 300]  # facts §3.2: 128, 185.3, 242.7, 300
    assert [stage.randaugment_magnitude for stage in stages] == pytest.approx([5, 8.3333, 11.6667, 15])
    assert [stage.dropout for stage in stages] == pytest.approx([0.1, 0.1667, 0.2333, 0.3])
    assert [stage.epochs for stage in stages] == [87, 88, 87, 88]  # TF2 boundaries 0-87-175-262-350


@given(st.integers(1, 8), st.integers(8, 400), st.integers(16, 300), st.integers(0, 300))
def test_size_and_regularisation_never_fall(count: int, epochs: int, first: int, more: int) -> None:
    stages = progressive_stages(
        epochs=epochs,
        image_size=(first, first + more),
        randaugment_magnitude=(5, 15),
        mixup_alpha=(0, 0.5),
        dropout=(0.1, 0.5),
        batch_size=(32,) * count,
    )
    assert sum(stage.epochs for stage in stages) == epochs
    assert max(stage.epochs for stage in stages) - min(stage.epochs for stage in stages) <= 1
    assert stages[-1].image_size == first + more
    for name in ("image_size", "randaugment_magnitude", "mixup_alpha", "dropout"):
        values = [getattr(stage, name) for stage in stages]
        assert values == sorted(values)


def test_one_stage_gets_the_final_values() -> None:
    assert interpolate(5, 15, 0, 1) == 15


@given(st.lists(st.integers(1, 9), min_size=1, max_size=6))
def test_every_epoch_has_its_stage(lengths: list[int]) -> None:
    stages = [replace(paper_s().stages[0], epochs=length) for length in lengths]
    found = [stage_of_epoch(stages, epoch) for epoch in range(sum(lengths))]
    assert found == [index for index, length in enumerate(lengths) for _ in range(length)]


def test_exponential_schedule_is_the_paper_codes() -> None:
    recipe = paper_s()
    assert learning_rate(recipe, 2.5) == pytest.approx(0.128)
    assert learning_rate(recipe, 5) == pytest.approx(0.256 * 0.97**2)
    assert learning_rate(recipe, 7.2) == pytest.approx(0.256 * 0.97**3)


@given(st.floats(0, 350))
def test_cosine_schedule_stays_within_its_bounds(progress: float) -> None:
    recipe = replace(paper_s(), schedule="cosine")
    assert 0 <= learning_rate(recipe, progress) <= recipe.learning_rate
    assert learning_rate(recipe, 5) == pytest.approx(recipe.learning_rate)
    assert learning_rate(recipe, 350) == pytest.approx(0, abs=1e-12)


def test_ema_decay_warms_up() -> None:
    assert ema_decay(0.9999, 0) == pytest.approx(0.1)
    assert ema_decay(0.9999, 90) == pytest.approx(0.91)
    assert ema_decay(0.9, 10_000) == 0.9


@pytest.mark.parametrize("name", ["digits", "folder"])
@pytest.mark.parametrize("model", ["s", "lite0", "tiny"])
def test_recipes_have_four_rising_stages(name: str, model: str) -> None:
    variant = find_variant(model)
    recipe = find_recipe(name, variant)
    assert len(recipe.stages) == 4
    for setting in ("image_size", "randaugment_magnitude", "mixup_alpha", "dropout"):
        values = [getattr(stage, setting) for stage in recipe.stages]
        assert values == sorted(values)
        assert values[0] < values[-1]
    assert 1.0 <= recipe.test_size / recipe.stages[-1].image_size <= 1.3
    assert recipe.test_size <= variant.max_size


def test_folder_recipe_of_s_is_table_6() -> None:
    recipe = find_recipe("folder", S)
    assert [stage.image_size for stage in recipe.stages] == [128, 184, 240, 300]
    assert recipe.test_size == 340


def test_pictures_are_tested_larger_by_whole_strides() -> None:
    assert [larger_by(size, 1.135) for size in (300, 192, 96, 32)] == [340, 216, 104, 32]
    assert [larger_by(size, 1.0) for size in (300, 17)] == [300, 17]
    for model in ("s", "b0", "tiny"):
        recipe = find_recipe("folder", find_variant(model))
        tested = [recipes.tested_size(recipe, stage) for stage in recipe.stages]
        assert all((size - stage.image_size) % 8 == 0 for size, stage in zip(tested, recipe.stages, strict=True))
        assert tested == sorted(tested)
        assert tested[-1] == recipe.test_size


@pytest.mark.parametrize(("last", "first"), [(300, 128), (128, 55), (96, 48), (64, 48), (32, 24)])
def test_no_stage_of_folder_begins_where_nothing_can_be_seen(last: int, first: int) -> None:
    assert first_size(last) == first


def test_unknown_recipe_names_the_nearest() -> None:
    with pytest.raises(UnknownNameError, match="Did you mean digits"):
        find_recipe("digit", S)


def options(**changes: Any) -> TrainOptions:
    return TrainOptions(**{"model": "s", "recipe": "folder"} | changes)


def test_overrides_keep_the_proportions() -> None:
    changed = choose_recipe(options(epochs=8, batch_size=4, learning_rate=0.5, image_size=150), S)
    assert [stage.epochs for stage in changed.stages] == [2, 2, 2, 2]
    assert [stage.image_size for stage in changed.stages] == [64, 96, 120, 150]
    assert {stage.batch_size for stage in changed.stages} == {4}
    assert (changed.learning_rate, changed.test_size) == (0.5, 166)
    assert changed.warmup_epochs == pytest.approx(0.8)  # a tenth


def test_the_test_size_never_passes_the_cap() -> None:
    assert choose_recipe(options(image_size=450), S).test_size == 480
    with pytest.raises(ZooError, match="outside 16 … 480"):
        choose_recipe(options(image_size=500), S)


def test_fewer_epochs_than_stages_is_refused() -> None:
    with pytest.raises(ZooError, match="less than one epoch for each of the 4 stages"):
        choose_recipe(options(recipe="digits", epochs=3), S)
