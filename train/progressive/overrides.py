"""Owns which recipe a run's options ask for, and `--set PATH=VALUE`, a dotted path into a recipe."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace
from itertools import accumulate, pairwise
from typing import Any

from train.options import TrainOptions
from train.progressive.budget import GLANCE_PICTURES, MOST_EPOCHS, Amount, Pace, fit_to_budget
from train.progressive.recipe import (
    Recipe,
    Situation,
    TrainingStage,
    adapts,
    check_recipe,
    find_recipe,
    scaled_test_size,
)
from zoo.errors import UnknownNameError, ZooError
from zoo.model.spec import Variant
from zoo.rows import did_you_mean, field_types, parse
from zoo.weights.cache import file_of
from zoo.weights.resolve import has_weights
from zoo.weights.table import weights_of

# What a recipe is, not how it trains.
FIXED = ("name", "source", "stages")
EVERY_STAGE = "all"
# Settings that say how large pictures are: with one of them a budget leaves all sizes as they are.
SIZES = ("image_size", "test_size", "test_crop_margin")
# What every recipe becomes where pictures may have several labels. Targets are not smoothed: with K classes of which
# few are true, s/2 of each of the others would be most of the loss.
SEVERAL_LABELS: dict[str, Any] = {"loss": "bce", "metric": "map", "label_smoothing": 0.0}
# Options that are fields of a recipe, where they are given.
FIELDS = (
    *("learning_rate", "sampler", "class_weights", "focal_gamma", "teacher", "distill_alpha", "temperature"),
    *("keep", "metric", "patience"),
)


def choose_recipe(
    options: TrainOptions,
    variant: Variant,
    base: Recipe | None = None,
    *,
    counts: tuple[int, int] | None = None,
    epoch_pictures: int | None = None,
    imbalance: float = 1.0,
    multi_label: bool = False,
) -> Recipe:
    """The recipe that a run's options name, or the one of its situation, as the other options change it.

    Args:
        base: take this recipe instead of the one that is named.
        counts: how many pictures of how many classes there are to train on, for recipes that adapt to it.
        epoch_pictures: of how many pictures an epoch is, for the same recipes; None: all of them.
        imbalance: how unequal the classes are, as in `Situation`.
        multi_label: pictures may have several labels: the recipe's loss and metric become theirs.

    Raises:
        UnknownNameError: there is no such recipe or setting. ZooError: the recipe does not fit the network or itself.
    """
    if options.image_size is not None and options.image_size > variant.max_size:
        raise ZooError(
            f"--image-size {options.image_size} is outside 16 … {variant.max_size} px.",
            f"{variant.id} is capped at {variant.max_size} px.",
        )
    name = options.recipe or default_recipe(options)
    recipe = base or find_recipe(name, variant, _situation(options, variant, counts, epoch_pictures, imbalance))
    if base or not adapts(name):
        recipe = _fit_to_flags(recipe, options, variant)
    if multi_label:
        recipe = replace(recipe, **SEVERAL_LABELS)
    given = {name: value for name in FIELDS if (value := getattr(options, name)) is not None}
    given |= {name: True for name in ("find_lr", "qat") if getattr(options, name)}
    if any(_path(text).startswith("stages.") and _path(text).endswith(".image_size") for text in options.overrides):
        given["grow"] = "always"  # whoever says how large a stage's pictures are has decided
    if not options.ema:
        given["ema_decay"] = 0.0
    recipe = check_recipe(apply_overrides(replace(recipe, **given), options.overrides), variant)
    if recipe.class_weights is not None and not base and not _names_sampler(options):
        recipe = replace(recipe, sampler="shuffle")  # both correct for the same thing, and the weights were asked for
    _check_chosen(recipe, options)
    check_task(recipe, multi_label=multi_label)
    return recipe


def _names_sampler(options: TrainOptions) -> bool:
    return options.sampler is not None or "sampler" in map(_path, options.overrides)


def _check_chosen(recipe: Recipe, options: TrainOptions) -> None:
    """Refuse a rate, or a length of epochs, that is given where it is to be found.

    Raises:
        ZooError: both.
    """
    paths = [_path(text) for text in options.overrides]
    if recipe.find_lr and (options.learning_rate is not None or "learning_rate" in paths):
        raise ZooError(
            "--find-lr chooses the learning rate, and --lr (or --set learning_rate) gives it.",
            "Leave one of them out; the range test is about the recipe's own rate.",
        )
    if options.budget is not None and "epoch_pictures" in paths:
        raise ZooError(
            "--budget chooses how many pictures an epoch is, and --set epoch_pictures gives it.",
            "Leave one of them out; without --budget, --epochs says how many epochs.",
        )


def check_task(recipe: Recipe, *, multi_label: bool) -> None:
    """Refuse what does not go with the labels of the pictures.

    Raises:
        ZooError: a loss, a metric or a teacher of one class a picture for several labels, or the reverse.
    """
    if not multi_label:
        if recipe.metric == "map":
            raise ZooError("The metric map is for pictures with several labels.", "For example --metric macro_f1.")
        return
    if recipe.loss != "bce":
        raise ZooError(
            f"The loss {recipe.loss} makes classes compete, and these pictures may have several labels.",
            "Leave it out: theirs is bce.",
        )
    if recipe.metric not in ("map", "loss"):
        raise ZooError(
            f"The metric {recipe.metric} is for one class a picture, and these may have several labels.",
            "Use --metric map, which is the default here, or loss.",
        )
    if recipe.teacher:
        raise ZooError(
            "Distillation compares answers of one class, and these pictures may have several labels.",
            "Leave --teacher out.",
        )


def recipe_for_budget(
    options: TrainOptions,
    variant: Variant,
    suited: Recipe,
    amount: Amount,
    pace: Pace,
    seconds: float,
    *,
    multi_label: bool = False,
    detail: bool = False,
    spent_s: float = 0.0,
) -> Recipe:
    """The recipe that fills `seconds` at a pace: epochs, and sizes unless the user has fixed one (`keeps_sizes`).

    Args:
        suited: the recipe without a budget.
        multi_label: as in `choose_recipe`.
        detail, spent_s: as in `fit_to_budget`.

    Raises:
        ZooError: as `fit_to_budget`.
    """
    base = None if adapts(suited.name) else suited
    counts = amount.train, amount.classes
    kept, named = keeps_sizes(options), max(map(_stage_named, options.overrides), default=1)

    def choose(epochs: int, pictures: int, size: int, overrides: tuple[str, ...]) -> Recipe:
        size_given = options.image_size if kept else size
        told = replace(options, budget=None, epochs=epochs, image_size=size_given, overrides=overrides)
        return choose_recipe(
            told,
            variant,
            base,
            counts=counts,
            epoch_pictures=pictures,
            imbalance=amount.imbalance,
            multi_label=multi_label,
        )

    def has_stages(epochs: int) -> bool:
        return len(choose(epochs, amount.train, suited.largest_size, ()).stages) >= named

    # A recipe that adapts has fewer stages than usual in few epochs; what --set names must be there.
    least = len(base.stages) if base else next(filter(has_stages, range(1, MOST_EPOCHS + 1)), 1)

    def make(epochs: int, pictures: int, size: int) -> Recipe:
        made = choose(max(epochs, least), pictures, size, options.overrides)
        return replace(made, epoch_pictures=pictures, glance_pictures=made.glance_pictures or GLANCE_PICTURES)

    recipe = fit_to_budget(
        make,
        suited,
        amount,
        pace,
        seconds,
        sizes=not kept,
        detail=detail,
        spent_s=spent_s,
        folds=options.folds,
    )
    return replace(recipe, class_weights=suited.class_weights)


def _situation(
    options: TrainOptions,
    variant: Variant,
    counts: tuple[int, int] | None,
    epoch_pictures: int | None,
    imbalance: float,
) -> Situation:
    bare = Situation(
        variant=variant,
        weights=has_weights(options.model),
        epochs=options.epochs,
        batch_size=options.batch_size,
        image_size=options.image_size,
        epoch_pictures=epoch_pictures,
        imbalance=imbalance,
    )
    return replace(bare, pictures=counts[0], classes=counts[1]) if counts else bare


def default_recipe(options: TrainOptions) -> str:
    """The recipe of a situation: `digits` for those, `finetune` from weights, `folder` from nothing."""
    if options.data == "digits":
        return "digits"
    return "finetune" if has_weights(options.model) else "folder"


def better_start(options: TrainOptions, variant: Variant) -> str:
    """What to say to who starts from nothing where there are published weights; "" where there is nothing to say."""
    rows = weights_of(variant.id)
    if has_weights(options.model) or options.data == "digits" or not rows:
        return ""
    ready = next((row for row in rows if file_of(row)), rows[0])
    fetch = "" if file_of(ready) else f" (`zoo pull {ready.id}` fetches them)"
    return (
        f"From scratch. Below some hundred thousand pictures it is better to start from weights: `zoo train {ready.id} "
        f"--data {options.data}`{fetch}."
    )


def _fit_to_flags(recipe: Recipe, options: TrainOptions, variant: Variant) -> Recipe:
    """Change what the stages share, epochs, size and batch; the stages keep their proportions.

    Raises:
        ZooError: fewer epochs than stages.
    """
    stages, epochs, image_size = recipe.stages, options.epochs, options.image_size
    if epochs is not None:
        if epochs < len(stages):
            raise ZooError(
                f"--epochs {epochs} is less than one epoch for each of the {len(stages)} stages.",
                f"Use at least {len(stages)}.",
            )
        stages = tuple(replace(s, epochs=e) for s, e in zip(stages, _share_out(epochs, recipe), strict=True))
        recipe = replace(recipe, warmup_epochs=recipe.warmup_epochs * epochs / recipe.epochs)
    if image_size is not None:
        factor = image_size / recipe.largest_size
        stages = tuple(replace(stage, image_size=round(stage.image_size * factor)) for stage in stages)
        recipe = replace(
            recipe,
            test_size=scaled_test_size(recipe.test_size, factor, variant.max_size),
            test_crop_margin=round(recipe.test_crop_margin * factor),
        )
    if options.batch_size is not None:
        stages = tuple(replace(stage, batch_size=options.batch_size) for stage in stages)
    return replace(recipe, stages=stages)


def _share_out(epochs: int, recipe: Recipe) -> list[int]:
    """Epochs of the stages in the recipe's proportions, at least one each; of 15, 15, 15, 15, 8 epochs are 2 × 4."""
    ends = list(accumulate(stage.epochs for stage in recipe.stages))
    borders = [0]
    for index, end in enumerate(ends, start=1):
        latest = epochs - (len(ends) - index)  # each later stage needs an epoch
        nearest = (2 * epochs * end + ends[-1] - 1) // (2 * ends[-1])  # halves round down: 6 of 60 are 1, 2, 1, 2
        borders.append(min(max(nearest, borders[-1] + 1), latest))
    return [after - before for before, after in pairwise(borders)]


