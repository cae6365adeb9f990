"""Owns the shape of a recipe and how flags change one; the recipes themselves are files of `train/recipes/`."""

from __future__ import annotations

import importlib
from dataclasses import asdict, dataclass, replace
from typing import Any, Literal

from zoo.errors import ZooError, unknown_name
from zoo.spec import Resize, Variant

Schedule = Literal["cosine", "exponential"]
RECIPES = ("digits", "folder")


@dataclass(frozen=True, kw_only=True)
class TrainingStage:
    """One stage of progressive learning: what the pictures are and how hard they are made.

    `image_size` is one side in pixels; `randaugment_magnitude` is on the scale whose usual maximum is 10 and may pass
    it; alphas of 0 switch mixup or CutMix off; `stochastic_depth_prob` is that of the last block.
    """

    epochs: int
    image_size: int
    batch_size: int
    randaugment_magnitude: float
    mixup_alpha: float
    cutmix_alpha: float
    dropout: float
    stochastic_depth_prob: float


@dataclass(frozen=True, kw_only=True)
class Recipe:
    """Everything a run depends on besides network, data and seed.

    `test_size` is what validation and export use, about a fifth above the last stage's size. `crop_scale` is the
    share of the picture's area a random crop takes, `crop_ratio` its aspect; the crop may reach `crop_padding` of the
    side beyond the picture, where it is black. `weight_decay` spares norms and biases. `short_run_init` is
    `zoo.model.initialize_for_short_run`.
    """

    name: str
    source: str
    stages: tuple[TrainingStage, ...]
    test_size: int
    test_resize: Resize = "squash"
    learning_rate: float
    schedule: Schedule = "cosine"
    warmup_epochs: float = 0.0
    decay_rate: float = 0.97
    decay_epochs: float = 2.4
    betas: tuple[float, float] = (0.9, 0.999)
    weight_decay: float = 0.0
    clip_grad_norm: float | None = None
    ema_decay: float = 0.9999
    label_smoothing: float = 0.1
    crop_scale: tuple[float, float] = (0.05, 1.0)
    crop_ratio: tuple[float, float] = (3 / 4, 4 / 3)
    crop_padding: float = 0.0
    randaugment_layers: int = 2
    short_run_init: bool = False

    @property
    def epochs(self) -> int:
        """Epochs of the whole run."""
        return sum(stage.epochs for stage in self.stages)

    def to_dict(self) -> dict[str, Any]:
        """Return plain JSON types."""
        return asdict(self) | {
            "stages": [asdict(stage) for stage in self.stages],
            "betas": list(self.betas),
            "crop_scale": list(self.crop_scale),
            "crop_ratio": list(self.crop_ratio),
        }


def find_recipe(name: str, variant: Variant) -> Recipe:
    """Resolve a recipe for a network: `train/recipes/NAME.py` has `recipe(variant)`.

    Raises:
        UnknownNameError: there is no such file.
    """
    if name not in RECIPES:
        raise unknown_name("recipe", name, RECIPES, f"There are: {', '.join(RECIPES)}.")
    resolved: Recipe = importlib.import_module(f"train.recipes.{name}").recipe(variant)
    return resolved


def round_test_size(image_size: int, max_size: int) -> int:
    """A fifth above the last training size, to the nearest multiple of 8, never above the network's cap.

    300 px → 360; the paper's own pairs are 300/384 and 380/480 (§4.1: “about 20 % smaller”).
    """
    return min(int(image_size * 1.2 / 8 + 0.5) * 8, max_size)


def override(
    recipe: Recipe,
    variant: Variant,
    *,
    epochs: int | None = None,
    batch_size: int | None = None,
    learning_rate: float | None = None,
    image_size: int | None = None,
) -> Recipe:
    """Change a recipe by the common flags; stages keep their proportions.

    Raises:
        ZooError: fewer epochs than stages, or an image size above the network's cap.
    """
    stages = recipe.stages
    if epochs is not None:
        if epochs < len(stages):
            raise ZooError(
                f"--epochs {epochs} is less than one epoch for each of the {len(stages)} stages.",
                f"Use at least {len(stages)}.",
            )
        starts = [epochs * index // len(stages) for index in range(len(stages) + 1)]
        stages = tuple(replace(stage, epochs=starts[index + 1] - starts[index]) for index, stage in enumerate(stages))
        recipe = replace(recipe, warmup_epochs=recipe.warmup_epochs * epochs / recipe.epochs)
    if image_size is not None:
        if not 16 <= image_size <= variant.max_size:
            raise ZooError(
                f"--image-size {image_size} is outside 16 … {variant.max_size} px.",
                f"{variant.id} is capped at {variant.max_size} px.",
            )
        factor = image_size / stages[-1].image_size
        stages = tuple(replace(stage, image_size=round(stage.image_size * factor)) for stage in stages)
        recipe = replace(recipe, test_size=round_test_size(image_size, variant.max_size))
    if batch_size is not None:
        stages = tuple(replace(stage, batch_size=batch_size) for stage in stages)
    return replace(recipe, stages=stages, learning_rate=learning_rate or recipe.learning_rate)
