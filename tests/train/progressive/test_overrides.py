from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from train.options import TrainOptions
from train.progressive.budget import Amount, Pace
from train.progressive.overrides import apply_overrides, choose_recipe, recipe_for_budget, setting_paths
from train.progressive.recipe import Recipe, find_recipe
from zoo.errors import UnknownNameError, ZooError
from zoo.model.variants import find_variant

S = find_variant("s")
FOLDER = find_recipe("folder", S)


def test_stages_are_numbered_as_the_plan_shows_them() -> None:
    changed = apply_overrides(FOLDER, ["stages.2.image_size=256", "learning_rate=0.01"])
    assert [stage.image_size for stage in changed.stages] == [128, 256, 240, 300]
    assert changed.learning_rate == 0.01
    assert replace(changed, stages=FOLDER.stages, learning_rate=FOLDER.learning_rate) == FOLDER


def test_all_means_every_stage_and_the_last_word_counts() -> None:
    changed = apply_overrides(FOLDER, ["stages.all.accumulate=4", "stages.4.accumulate=8"])
    assert [stage.accumulate for stage in changed.stages] == [4, 4, 4, 8]


@pytest.mark.parametrize(
    ("text", "name", "value"),
    [
        ("optimizer=lamb", "optimizer", "lamb"),
        ("nesterov=false", "nesterov", False),
        ("clip_grad_norm=none", "clip_grad_norm", None),
        ("clip_grad_norm=2", "clip_grad_norm", 2.0),
        ("crop_scale=0.1,1", "crop_scale", (0.1, 1.0)),
        ("crop_scale=(0.1, 1)", "crop_scale", (0.1, 1.0)),
        ("class_weights=balanced", "class_weights", "balanced"),
        ("class_weights=1,2,0.5", "class_weights", (1.0, 2.0, 0.5)),
        ("teacher=runs/m", "teacher", "runs/m"),
        ("randaugment_layers=3", "randaugment_layers", 3),
        ("learning_rate=1e-3", "learning_rate", 0.001),
    ],
)
def test_values_are_read_by_the_type_of_their_field(text: str, name: str, value: object) -> None:
    read = getattr(apply_overrides(FOLDER, [text]), name)
    assert read == value
    assert type(read) is type(value)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("stages.2.image_size=big", "expected a whole number"),
        ("stages.2.image_size=2.5", "expected a whole number"),
        ("learning_rate=fast", "expected a number"),
        ("learning_rate=nan", "expected a number"),
        ("optimizer=adam", "expected adamw, sgd, rmsprop or lamb"),
        ("stages.1.freeze_backbone=maybe", "expected true or false"),
        ("clip_grad_norm=off", "expected a number above 0 or none"),
        ("crop_scale=0.1", "expected two numbers"),
        ("learning_rate", "expected PATH=VALUE"),
    ],
)
def test_a_wrong_value_says_what_was_expected(text: str, message: str) -> None:
    with pytest.raises(ZooError, match=message):
        apply_overrides(FOLDER, [text])


@pytest.mark.parametrize(
    ("text", "near"),
    [
        ("learning_rat=1", "learning_rate"),
        ("stages.2.size=256", "stages.2.image_size"),
        ("stages.0.image_size=256", r"stages.\d.image_size"),
        ("stages.5.image_size=256", r"stages.\d.image_size"),
        ("name=mine", ""),
    ],
)
def test_an_unknown_path_names_the_nearest(text: str, near: str) -> None:
    with pytest.raises(UnknownNameError, match=f"no setting.*{near}"):
        apply_overrides(FOLDER, [text])


def test_every_path_can_be_set_to_what_it_is() -> None:
    for path in setting_paths(FOLDER):
        first, *rest = path.split(".")
        owner = FOLDER.stages[0 if rest[0] == "all" else int(rest[0]) - 1] if rest else FOLDER
        value = getattr(owner, rest[1] if rest else first)
        text = ",".join(map(str, value)) if isinstance(value, tuple) else str(value)
        if rest and rest[0] == "all":
            continue
        assert apply_overrides(FOLDER, [f"{path}={text}"]) == FOLDER


