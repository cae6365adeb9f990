"""Owns what a run is made of and how it is put down and taken up again; the loop is `train/learn/loop.py`'s."""

from __future__ import annotations

import hashlib
import pickle
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any, Literal

import torch
from torch import Tensor, nn

from train.augment.host import AugmentOn
from train.learn.distill import Teacher
from train.learn.ema import WeightAverage
from train.learn.losses import Objective, make_objective
from train.learn.optim import make_optimizer
from train.processes.distributed import ALONE, World, data_parallel, synchronize_norms
from train.progressive.recipe import Recipe, TrainingStage
from zoo.data.pictures import Pictures
from zoo.errors import CheckpointError
from zoo.files import replacing
from zoo.model.build import build_network, initialize_for_short_run
from zoo.model.network import Network
from zoo.model.spec import Variant
from zoo.weights.checkpoint import Checkpoint

Precision = Literal["fp32", "bf16", "fp16"]


@dataclass(frozen=True, kw_only=True)
class Settings:
    """What a run takes from its machine and its user, besides the recipe.

    A state to resume from is written every `save_every_s` seconds, 0: after every step. Two minutes of S are 340 MB
    (weights, average, two moments of AdamW) every two minutes. Where pictures are augmented changes no draw, so a state
    may be continued with it elsewhere.
    """

    device: torch.device
    precision: Precision
    seed: int
    workers: int
    augment_on: AugmentOn = "workers"
    compile: bool = False
    save_every_s: float = 120.0
    world: World = ALONE


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
class PartialEpoch:
    """Where in an epoch a run stands: steps done, sums so far, and torch's generators as the last step left them.

    `totals` (2,) on the device: sum of losses, number of right answers, of this process. `random` has, for every
    process, the CPU's state and, where there is one, the GPU's.
    """

    totals: Tensor
    steps: int = 0
    seen: int = 0
    seconds: float = 0.0
    random: tuple[tuple[Tensor, ...], ...] = ()


@dataclass
class Run:
    """Everything that changes while training, and all that a resumed run needs.

    `forward` is what a training step calls: the model, wrapped where several processes train, compiled for the stage
    at hand where that was asked for; `eager` is the same, not compiled. `partial` is None between epochs.
    """

    model: Network
    average: WeightAverage
    optimizer: torch.optim.Optimizer
    objective: Objective
    scaler: torch.amp.GradScaler
    step: int = 0
    history: list[Epoch] = field(default_factory=list)
    broken: set[str] = field(default_factory=set)
    partial: PartialEpoch | None = None
    eager: nn.Module | None = None
    forward: Callable[[Tensor], Tensor] | None = None


@dataclass(frozen=True)
class Start:
    """Weights to begin from, with the card that says what they expect, and where they came from."""

    network: Network
    card: Checkpoint
    label: str


