"""Owns the shape of a recipe and which ones fit a network; the recipes themselves are files of `train/recipes/`."""

from __future__ import annotations

import importlib
import pkgutil
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Annotated, Literal

from train.options import Keep, Metric, Sampler
from zoo.errors import ZooError, unknown_name
from zoo.model.spec import ImageSize, Resize, Variant
from zoo.rows import Ascending, Count, NotNegative, Positive, Row, Share, Some, Text, Within

RateSchedule = Literal["cosine", "exponential", "constant"]
OptimizerName = Literal["adamw", "sgd", "rmsprop", "lamb"]
LossName = Literal["cross_entropy", "bce"]
# Of which weights a run's figures and its checkpoint are: of their moving average, or as the steps leave them.
KeptWeights = Literal["averaged", "raw"]
BatchRule = Literal["none", "linear", "sqrt"]
ErasingFill = Literal["zero", "noise"]
Mirrors = Literal["auto", "always", "never"]
Growth = Literal["auto", "always"]
BelowOne = Annotated[float, Within(0, below=1)]
# Sizes that differ by multiples of it look alike to a network's strided layers, px.
SIZE_STEP = 8
RECIPES = "train.recipes"  # by name: recipes import this file, not the reverse


@dataclass(frozen=True, kw_only=True)
class TrainingStage(Row):
    """One stage of progressive learning: what the pictures are and how hard they are made.

    `image_size` is one side in pixels; `batch_size` is the number of pictures in an optimizer step, which are taken in
    `accumulate` equal parts if memory does not hold them at once (batch norm then sees the parts).
    `randaugment_magnitude` is on the scale whose usual maximum is 10, and may be above it; an alpha of 0 switches mixup
    or CutMix off; `random_erasing_prob` is that of one picture, `stochastic_depth_prob` that of the last block.
    `freeze_backbone` trains the classifier alone: the rest keeps its weights and its batch-norm statistics.
    `freeze_norms` normalises by those statistics, not by the batch's; the norms' weights still learn.
    """

    epochs: Count
    image_size: Annotated[int, Within(4, 4096)]
    batch_size: Annotated[int, Within(2)]
    randaugment_magnitude: NotNegative
    mixup_alpha: NotNegative
    cutmix_alpha: NotNegative
    dropout: BelowOne
    stochastic_depth_prob: BelowOne
    random_erasing_prob: Share = 0.0
    accumulate: Count = 1
    freeze_backbone: bool = False
    freeze_norms: bool = False

    @property
    def part_size(self) -> int:
        """Pictures that are in memory at once: those of one part of a batch."""
        return -(-self.batch_size // self.accumulate)


@dataclass(frozen=True, kw_only=True)
class Recipe(Row):
    """Everything a run depends on besides network, data and seed.

    `test_size` is what validation and export use, about a fifth above the last stage's size; `test_crop_margin` is how
    many pixels a centre crop leaves out if `test_resize` is crop. `learning_rate` is the peak; `lr_scaling` multiplies
    it by batch / `reference_batch_size`, or by the root of that. SGD and RMSProp use `momentum`, AdamW and LAMB
    `betas`; an `eps` of None is the optimizer's own (`train/learn/optim.py`). `weight_decay` spares norms and biases;
    with SGD and RMSProp it is an L2 term of the loss, else decoupled. `layer_decay` is the rate of each stage of the
    network as a share of the rate of the stage above it. `crop_scale` is the share of the picture's area that a random
    crop takes, `crop_ratio` its aspect; the crop may reach `crop_padding` of the side beyond the picture, where it is
    black. `teacher` names the weights to distil from. `short_run_init` is `zoo.model.build.initialize_for_short_run`;
    `norm_momentum` is how far batch norms move in a step, None: as the network's row has it. With `head_start` the
    classifier begins as `train/learn/head_start.py` finds it; with `find_lr` a range test chooses the peak
    `learning_rate` (`train/progressive/rate_range.py`). An epoch is one pass over the pictures, or the next
    `epoch_pictures` of passes that follow one another; a run with a budget changes that number as it goes. With a
    `sampler` that is balanced as many pictures are drawn, of every class equally many. Epochs below the final size are
    validated on `glance_pictures` drawn by the seed, or on all. `focal_gamma` is that of
    `train.learn.losses.Objective.loss`, 0: no focal loss. With `qat` the network is trained as its int8 form answers
    (`zoo/model/fake_quantize.py`). A run ends with the averaged weights (`ema_decay` 0: with the
    weights as they are) of its `keep` epoch at the final size, the best in `metric`, and ends early after `patience`
    such epochs without one better than those before. `mirror` and `grow` say whether the head start decides on mirror
    images and on smaller pictures (`train/learn/suitability.py`); with `midpoint` the weights halfway between the head
    start's and the best epoch's are tried too (`train/learn/midpoint.py`), but not with `qat`.
    """

    name: Text
    source: Text
    stages: Annotated[tuple[TrainingStage, ...], Some()]
    test_size: ImageSize
    test_resize: Resize = "squash"
    test_crop_margin: Annotated[int, Within(0, 4096)] = 0
    learning_rate: Positive
    lr_scaling: BatchRule = "none"
    reference_batch_size: Count = 256
    schedule: RateSchedule = "cosine"
    warmup_epochs: NotNegative = 0.0
    decay_rate: Annotated[float, Within(above=0, high=1)] = 0.97
    decay_epochs: Positive = 2.4
    optimizer: OptimizerName = "adamw"
    betas: Annotated[tuple[float, float], Within(0, below=1)] = (0.9, 0.999)
    momentum: BelowOne = 0.9
    nesterov: bool = True
    rmsprop_decay: BelowOne = 0.9
    eps: Positive | None = None
    weight_decay: NotNegative = 0.0
    layer_decay: Annotated[float, Within(above=0, high=1)] = 1.0
    # A negative norm would reverse every gradient, and 0 would erase it; the loss shows neither.
    clip_grad_norm: Positive | None = None
    ema_decay: BelowOne = 0.9999
    loss: LossName = "cross_entropy"
    label_smoothing: BelowOne = 0.1
    class_weights: str | tuple[NotNegative, ...] | None = None
    focal_gamma: NotNegative = 0.0
    teacher: str | None = None
    distill_alpha: Share = 0.5
    temperature: Positive = 1.0
    crop_scale: Annotated[tuple[float, float], Within(above=0, high=1), Ascending()] = (0.05, 1.0)
    crop_ratio: Annotated[tuple[float, float], Within(above=0), Ascending()] = (3 / 4, 4 / 3)
    crop_padding: BelowOne = 0.0
    randaugment_layers: Annotated[int, Within(0, 64)] = 2
    random_erasing_scale: Annotated[tuple[float, float], Within(above=0, high=1), Ascending()] = (0.02, 0.33)
    random_erasing_ratio: Annotated[tuple[float, float], Within(above=0), Ascending()] = (0.3, 3.3)
    random_erasing_fill: ErasingFill = "zero"
    short_run_init: bool = False
    norm_momentum: Annotated[float, Within(above=0, high=1)] | None = None
    head_start: bool = False
    mirror: Mirrors = "auto"
    grow: Growth = "always"
    midpoint: bool = False
    find_lr: bool = False
    epoch_pictures: Count | None = None
    glance_pictures: Count | None = None
    sampler: Sampler = "shuffle"
    keep: Keep = "best"
    metric: Metric = "top1"
    patience: Count | None = None
    qat: bool = False

    @property
    def kept_weights(self) -> KeptWeights:
        """Which weights validation, checkpoint and export have."""
        return "averaged" if self.ema_decay else "raw"

    @property
    def epochs(self) -> int:
        """Epochs of the whole run."""
        return sum(stage.epochs for stage in self.stages)

    @property
    def tries_midpoint(self) -> bool:
        """Whether a run ends with a look halfway: ranges of what is rounded are those of the weights they came with."""
        return self.midpoint and self.keep == "best" and not self.qat

    @property
    def largest_size(self) -> int:
        """The largest training size, px: the last stage's, unless sizes are drawn at random."""
        return max(stage.image_size for stage in self.stages)


@dataclass(frozen=True, kw_only=True)
class Situation(Row):
    """What a recipe may adapt to: the network, whether it has trained weights, how many pictures of how many classes,
    and what the user has fixed.

    Without pictures it is a folder of ten thousand in a hundred classes. `imbalance` is how many times the pictures of
    the rarest class the most frequent one has; 1 where pictures have several labels.
    """

    variant: Variant
    weights: bool = False
    pictures: Count = 10_000
    classes: Count = 100
    imbalance: Positive = 1.0
    epochs: Count | None = None
    batch_size: Annotated[int, Within(2)] | None = None
    image_size: Annotated[int, Within(16)] | None = None
    epoch_pictures: Count | None = None

    @property
    def an_epoch(self) -> int:
        """How many pictures an epoch is: all of them, unless it is told."""
        return self.epoch_pictures or self.pictures


def recipe_names() -> tuple[str, ...]:
    """Every file of `train/recipes/`, in alphabetical order."""
    return tuple(sorted(module.name for module in pkgutil.iter_modules(importlib.import_module(RECIPES).__path__)))


def find_recipe(name: str, variant: Variant, situation: Situation | None = None) -> Recipe:
    """Resolve a recipe for a network: `train/recipes/NAME.py` has `recipe(variant)`, or `adapt(situation)`.

    Raises:
        UnknownNameError: there is no such file. ZooError: the recipe is for another network.
    """
    names = recipe_names()
    if name not in names:
        raise unknown_name("recipe", name, names, f"There are: {', '.join(names)}.")
    module = importlib.import_module(f"{RECIPES}.{name}")
    made: Recipe = module.adapt(situation or Situation(variant=variant)) if adapts(name) else module.recipe(variant)
    return made


def adapts(name: str) -> bool:
    """Whether a recipe is made for its situation; the others are what they are."""
    return hasattr(importlib.import_module(f"{RECIPES}.{name}"), "adapt")


def require_network(recipe: str, variant: Variant, ids: Iterable[str]) -> None:
    """Refuse a network whose figures a recipe does not have.

    Raises:
        ZooError: names the networks it is for.
    """
    if variant.id not in (known := list(ids)):
        own = [name for name in recipe_names() if name.startswith(f"{variant.id}_")]
        raise ZooError(
            f"The recipe {recipe} is for {', '.join(known)}, not for {variant.id}: its figures are that network's.",
            f"For {variant.id} there is --recipe {', '.join(own)}." if own else "--recipe folder takes any network.",
        )


def larger_by(image_size: int, ratio: float) -> int:
    """The largest size up to `ratio` times another from which it differs by whole eights: 300 px × 1.135 are 340.

    Layers with a stride meet the edge of a picture elsewhere at every size but those: small pictures, which are mostly
    edge, become other pictures.
    """
    return image_size + int(image_size * (ratio - 1) / SIZE_STEP + 1e-9) * SIZE_STEP


def tested_size(recipe: Recipe, stage: TrainingStage) -> int:
    """The size of validation pictures after a stage's epochs: its own, as much larger as the last ones are."""
    if stage.image_size == recipe.largest_size:
        return recipe.test_size
    return larger_by(stage.image_size, recipe.test_size / recipe.largest_size)


def validated_pictures(recipe: Recipe, stage: TrainingStage, pictures: int, *, last: bool) -> int:
    """How many of the validation pictures are looked at after an epoch of a stage; after the `last` one all of them."""
    if last or tested_size(recipe, stage) == recipe.test_size or recipe.glance_pictures is None:
        return pictures
    return min(pictures, recipe.glance_pictures)


def scaled_test_size(test_size: int, factor: float, max_size: int) -> int:
    """A recipe's test size where its training sizes are `factor` times as large: the nearest multiple of 4, capped."""
    return min(max(4, round(test_size * factor / 4) * 4), max_size)


def check_recipe(recipe: Recipe, variant: Variant) -> Recipe:
    """Check that a recipe fits a network and itself, and return it; single fields are checked when they are set.

    Raises:
        ZooError: names the first setting that does not fit, and what it may be.
    """
    for number, stage in enumerate(recipe.stages, start=1):
        wrong = _wrong_in_stage(stage, variant)
        if wrong:
            raise ZooError(
                f"Stage {number} of the recipe {recipe.name}: {wrong}.", f"Change it with --set stages.{number}.…=…."
            )
    if recipe.test_size > variant.max_size:
        raise ZooError(
            f"The recipe's test_size {recipe.test_size} is above {variant.max_size} px, where {variant.id} is capped.",
            f"--set test_size={variant.max_size}.",
        )
    if recipe.warmup_epochs > recipe.epochs:
        raise ZooError(
            f"The recipe's warmup_epochs {recipe.warmup_epochs:g} are more than its {recipe.epochs} epochs: the rate "
            "would never reach its peak.",
            "Set fewer with --set warmup_epochs=1, or train for longer.",
        )
    return recipe


def _wrong_in_stage(stage: TrainingStage, variant: Variant) -> str:
    """What does not fit in a stage, or ""."""
    if stage.image_size > variant.max_size:
        return f"image_size {stage.image_size} is above {variant.max_size} px, where {variant.id} is capped"
    if stage.batch_size % stage.accumulate:
        return f"batch_size {stage.batch_size} is not {stage.accumulate} equal parts (accumulate)"
    if stage.part_size < 2:
        return f"batch_size {stage.batch_size} in {stage.accumulate} parts leaves one picture: batch norm needs two"
    return ""