def test_the_command_sets_after_its_flags(zoo: Callable, in_folder: Path) -> None:
    answer = zoo(
        *("train", "s", "--recipe", "folder", "--plan", "--json", "--lr", "0.5", "--image-size", "200"),
        *("--set", "stages.2.image_size=256", "--set", "lr_scaling=sqrt", "--set", "stages.all.accumulate=2"),
    )
    assert answer.code == 0, answer.err
    plan = json.loads(answer.out)
    assert [stage["image_size"] for stage in plan["stages"]] == [88, 256, 160, 200]
    assert {stage["accumulate"] for stage in plan["stages"]} == {2}
    assert (plan["settings"]["learning_rate"], plan["settings"]["lr_scaling"]) == (0.5, "sqrt")


def test_the_plan_shows_what_is_unusual(zoo: Callable, in_folder: Path) -> None:
    usual = zoo("train", "s", "--recipe", "folder", "--plan").out
    for word in ("parts", "erasing", "frozen", "loss bce", "rmsprop"):
        assert word not in usual
    flags = [
        ("stages.4.accumulate", 2),
        ("stages.3.random_erasing_prob", 0.25),
        ("stages.1.freeze_backbone", "true"),
        ("loss", "bce"),
        ("optimizer", "rmsprop"),
        ("lr_scaling", "linear"),
    ]
    answer = zoo("train", "s", "--recipe", "folder", "--plan", *(f"--set={path}={value}" for path, value in flags))
    assert answer.code == 0, answer.err
    for word in ("parts", "erasing", "0.25", "frozen", "backbone", "loss bce", "rmsprop", "linear in the batch"):
        assert word in answer.out


@pytest.mark.parametrize(
    ("setting", "message"),
    [
        ("stages.2.imagesize=256", "Did you mean stages.2.image_size?"),
        ("stages.1.batch_size=lots", "expected a whole number"),
        ("stages.1.accumulate=7", "not 7 equal parts"),
        ("momentum=1", "momentum=1: expected a number from 0 below 1"),
        ("clip_grad_norm=-1", "clip_grad_norm=-1: expected a number above 0 or none"),
        ("clip_grad_norm=0", "clip_grad_norm=0: expected a number above 0"),
        ("betas=0.9,1", "betas=0.9,1: expected two numbers from 0 below 1"),
        ("eps=0", "eps=0: expected a number above 0"),
        ("weight_decay=-0.1", "weight_decay=-0.1: expected a number of at least 0"),
        ("warmup_epochs=-1", "warmup_epochs=-1: expected a number of at least 0"),
        ("crop_scale=1,0.5", "crop_scale=1,0.5: expected two numbers above 0 to 1, the smaller one first"),
        ("crop_scale=0,1", "crop_scale=0,1: expected two numbers above 0"),
        ("crop_ratio=0,1", "crop_ratio=0,1: expected two numbers above 0"),
        ("crop_padding=1", "crop_padding=1: expected a number from 0 below 1"),
        ("decay_epochs=0", "decay_epochs=0: expected a number above 0"),
        ("decay_rate=-1", "decay_rate=-1: expected a number above 0 to 1"),
        ("rmsprop_decay=2", "rmsprop_decay=2: expected a number from 0 below 1"),
        ("random_erasing_scale=0.5,0.1", "the smaller one first"),
        ("random_erasing_ratio=0,0", "expected two numbers above 0"),
        ("warmup_epochs=1000", "warmup_epochs 1000 are more than its 12 epochs"),
        ("stages.all.epochs=0", "stages.all.epochs=0: expected a whole number of at least 1"),
        ("learning_rate=inf", "learning_rate=inf: expected a number above 0"),
        ("randaugment_layers=-1", "randaugment_layers=-1: expected a whole number from 0 to 64"),
    ],
)
def test_wrong_settings_are_one_line_and_train_nothing(
    setting: str, message: str, zoo: Callable, in_folder: Path
) -> None:
    answer = zoo("train", "tiny", "--set", setting)
    assert answer.code == 1
    assert message in answer.err
    assert "Traceback" not in answer.err
    assert list(in_folder.iterdir()) == []


