"""Owns what a run is told before its first step, and how options become that; what changes is `run.py`'s."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, replace
from functools import cached_property

import torch

from train.learn.distill import Teacher, load_teacher
from train.learn.losses import resolve_class_weights
from train.learn.planes import check_planes
from train.options import TrainOptions
from train.processes.distributed import World
from train.progressive.balance import imbalance_of
from train.progressive.cost import RunCost, estimate
from train.progressive.overrides import check_task, choose_recipe
from train.progressive.recipe import Recipe
from train.settings import Settings, choose_settings
from zoo.data.fingerprint import fingerprint
from zoo.data.folds import fold_rule, open_fold
from zoo.data.open import open_splits, open_test
from zoo.data.pictures import Pictures
from zoo.errors import ZooError
from zoo.model.network import Network
from zoo.model.spec import Preprocessing, Variant
from zoo.weights.checkpoint import Checkpoint
from zoo.weights.resolve import find_model_variant, has_weights, load_model
from zoo.weights.stem import for_channels

TrainAndVal = tuple[Pictures, Pictures]  # train, val


@dataclass(frozen=True)
class Start:
    """Weights to begin from, with the card that says what they expect, and where they came from.

    `remark` says what was done to them.
    """

    network: Network
    card: Checkpoint
    label: str
    remark: str = ""

    @cached_property
    def sha256(self) -> str:
        """What tells these weights from others, wherever they lie."""
        digest = hashlib.sha256()
        for name, tensor in sorted(self.network.state_dict().items()):
            digest.update(name.encode())
            digest.update(tensor.detach().cpu().reshape(-1).view(torch.uint8).numpy())
        return digest.hexdigest()


@dataclass(frozen=True, kw_only=True)
class Job:
    """What to train, on which pictures, and how.

    `data` is the name the pictures were opened by, `group_by` what was kept on one side of their split; `preprocessing`
    is that of the trained weights, at the recipe's test size. Without `start` the network is freshly initialised;
    `teacher` adds distillation. `test_set` is looked at once, at the end. `fold` says which one is held out of a
    cross-validation, "" where there is none.
    """

    variant: Variant
    recipe: Recipe
    data: str
    train_set: Pictures
    val_set: Pictures
    preprocessing: Preprocessing
    settings: Settings
    group_by: str | None = None
    start: Start | None = None
    teacher: Teacher | None = None
    test_set: Pictures | None = None
    fold: str = ""

    @property
    def title(self) -> str:
        """The run's name, as people read it."""
        return f"{self.variant.name} on {self.data}" + (f", {self.fold}" if self.fold else "")

    @property
    def classes(self) -> tuple[str, ...]:
        """The classes' names."""
        return self.train_set.classes

    @property
    def multi_label(self) -> bool:
        """Whether a picture may have several labels, or none."""
        return self.train_set.multi_label

    @property
    def keeps_classifier(self) -> bool:
        """Whether the run begins with the classifier of its start: it answers the same classes in the same way."""
        card = self.start.card if self.start else None
        same_task = card is not None and (card.thresholds is not None) == self.multi_label
        return card is not None and same_task and card.classes == self.classes

    @cached_property
    def fingerprints(self) -> tuple[str, str]:
        """What tells the training and the validation pictures from others: `zoo.data.fingerprint`."""
        return fingerprint(self.train_set), fingerprint(self.val_set)

    @property
    def cost(self) -> RunCost:
        """What the run costs, from the rows alone."""
        return estimate(self.variant, self.recipe, len(self.train_set), len(self.classes))


