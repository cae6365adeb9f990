"""Every recipe file against the tables it is of, and against what a recipe must be."""

from __future__ import annotations

import math
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

import train.recipes
from train.options import TrainOptions
from train.progressive.overrides import choose_recipe
from train.progressive.recipe import Recipe, Situation, TrainingStage, check_recipe, find_recipe, recipe_names
from train.progressive.schedule import batch_factor, learning_rate
from zoo.errors import UnknownNameError, ZooError
from zoo.model.variants import find_variant

S = find_variant("s")
FOLDER = Path(train.recipes.__path__[0])
OWN_NETWORKS = {
    "s_imagenet": "s",
    "m_imagenet": "m",
    "l_imagenet": "l",
    "s_automl": "s",
    "m_automl": "m",
    "l_automl": "l",
    "b_imagenet": "b2",
}


def resolve(name: str) -> Recipe:
    return find_recipe(name, find_variant(OWN_NETWORKS.get(name, "s")))


def column(recipe: Recipe, setting: str) -> list[float]:
    return [getattr(stage, setting) for stage in recipe.stages]


@pytest.mark.parametrize("name", recipe_names())
def test_every_recipe_resolves_to_one_that_can_run(name: str) -> None:
    model = find_variant(OWN_NETWORKS.get(name, "s"))
    recipe = resolve(name)
    assert recipe.name == name
    assert check_recipe(recipe, model) is recipe


@pytest.mark.parametrize("name", sorted(set(recipe_names()) - set(OWN_NETWORKS)))
@pytest.mark.parametrize("model", ["tiny", "resnet50", "lite0", "xl"])
def test_the_others_take_every_network(name: str, model: str) -> None:
    variant = find_variant(model)
    check_recipe(find_recipe(name, variant), variant)


@pytest.mark.parametrize("name", recipe_names())
def test_every_header_says_how_it_was_made(name: str) -> None:
    header = (FOLDER / f"{name}.py").read_text().split('"""')[1]
    for line in ("Source", "Command", "Hardware", "Wall time", "Result"):
        assert f"\n{line}  " in header, line


# facts: V2 Table 6, sizes rounded from 128 + (last − 128) · s / 3.
@pytest.mark.parametrize(
    ("name", "sizes", "randaugment", "mixup", "dropout"),
    [
        ("s_imagenet", [128, 185, 243, 300], (5, 15), 0.0, (0.1, 0.3)),
        ("m_imagenet", [128, 212, 296, 380], (5, 20), 0.2, (0.1, 0.4)),
        ("l_imagenet", [128, 212, 296, 380], (5, 25), 0.4, (0.1, 0.5)),
    ],
)
def test_paper_recipes_are_table_6(
    name: str, sizes: list[int], randaugment: tuple[int, int], mixup: float, dropout: tuple[float, float]
) -> None:
    recipe = resolve(name)
    assert column(recipe, "image_size") == sizes
    assert column(recipe, "randaugment_magnitude")[:: len(sizes) - 1] == list(randaugment)
    assert column(recipe, "mixup_alpha")[:: len(sizes) - 1] == [0.0, mixup]
    assert column(recipe, "dropout")[:: len(sizes) - 1] == list(dropout)
    assert column(recipe, "cutmix_alpha") == [0.0] * 4
    assert column(recipe, "epochs") == [87, 88, 87, 88]


# facts: google/automl effnetv2_configs.py and main.py; the lists are linspace(5 or 0, last, 4).
@pytest.mark.parametrize(
    ("name", "sizes", "randaugment", "mixup", "dropout"),
    [
        ("s_automl", [171, 214, 257, 300], [5, 6.6667, 8.3333, 10], [0, 0, 0, 0], 0.2),
        ("m_automl", [192, 256, 320, 384], [5, 8.3333, 11.6667, 15], [0, 0.0667, 0.1333, 0.2], 0.3),
        ("l_automl", [192, 256, 320, 384], [5, 10, 15, 20], [0, 0.1667, 0.3333, 0.5], 0.4),
    ],
)
def test_automl_recipes_are_the_codes(
    name: str, sizes: list[int], randaugment: list[float], mixup: list[float], dropout: float
) -> None:
    recipe = resolve(name)
    assert column(recipe, "image_size") == sizes
    assert column(recipe, "randaugment_magnitude") == pytest.approx(randaugment)
    assert column(recipe, "mixup_alpha") == column(recipe, "cutmix_alpha") == pytest.approx(mixup)
    assert column(recipe, "dropout") == [dropout] * 4


