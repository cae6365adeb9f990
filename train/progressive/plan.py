"""Owns `zoo train --plan`: the stages, what they cost, and every setting that is unusual; it loads no framework."""

from __future__ import annotations

from dataclasses import MISSING, dataclass, fields, replace
from typing import Any

from rich.markup import escape

from train.options import TrainOptions
from train.progressive.balance import ClassSeen, balance_remarks, classes_seen, imbalance_of, unequal_remark
from train.progressive.budget import Amount, Pace, features_seen, read_duration
from train.progressive.cost import RunCost, StageCost, estimate
from train.progressive.overrides import choose_recipe, recipe_for_budget
from train.progressive.rate_range import range_steps
from train.progressive.recipe import Recipe
from train.progressive.schedule import batch_factor
from zoo.console import FittingTable, results_console
from zoo.data.folds import open_fold
from zoo.data.open import Counted, count_pictures, open_splits
from zoo.data.pictures import Pictures
from zoo.model.spec import Variant
from zoo.rows import Count, Row, Text
from zoo.weights.resolve import find_model_variant, has_weights
from zoo.wording import digits

# Shown in every plan, in the table or under it; other settings only if they differ from the recipe's default.
SHOWN = ("name", "source", "stages", "test_size", "learning_rate", "schedule", "optimizer", "lr_scaling", "find_lr")

# Columns that are left out if every stage has this in them.
UNUSED = {"parts": "1", "frozen": "", "erasing": "0"}


@dataclass(frozen=True, kw_only=True)
class Plan(Row):
    """A run before it begins: the network, the recipe with all options applied, and what it costs.

    `seen` is how often balanced sampling sees the pictures of each class; `unequal` what to say of unequal classes.
    """

    variant: Variant
    recipe: Recipe
    cost: RunCost
    amount: Amount
    multi_label: bool = False
    folds: Count | None = None
    seen: tuple[ClassSeen, ...] = ()
    unequal: Text | None = None


def plan_training(options: TrainOptions) -> Plan:
    """What `train.session.train_model` would do, and what it costs.

    Raises:
        UnknownNameError, DataError, CheckpointError: something named is missing or unusable. ZooError: the recipe does
            not fit the network or itself.
    """
    if options.budget is not None:
        read_duration(options.budget)  # said before anything is measured
    variant = find_model_variant(options.model, options.channels)
    found, imbalance = _count(options)
    counts = found.train, found.classes
    recipe = choose_recipe(options, variant, counts=counts, imbalance=imbalance, multi_label=found.multi_label)
    starts = has_weights(options.model)
    training = _training(options, recipe, found)
    features = features_seen(found.train, flip_keeps_class=found.flip_keeps_class) if starts else 0
    return Plan(
        variant=variant,
        recipe=recipe,
        cost=estimate(variant, recipe, *counts),
        amount=Amount(
            classes=found.classes,
            train=found.train,
            validate=found.val,
            test=found.test,
            features=features,
            imbalance=imbalance,
        ),
        multi_label=found.multi_label,
        seen=classes_seen(training, recipe) if training else (),
        unequal=(unequal_remark(found.training, recipe) or None) if found.training else None,
    )


def one_fold(options: TrainOptions) -> TrainOptions:
    """The options of the first run of a cross-validation, with its part of the budget.

    Raises:
        ZooError: the budget is no time.
    """
    budget, folds = options.budget, options.folds or 1
    share = None if budget is None else f"{read_duration(budget) / folds:.1f}s"
    return replace(options, fold=1, budget=share)


def _count(options: TrainOptions) -> tuple[Counted, float]:
    """How many pictures a run has, and how unequal its classes are; one of a cross-validation looks at no test ones."""
    seed, group_by = options.seed, options.group_by
    if not (options.fold and options.folds):
        found = count_pictures(options.data, seed=seed, group_by=group_by)
        return found, imbalance_of(found.training) if found.training else 1.0
    train, val = open_fold(options.data, options.fold, options.folds, seed=seed, group_by=group_by)
    kinds = train.flip_keeps_class, train.multi_label
    return Counted(len(train), len(val), 0, len(train.classes), *kinds, training=train), imbalance_of(train, val)


def _training(options: TrainOptions, recipe: Recipe, found: Counted) -> Pictures | None:
    """The training pictures, where the plan has to say how often they are seen."""
    if recipe.sampler == "shuffle":
        return None
    return found.training or open_splits(options.data, seed=options.seed, group_by=options.group_by)[0]


def plan_for_budget(plan: Plan, options: TrainOptions, pace: Pace) -> Plan:
    """The plan that fills the options' budget at a pace.

    Raises:
        ZooError: as `fit_to_budget`.
    """
    variant, amount, seconds = plan.variant, plan.amount, read_duration(options.budget or "")
    own = plan.multi_label
    recipe = recipe_for_budget(options, variant, plan.recipe, amount, pace, seconds, multi_label=own)
    cost = estimate(variant, recipe, amount.train, amount.classes)
    longer = (recipe.epoch_pictures or amount.train) / (plan.recipe.epoch_pictures or amount.train)
    seen = tuple(replace(row, times=row.times * longer) for row in plan.seen)
    return replace(plan, recipe=recipe, cost=cost, seen=seen)