def apply_overrides(recipe: Recipe, settings: Iterable[str]) -> Recipe:
    """Change a recipe by texts "PATH=VALUE", in order.

    A path is a field of `Recipe`, or `stages.N.FIELD` with N from 1 as `--plan` counts, or `stages.all.FIELD`.

    Raises:
        UnknownNameError: no such path; names the nearest. ZooError: no "=", or a value of another type.
    """
    for text in settings:
        _, sign, value = text.partition("=")
        if not sign:
            raise ZooError(f"--set {text}: expected PATH=VALUE.", "For example --set stages.2.image_size=256.")
        recipe = _set(recipe, _path(text), value.strip())
    return recipe


def _path(text: str) -> str:
    """The PATH of "PATH=VALUE"."""
    return text.partition("=")[0].strip()


def keeps_sizes(options: TrainOptions) -> bool:
    """Whether the user says how large pictures are, of all stages or of one."""
    named = (_path(text).rpartition(".")[2] for text in options.overrides)
    return options.image_size is not None or any(name in SIZES for name in named)


def gives_batches(options: TrainOptions) -> bool:
    """Whether the user says how many pictures a step takes, of all stages or of one."""
    named = (_path(text).rpartition(".")[2] for text in options.overrides)
    return options.batch_size is not None or "batch_size" in named