@pytest.mark.parametrize(
    ("model", "sizes"),
    [
        ("b0", [144, 160, 176, 192]),
        ("b1", [144, 160, 176, 192]),
        ("b2", [148, 168, 188, 208]),
        ("b3", [156, 184, 212, 240]),
    ],
)
def test_b_recipes_have_the_codes_sizes_and_test_crop(model: str, sizes: list[int]) -> None:
    variant = find_variant(model)
    recipe = find_recipe("b_imagenet", variant)
    assert column(recipe, "image_size") == sizes
    assert sizes == [  # the code's own formula
        int(base + (variant.train_size - base) * (stage + 1) / 4) for base in (128,) for stage in range(4)
    ]
    assert (recipe.test_size, recipe.test_resize, recipe.test_crop_margin) == (variant.eval_size, "crop", 32)


def test_imagenet_recipes_train_as_hparams_says() -> None:
    """Rate 0.256 at 4096, × 0.97 every 2.4 epochs from step 0, after 5 epochs of warm-up (facts §3.3)."""
    recipe = resolve("s_imagenet")
    assert recipe.optimizer == "rmsprop"
    assert (recipe.rmsprop_decay, recipe.momentum, recipe.eps, recipe.weight_decay) == (0.9, 0.9, 1e-3, 1e-5)
    assert learning_rate(recipe, 2.5, 4096) == pytest.approx(0.128)
    assert learning_rate(recipe, 5, 4096) == pytest.approx(0.256 * 0.97**2)


def test_21k_and_fine_tuning_train_as_hparams_says() -> None:
    large, small = resolve("pretrain_21k"), resolve("finetune_1k")
    assert learning_rate(large, 1, 4096) == pytest.approx(0.008 * 4096 / 256)
    assert (large.epochs, large.label_smoothing, large.stages[0].stochastic_depth_prob) == (60, 0.0, 0.0)
    assert learning_rate(small, 1, 512) == learning_rate(small, 15, 512) == pytest.approx(0.001)
    assert (small.stages[0].image_size, small.ema_decay) == (384, 0.9996)
    assert find_recipe("finetune_1k", find_variant("b2")).stages[0].image_size == 256  # 260 floored to 16


def test_controls_change_nothing_but_the_stages() -> None:
    base = resolve("folder")
    for name in ("fixed", "progressive_resize", "random_resize", "random_resize_adaptive"):
        recipe = resolve(name)
        assert replace(recipe, name=base.name, source=base.source, stages=base.stages) == base
        assert recipe.epochs == base.epochs
    assert column(resolve("progressive_resize"), "image_size") == column(base, "image_size")
    assert set(column(resolve("progressive_resize"), "dropout")) == {base.stages[-1].dropout}
    assert resolve("fixed").stages == (replace(base.stages[-1], epochs=base.epochs),)


def test_from_weights_a_control_is_that_of_the_default_recipe() -> None:
    lite0 = find_variant("lite0")
    situation = Situation(variant=lite0, weights=True, pictures=1000, classes=10)
    base = find_recipe("finetune", lite0, situation)
    fixed, rising = (find_recipe(name, lite0, situation) for name in ("fixed", "progressive_resize"))
    assert fixed.stages == (replace(base.stages[-1], epochs=base.epochs),)
    assert column(rising, "image_size") == column(base, "image_size")
    assert set(column(rising, "dropout")) == {base.stages[-1].dropout} != set(column(base, "dropout"))
    assert all(control.head_start for control in (fixed, rising))


@pytest.mark.parametrize("name", ["fixed", "progressive_resize", "random_resize", "random_resize_adaptive"])
def test_a_control_of_a_single_epoch_can_be_run(name: str) -> None:
    recipe = find_recipe(name, S, Situation(variant=S, epochs=1))
    assert recipe.epochs == 1
    assert recipe.stages[0].dropout == find_recipe("folder", S, Situation(variant=S, epochs=1)).stages[-1].dropout