def make_job(
    options: TrainOptions,
    world: World,
    recipe: Recipe | None,
    pictures: TrainAndVal | None,
    start: Start | None,
    teacher: Teacher | None,
) -> Job:
    """The job that the options, and the objects given in their place, ask for: every name and every "auto" resolved.

    Raises:
        ZooError: the recipe does not fit the network or itself, or freezes a backbone that has learnt nothing; an
            option is without effect; or teacher and student take other planes.
        UnknownNameError, DataError, CheckpointError, MissingCapabilityError: something named is missing or unusable.
    """
    variant = find_model_variant(options.model, options.channels)
    train_set, val_set = pictures or _open_pictures(options)
    counts = len(train_set), len(train_set.classes)
    imbalance = imbalance_of(train_set, val_set if options.fold else None)
    several = train_set.multi_label
    recipe = choose_recipe(options, variant, recipe, counts=counts, imbalance=imbalance, multi_label=several)
    settings = choose_settings(options, train_set, world)
    _refuse_without_effect(options, has_teacher=bool(teacher or recipe.teacher), device=settings.device.type)
    start = start or find_start(options.model)
    if start:
        variant = variant.with_channels(options.channels or start.card.preprocessing.channels)
        start = start_in_planes(start, variant.channels)
    if recipe.mirror != "auto":
        train_set = replace(train_set, flip_keeps_class=recipe.mirror == "always")
    check_planes((train_set, val_set), variant.channels)
    if start is None and any(stage.freeze_backbone for stage in recipe.stages):
        raise ZooError(
            f"The recipe {recipe.name} freezes the backbone, and {variant.id} begins without trained weights.",
            f"Begin from weights: `zoo list` shows them, `zoo pull {variant.id}` fetches some; or a checkpoint's path.",
        )
    if recipe.qat:
        check_qat(recipe, variant, settings)
    weights = resolve_class_weights(recipe.class_weights, train_set.classes, train_set.class_counts())
    recipe = replace(recipe, class_weights=weights)
    if teacher and train_set.multi_label:
        check_task(replace(recipe, teacher="the one given"), multi_label=True)
    if teacher is None and recipe.teacher:
        share = {"alpha": recipe.distill_alpha, "temperature": recipe.temperature}
        teacher = load_teacher(recipe.teacher, train_set.classes, settings.device, **share)
    if teacher and teacher.preprocessing.channels != variant.channels:
        raise ZooError(
            f"The teacher takes {teacher.preprocessing.color_order} pictures, and the student "
            f"{variant.preprocessing.color_order} ones.",
            "Both see the same pictures: train a teacher with the same --channels.",
        )
    return Job(
        variant=variant,
        recipe=recipe,
        data=options.data,
        train_set=train_set,
        val_set=val_set,
        preprocessing=run_preprocessing(start.card.preprocessing if start else variant.preprocessing, recipe),
        settings=settings,
        group_by=options.group_by,
        start=start,
        teacher=teacher,
        test_set=None if pictures or options.fold else open_test(options.data, train_set.classes),
        fold=fold_rule(options.fold, options.folds) if options.fold and options.folds else "",
    )


def _open_pictures(options: TrainOptions) -> TrainAndVal:
    """The pictures of a run, or of the run of one fold."""
    seed, group_by = options.seed, options.group_by
    if options.fold and options.folds:
        return open_fold(options.data, options.fold, options.folds, seed=seed, group_by=group_by)
    return open_splits(options.data, seed=seed, group_by=group_by)


def _refuse_without_effect(options: TrainOptions, *, has_teacher: bool, device: str) -> None:
    for option, given in (("--distill-alpha", options.distill_alpha), ("--temperature", options.temperature)):
        if given is not None and not has_teacher:
            raise ZooError(f"{option} has no effect without a teacher.", "Name one with --teacher.")
    if options.auto_batch and device == "cpu":
        raise ZooError("--auto-batch has no effect on a CPU: it asks a GPU what fits its memory.", "Leave it out.")


def check_qat(recipe: Recipe, variant: Variant, settings: Settings) -> None:
    """Refuse what does not go with training for 8 bits.

    Raises:
        ZooError: the network has none, nothing but the classifier would be trained, or the network is compiled or
            computes its activations twice, where ranges that follow the batches would move in between.
    """
    if variant.is_resnet:
        raise ZooError(
            f"--qat is for EfficientNets, and {variant.id} is a ResNet.",
            "Leave it out: `zoo export --precision int8` calibrates any network after training.",
        )
    if all(stage.freeze_backbone for stage in recipe.stages):
        raise ZooError(
            "--qat has no effect: every stage freezes the backbone.", "--set stages.all.freeze_backbone=false."
        )
    for option, given in (
        ("--compile", settings.compile),
        ("--checkpoint-activations", settings.checkpoint_activations),
    ):
        if given:
            raise ZooError(f"--qat does not go with {option}.", f"Leave {option} out.")


def find_start(model: str) -> Start | None:
    """The weights MODEL names: those of a checkpoint or of a published id; None for a row's id or file.

    Raises:
        CheckpointError, MissingCapabilityError: they cannot be loaded.
    """
    return Start(*load_model(model)) if has_weights(model) else None


def start_in_planes(start: Start, channels: int) -> Start:
    """The start for pictures of so many planes: with an adapted stem, unless it takes as many.

    Raises:
        CheckpointError: its weights take neither these nor RGB.
    """
    network, card = for_channels(start.network, start.card, channels)
    if network is start.network:
        return start
    how = "summed over" if channels == 1 else "repeated and scaled from"
    remark = f"the stem's weights are {how} RGB's three planes, for {card.preprocessing.planes}"
    return Start(network, card, start.label, remark)


def with_recipe(job: Job, recipe: Recipe) -> Job:
    """The job with another recipe, and with the test size that belongs to it."""
    return replace(job, recipe=recipe, preprocessing=run_preprocessing(job.preprocessing, recipe))


def run_preprocessing(base: Preprocessing, recipe: Recipe) -> Preprocessing:
    """How a recipe's weights expect pictures: normalised as they were (`base`), at the recipe's test size."""
    return replace(
        base,
        image_size=recipe.test_size,
        resize=recipe.test_resize,
        resize_size=recipe.test_size + recipe.test_crop_margin if recipe.test_crop_margin else None,
        interpolation="bilinear",
    )