def start_run(
    variant: Variant,
    classes: tuple[str, ...],
    recipe: Recipe,
    settings: Settings,
    start: Start | None = None,
    teacher: Teacher | None = None,
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
    if settings.device.type == "cuda" and not settings.world.is_alone:
        synchronize_norms(model)
    model.to(settings.device, memory_format=torch.channels_last)  # type: ignore[call-overload]
    return Run(
        model,
        WeightAverage(model, recipe.ema_decay),
        make_optimizer(model, recipe),
        make_objective(recipe, len(classes), settings.device, teacher),
        torch.amp.GradScaler(settings.device.type, enabled=settings.precision == "fp16"),
    )


def enter_stage(run: Run, stage: TrainingStage, settings: Settings) -> None:
    """Set what changes at the beginning of a stage; weights, optimizer, average and schedule go on."""
    run.model.set_dropout(stage.dropout)
    run.model.set_stochastic_depth(stage.stochastic_depth_prob)
    run.model.requires_grad_(not stage.freeze_backbone)
    run.model.classifier.requires_grad_(True)
    if stage.freeze_backbone:
        run.model.eval()  # batch norm keeps its statistics, stochastic depth is off
        run.model.dropout.train()
    else:
        run.model.train()
    if settings.device.type == "cuda":
        torch.cuda.empty_cache()  # blocks of the last stage's shapes are of no use to this one's
    # Wrapped anew for each stage: what is frozen is settled when the wrapper is made.
    run.eager = data_parallel(run.model, settings.world, settings.device)
    run.forward = run.eager
    if settings.compile:
        # A stage is one graph of fixed shapes. What was compiled for the last one is dropped: sizes would add up to
        # torch's limit of recompilations, behind which it silently stops compiling.
        torch.compiler.reset()
        run.forward = torch.compile(run.eager, dynamic=False)


def _identity(recipe: Recipe, settings: Settings, train_set: Pictures) -> dict[str, Any]:
    """What must be equal for a state to be continued.

    Not `accumulate`: in how many parts a batch is taken is the machine's business, and may change with it. The
    precision may not: it changes what is learnt, and fp16's loss scaling has a state that the others have not.
    """
    whole = replace(recipe, stages=tuple(replace(stage, accumulate=1) for stage in recipe.stages))
    return {
        "recipe": whole.to_dict(),
        "seed": settings.seed,
        "precision": settings.precision,
        "classes": list(train_set.classes),
        "pictures": len(train_set),
        "labels": hashlib.sha256(train_set.labels.tobytes()).hexdigest(),  # in their order, which steps are counted in
    }


def save_state(run: Run, recipe: Recipe, settings: Settings, train_set: Pictures, path: Path) -> None:
    """Write all that a resumed run needs, whole or not at all."""
    state = {
        "model": run.model.state_dict(),
        "average": run.average.model.state_dict(),
        "optimizer": run.optimizer.state_dict(),
        "scaler": run.scaler.state_dict(),
        "step": run.step,
        "history": [asdict(line) for line in run.history],
        "partial": vars(run.partial) if run.partial else None,
        "broken": sorted(run.broken),
        "identity": _identity(recipe, settings, train_set),
    }
    with replacing(path) as temporary:
        torch.save(state, temporary)


STATE_KEYS = {"model", "average", "optimizer", "scaler", "step", "history", "partial", "broken", "identity"}


def read_state(path: Path, device: torch.device) -> Mapping[str, Any]:
    """Read what `save_state` wrote.

    Raises:
        CheckpointError: the file is damaged.
    """
    try:
        state = torch.load(path, map_location=device, weights_only=True)
    except (RuntimeError, OSError, EOFError, ValueError, LookupError, pickle.UnpicklingError) as error:
        raise CheckpointError(f"{path} is damaged: it cannot be continued.", "Start again without --resume.") from error
    if not isinstance(state, dict) or not state.keys() >= STATE_KEYS:
        raise CheckpointError(f"{path} is not the state of a run of ours.", "Start again without --resume.")
    return state


def load_state(run: Run, recipe: Recipe, settings: Settings, train_set: Pictures, path: Path) -> None:
    """Put a run back where `save_state` left it.

    Raises:
        CheckpointError: the file is damaged, or belongs to another recipe, seed, precision or data set.
    """
    state = read_state(path, settings.device)
    there = state["identity"]
    wanted = _identity(recipe, settings, train_set)
    named = ("seed", "precision", "pictures")  # the others have no short value
    changed = [
        f"{key} ({there.get(key, 'unknown')}, here {value})" if key in named else key
        for key, value in wanted.items()
        if there.get(key) != value
    ]
    if changed:
        raise CheckpointError(
            f"{path} belongs to a run with other {' and '.join(changed)}.",
            "Give the flags of that run again, or start anew without --resume.",
        )
    run.model.load_state_dict(state["model"])
    run.average.model.load_state_dict(state["average"])
    run.optimizer.load_state_dict(state["optimizer"])
    run.scaler.load_state_dict(state["scaler"])
    run.step = state["step"]
    run.history = [Epoch(**line) for line in state["history"]]
    run.broken = set(state["broken"])
    partial = PartialEpoch(**state["partial"]) if state["partial"] else None
    # Another number of processes has other batches: it begins the epoch anew.
    run.partial = partial if partial and len(partial.random) == settings.world.size else None
    if run.partial and not settings.world.is_first:
        run.partial.totals.zero_()  # the sums on disk are everybody's
        run.partial.seen = 0


def keep_random_state(device: torch.device) -> tuple[Tensor, ...]:
    """torch's generators as they stand: dropout and stochastic depth draw from them."""
    gpu = (torch.cuda.get_rng_state(),) if device.type == "cuda" else ()
    return torch.get_rng_state(), *gpu


def restore_random_state(states: tuple[Tensor, ...]) -> None:
    """Put torch's generators back to what `keep_random_state` returned."""
    cpu, *gpu = states
    torch.set_rng_state(cpu.cpu())
    if gpu:
        torch.cuda.set_rng_state(gpu[0].cpu())