def plan_as_json(plan: Plan, seconds: float | None) -> dict[str, Any]:
    """What `zoo train --plan --json` prints: every setting by name, and how long all takes, if that is known."""
    settings = plan.recipe.to_dict()
    stages = settings.pop("stages")
    return {
        "model": plan.variant.id,
        "recipe": plan.recipe.name,
        "stages": stages,
        "settings": settings,
        "seconds": seconds,
        "folds": plan.folds,
        "seen": [row.to_dict() for row in plan.seen],
    }


def print_plan(plan: Plan) -> None:
    """Print the stages, what they cost, and what is unusual, to stdout."""
    variant, recipe, cost = plan.variant, plan.recipe, plan.cost
    console = results_console()
    console.print(_table(variant, recipe, cost))
    console.print(
        f"{recipe.epochs} epochs, {sum(stage.steps for stage in cost.stages)} steps, {cost.macs / 1e15:.3g} PMACs: "
        f"{cost.share_of_fixed_size:.0%} of training at {recipe.largest_size} px throughout. "
        f"Tested at {recipe.test_size} px.",
    )
    console.print(_rate(recipe))
    if plan.folds:
        console.print(
            f"Cross-validation: {plan.folds} such runs, each of which holds another fold of {plan.amount.validate:,} "
            f"pictures out and trains on the other {plan.amount.train:,} (one more or less)."
        )
    if recipe.find_lr:
        steps = range_steps(plan.amount.train, recipe.stages[0].batch_size)
        console.print(
            f"Before the first epoch a range test of at most {steps} steps chooses the rate: the one above is the "
            "recipe's own."
        )
    special = unusual_settings(recipe)
    if special:
        console.print("Also: " + ", ".join(f"{name} {value}" for name, value in special.items()) + ".")
    for remark in filter(None, (plan.unequal, *balance_remarks(plan.seen, recipe, multi_label=plan.multi_label))):
        console.print(escape(remark))


def unusual_settings(recipe: Recipe) -> dict[str, str]:
    """The settings that differ from `Recipe`'s defaults, without those that every plan shows."""
    found = {}
    for field in fields(Recipe):
        value = getattr(recipe, field.name)
        if field.name in SHOWN or field.default is MISSING or value == field.default:
            continue
        found[field.name] = _text(value)
    return found


def _text(value: object) -> str:
    if isinstance(value, tuple):
        return " … ".join(_text(part) for part in value) if len(value) == 2 else f"of {len(value)} values"
    return f"{value:g}" if isinstance(value, float) else str(value)


def _rate(recipe: Recipe) -> str:
    base = f"{recipe.optimizer}, {recipe.schedule} learning rate {recipe.learning_rate:g}"
    if recipe.lr_scaling == "none":
        return f"{base}."
    peaks = dict.fromkeys(
        f"{recipe.learning_rate * batch_factor(recipe, stage.batch_size):g}" for stage in recipe.stages
    )
    return f"{base} for {recipe.reference_batch_size} pictures, {recipe.lr_scaling} in the batch: {', '.join(peaks)}."


def _table(variant: Variant, recipe: Recipe, cost: RunCost) -> FittingTable:
    table = FittingTable(title=escape(f"{variant.name}, recipe {recipe.name} ({recipe.source})"))
    rows = [_row(index, item) for index, item in enumerate(cost.stages, start=1)]
    # Columns that no stage uses would make the table wider than a terminal.
    columns = [name for name in rows[0] if any(row[name] != UNUSED.get(name) for row in rows)]
    for name in columns:
        table.add_column(name, justify="right")
    for row in rows:
        table.add_row(*(row[name] for name in columns))
    return table


def _row(number: int, item: StageCost) -> dict[str, str]:
    stage = item.stage
    return {
        "stage": f"{number}",
        "epochs": f"{stage.epochs}",
        "px": f"{stage.image_size}",
        "batch": f"{stage.batch_size}",
        "parts": f"{stage.accumulate}",
        "frozen": "backbone" if stage.freeze_backbone else "",
        "RandAugment": f"{stage.randaugment_magnitude:g}",
        "mixup": f"{stage.mixup_alpha:g}",
        "CutMix": f"{stage.cutmix_alpha:g}",
        "erasing": f"{stage.random_erasing_prob:g}",
        "dropout": f"{stage.dropout:g}",
        "stoch. depth": f"{stage.stochastic_depth_prob:g}",
        "steps": f"{item.steps}",
        "TMACs": digits(item.macs / 1e12, 2),
    }