def for_a_time(seconds: float, *overrides: str) -> Recipe:
    """The recipe of so many seconds from nothing, at 1 ms a picture of 72."""
    tiny, amount = find_variant("tiny"), Amount(classes=3, train=72, validate=18)
    options = TrainOptions(model="tiny", data="d", budget=f"{seconds}s", overrides=overrides)
    suited = choose_recipe(options, tiny, counts=(72, 3))
    pace = Pace(train_s=0.001, train_s_per_px=0, validate_s=0.001, validate_s_per_px=0)
    return recipe_for_budget(options, tiny, suited, amount, pace, seconds)


def test_a_stage_that_is_named_is_there_in_any_budget() -> None:
    long, short = (for_a_time(seconds, "stages.4.dropout=0.4", "stages.1.batch_size=2") for seconds in (30, 3.2))
    for recipe in (long, short):
        assert [stage.image_size for stage in recipe.stages] == [24, 24, 32, 32]
        assert recipe.stages[3].dropout == 0.4
        assert [stage.batch_size for stage in recipe.stages] == [2, 16, 16, 16]
    assert (long.epochs, short.epochs) == (6, 4)  # four seconds each; one for each stage
    assert len(for_a_time(3.2).stages) == 1
    with pytest.raises(UnknownNameError, match=r"no setting 'stages\.5\.dropout'.*1 … 4 as --plan shows"):
        for_a_time(30, "stages.5.dropout=0.4")


def weights_for_a_time(seconds: float, *overrides: str) -> Recipe:
    """The recipe of so many seconds from Lite0's weights, at 20 ms a picture of 2,000 at 224 px."""
    lite0, amount = find_variant("lite0"), Amount(classes=3, train=2000, validate=18, features=2000)
    options = TrainOptions(model="lite0.imagenet1k", data="d", budget=f"{seconds}s", overrides=overrides)
    suited = choose_recipe(options, lite0, counts=(2000, 3))
    pace = Pace(train_s=0.005, train_s_per_px=0.015 / 224**2, validate_s=0.001, validate_s_per_px=0.005 / 224**2)
    return recipe_for_budget(options, lite0, suited, amount, pace, seconds)


def test_a_size_that_is_given_leaves_all_sizes_as_they_are_in_a_budget() -> None:
    """The other stages once followed the given one, and all were made smaller for want of time."""
    usual = [stage.image_size for stage in weights_for_a_time(120).stages]
    assert usual == [179, 224] and weights_for_a_time(30).largest_size < 224
    for seconds in (30, 120):
        for given, sizes in (("stages.2.image_size=300", [179, 300]), ("stages.1.image_size=96", [96, 224])):
            assert [stage.image_size for stage in weights_for_a_time(seconds, given).stages] == sizes
    assert weights_for_a_time(30, "test_size=256").largest_size == 224


def test_a_stage_of_weights_that_is_named_is_there_in_any_budget() -> None:
    """`finetune` has its second stage from four epochs on."""
    assert len(weights_for_a_time(15).stages) == 1
    chosen = weights_for_a_time(15, "stages.2.dropout=0.3")
    assert [stage.dropout for stage in chosen.stages] == [0.0, 0.3] and chosen.epochs == 4


def test_the_length_of_epochs_is_what_a_budget_chooses() -> None:
    with pytest.raises(ZooError, match="--budget chooses how many pictures an epoch is"):
        for_a_time(30, "epoch_pictures=7")
