"""Owns what a run is made of and how it is put down and taken up again; the loop is `train/loop.py`'s."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Literal

import torch

from train.ema import WeightAverage
from train.recipe import Recipe
from zoo.checkpoint import Checkpoint
from zoo.datasets import Pictures
from zoo.errors import CheckpointError
from zoo.files import replacing
from zoo.model import Network, build_network, initialize_for_short_run
from zoo.spec import Variant

Precision = Literal["fp32", "bf16", "fp16"]


@dataclass(frozen=True, kw_only=True)
class Settings:
    """What a run takes from its machine and its user, besides the recipe."""

    device: torch.device
    precision: Precision
    seed: int
    workers: int


@dataclass(frozen=True, kw_only=True)
class Epoch:
    """One line of `metrics.jsonl`. Accuracies in 0…1; `val_size` in pixels; throughput includes data loading."""

    epoch: int
    stage: int
    image_size: int
    learning_rate: float
    train_loss: float
    train_top1: float
    val_loss: float
    val_top1: float
    val_size: int
    pictures_per_second: float
    seconds: float
    broken: int


@dataclass
class Run:
    """Everything that changes while training, and all that a resumed run needs."""

    model: Network
    average: WeightAverage
    optimizer: torch.optim.Optimizer
    step: int = 0
    history: list[Epoch] = field(default_factory=list)
    broken: set[str] = field(default_factory=set)


@dataclass(frozen=True)
class Start:
    """Weights to begin from, with the card that says what they expect, and where they came from."""

    network: Network
    card: Checkpoint
    label: str


def start_run(
    variant: Variant, classes: tuple[str, ...], recipe: Recipe, settings: Settings, start: Start | None = None
) -> Run:
    """A network with its optimizer and average, on the device.

    Freshly initialised, or with the weights of `start`; its classifier is kept only for the same classes.
    """
    torch.manual_seed(settings.seed)
    model = build_network(variant, len(classes), padding=start.card.padding if start else None)
    if recipe.short_run_init:
        initialize_for_short_run(model)
    if start:
        same_classes = start.card.classes == classes
        kept = {k: v for k, v in start.network.state_dict().items() if same_classes or not k.startswith("classifier.")}
        model.load_state_dict(model.state_dict() | kept)
    model.to(settings.device, memory_format=torch.channels_last)  # type: ignore[call-overload]
    decayed = [p for p in model.parameters() if p.ndim > 1]
    spared = [p for p in model.parameters() if p.ndim <= 1]  # norms and biases
    groups = [{"params": decayed, "weight_decay": recipe.weight_decay}, {"params": spared, "weight_decay": 0.0}]
    optimizer = torch.optim.AdamW(groups, lr=recipe.learning_rate, betas=recipe.betas, fused=True)
    return Run(model, WeightAverage(model, recipe.ema_decay), optimizer)


def _identity(recipe: Recipe, settings: Settings, train_set: Pictures) -> dict[str, Any]:
    """What must be equal for a state to be continued."""
    return {
        "recipe": recipe.to_dict(),
        "seed": settings.seed,
        "classes": list(train_set.classes),
        "pictures": len(train_set),
    }


def save_state(run: Run, recipe: Recipe, settings: Settings, train_set: Pictures, path: Path) -> None:
    """Write all that a resumed run needs, whole or not at all."""
    state = {
        "model": run.model.state_dict(),
        "average": run.average.model.state_dict(),
        "optimizer": run.optimizer.state_dict(),
        "step": run.step,
        "history": [asdict(line) for line in run.history],
        "broken": sorted(run.broken),
        "identity": _identity(recipe, settings, train_set),
    }
    with replacing(path) as temporary:
        torch.save(state, temporary)


def load_state(run: Run, recipe: Recipe, settings: Settings, train_set: Pictures, path: Path) -> None:
    """Put a run back where `save_state` left it.

    Raises:
        CheckpointError: the file is damaged, or belongs to another recipe, seed or data set.
    """
    try:
        state: Mapping[str, Any] = torch.load(path, map_location=settings.device, weights_only=True)
    except (RuntimeError, OSError, EOFError, ValueError) as error:
        raise CheckpointError(f"{path} is damaged: it cannot be continued.", "Start again without --resume.") from error
    wanted = _identity(recipe, settings, train_set)
    changed = [key for key, value in wanted.items() if state["identity"].get(key) != value]
    if changed:
        raise CheckpointError(
            f"{path} belongs to a run with other {' and '.join(changed)}.",
            "Give the flags of that run again, or start anew without --resume.",
        )
    run.model.load_state_dict(state["model"])
    run.average.model.load_state_dict(state["average"])
    run.optimizer.load_state_dict(state["optimizer"])
    run.step = state["step"]
    run.history = [Epoch(**line) for line in state["history"]]
    run.broken = set(state["broken"])