def test_random_sizes_are_drawn_every_eight_epochs_and_adapted_to() -> None:
    drawn, adapted = resolve("random_resize"), resolve("random_resize_adaptive")
    assert column(drawn, "epochs") == [8] * 7 + [4]
    sizes = column(drawn, "image_size")
    assert sizes != sorted(sizes)
    assert len(set(sizes)) > 4
    assert all(128 <= size <= 300 for size in sizes)
    assert column(adapted, "image_size") == sizes
    by_size = sorted(zip(sizes, column(adapted, "dropout"), strict=True))
    assert [dropout for _, dropout in by_size] == sorted(dropout for _, dropout in by_size)
    assert len({dropout for _, dropout in by_size}) > 4


def test_a_recipe_of_one_network_says_so() -> None:
    with pytest.raises(ZooError, match=r"m_imagenet is for m, not for s.*--recipe s_automl, s_imagenet"):
        find_recipe("m_imagenet", S)
    with pytest.raises(ZooError, match=r"b_imagenet is for b0, b1, b2, b3, not for lite0.*folder takes any"):
        find_recipe("b_imagenet", find_variant("lite0"))


def test_an_unknown_name_lists_them_all() -> None:
    with pytest.raises(UnknownNameError) as error:
        find_recipe("imagenet_s", S)
    assert all(name in error.value.hint for name in recipe_names())


@given(st.sampled_from(recipe_names()), st.integers(1, 700))
def test_fewer_epochs_keep_the_proportions(name: str, epochs: int) -> None:
    recipe, options = resolve(name), TrainOptions(model="s", epochs=epochs)
    if epochs < len(recipe.stages):
        with pytest.raises(ZooError, match="one epoch for each"):
            choose_recipe(options, S, recipe)
        return
    changed = choose_recipe(options, S, recipe)
    assert changed.epochs == epochs
    assert min(column(changed, "epochs")) >= 1
    for before, after in zip(recipe.stages, changed.stages, strict=True):
        exact = before.epochs * epochs / recipe.epochs
        assert after.epochs <= max(exact + 1, 1) or exact < len(recipe.stages)


def test_the_learning_rate_follows_the_batch_by_a_named_rule() -> None:
    recipe = replace(resolve("folder"), reference_batch_size=64)
    factors = {rule: batch_factor(replace(recipe, lr_scaling=rule), 256) for rule in ("none", "linear", "sqrt")}
    assert factors == {"none": 1.0, "linear": 4.0, "sqrt": 2.0}


def test_a_constant_schedule_stays() -> None:
    recipe = replace(resolve("folder"), schedule="constant")
    assert {learning_rate(recipe, epoch) for epoch in (recipe.warmup_epochs, 30, 60)} == {recipe.learning_rate}


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"batch_size": 10, "accumulate": 4}, "not 4 equal parts"),
        ({"batch_size": 4, "accumulate": 4}, "batch norm needs two"),
        ({"image_size": 481}, "image_size 481 is above 480 px"),
    ],
)
def test_a_stage_that_cannot_be_is_refused_by_number(changes: dict[str, float], message: str) -> None:
    recipe = resolve("folder")
    stages = (*recipe.stages[:2], replace(recipe.stages[2], **changes), recipe.stages[3])
    with pytest.raises(ZooError, match=f"Stage 3 .*{message}"):
        check_recipe(replace(recipe, stages=stages), S)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"dropout": 1.0}, "dropout is 1; expected a number from 0 below 1"),
        ({"image_size": 3}, "image_size is 3; expected a whole number from 4"),
        ({"epochs": 0}, "epochs is 0; expected a whole number of at least 1"),
        ({"random_erasing_prob": 1.5}, "random_erasing_prob is 1.5; expected a number from 0 to 1"),
        ({"mixup_alpha": -0.1}, "mixup_alpha is -0.1; expected a number of at least 0"),
        ({"mixup_alpha": math.nan}, "mixup_alpha is nan; expected a number of at least 0"),
    ],
)
def test_a_stage_with_a_value_out_of_range_cannot_be_made(changes: dict[str, float], message: str) -> None:
    with pytest.raises(ZooError, match=message):
        replace(resolve("folder").stages[2], **changes)


def test_a_part_is_what_is_in_memory_at_once() -> None:
    stage: TrainingStage = replace(resolve("folder").stages[0], batch_size=96, accumulate=4)
    assert stage.part_size == 24