def _stage_named(text: str) -> int:
    """The N of "stages.N.FIELD=VALUE", from 1; 1 where a setting is of no stage, or of all."""
    first, _, rest = _path(text).partition(".")
    number = rest.partition(".")[0]
    return int(number) if first == "stages" and number.isdecimal() else 1


def setting_paths(recipe: Recipe) -> list[str]:
    """Every path that can be set."""
    own = [name for name in field_types(Recipe) if name not in FIXED]
    numbers = [*range(1, len(recipe.stages) + 1), EVERY_STAGE]
    return own + [f"stages.{number}.{name}" for number in numbers for name in field_types(TrainingStage)]


def _set(recipe: Recipe, path: str, value: str) -> Recipe:
    known = setting_paths(recipe)
    if path not in known:
        raise UnknownNameError(
            f"The recipe {recipe.name} has no setting {path!r}.{did_you_mean(path, known, cutoff=0.5)}",
            f"Stages are numbered 1 … {len(recipe.stages)} as --plan shows them; --plan --json shows every setting.",
        )
    first, *rest = path.split(".")
    if not rest:
        return replace(recipe, **{first: parse(field_types(Recipe)[first], value, f"--set {path}")})
    number, name = rest
    read = parse(field_types(TrainingStage)[name], value, f"--set {path}")
    chosen = range(len(recipe.stages)) if number == EVERY_STAGE else (int(number) - 1,)
    stages = tuple(
        replace(stage, **{name: read}) if index in chosen else stage for index, stage in enumerate(recipe.stages)
    )
    return replace(recipe, stages=stages)
