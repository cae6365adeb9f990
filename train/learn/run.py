"""Owns what changes while a run trains, and how it begins and enters a stage; the loop is `train/learn/loop.py`'s."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Annotated

import torch
from torch import Tensor, nn

from train.learn.checkpointing import checkpoint_blocks
from train.learn.ema import WeightAverage
from train.learn.job import Job
from train.learn.losses import Objective, make_objective, prior_logits
from train.learn.optim import make_optimizer
from train.processes.distributed import data_parallel, synchronize_norms
from train.progressive.balance import counts_seen
from train.progressive.rate_range import RangeTest
from train.progressive.recipe import TrainingStage
from train.settings import Settings
from zoo.heap import keep_freed_memory
from zoo.model.build import build_network, initialize_for_short_run
from zoo.model.fake_quantize import fake_quantize
from zoo.model.network import Network
from zoo.rows import Count, CountOrNone, NotNegative, Positive, Row, Share, Within

# None where it is not finite. The divergence of distillation may round to a little below 0.
Loss = Annotated[float, Within(-1)] | None

DIVERGED_HINT = "Lower --lr, clip with --set clip_grad_norm=1, or use --precision fp32."


def finite_or_none(value: float) -> float | None:
    """A loss as JSON can say it, which has no NaN and no infinity."""
    return value if math.isfinite(value) else None


@dataclass(frozen=True, kw_only=True)
class Epoch(Row):
    """One line of `metrics.jsonl`. Accuracies in 0…1; `val_size` in pixels; throughput includes data loading.

    `val_pictures` is how many of the validation pictures were looked at, None: all of them.

    Of pictures with several labels the accuracies are None, and `val_map` is what validation reached. `val_balanced` is
    the balanced accuracy, where the best epoch is chosen by it.
    """

    epoch: Count
    stage: Count
    image_size: Count
    learning_rate: NotNegative
    train_loss: Loss
    train_top1: Share | None
    val_loss: Loss
    val_top1: Share | None
    val_size: Count
    pictures_per_second: NotNegative
    seconds: NotNegative
    broken: CountOrNone
    val_map: Share | None = None
    val_pictures: Count | None = None
    val_balanced: Share | None = None

    @property
    def merit(self) -> float:
        """What validation reached: top-1 or, of several labels, mAP; 0…1."""
        return merit_of(self.val_top1, self.val_map)

    @property
    def merit_name(self) -> str:
        """“top-1”, or “mAP”."""
        return merit_name(self.val_map)


def merit_of(top1: float | None, map: float | None) -> float:
    """The one of the two figures that there is."""
    found = top1 if map is None else map
    assert found is not None, "a validation has one of the two"
    return found


def merit_name(map: float | None) -> str:
    """What `merit_of` is called."""
    return "top-1" if map is None else "mAP"


@dataclass
class PartialEpoch:
    """Where in an epoch a run stands: steps done, sums so far, and torch's generators as the last step left them.

    `totals` (2,) on the device: sum of losses and number of right answers of this process. `random` has for every
    process the state of the CPU's generator and, on a GPU, that of the GPU's.
    """

    totals: Tensor
    steps: int = 0
    seen: int = 0
    seconds: float = 0.0
    random: tuple[tuple[Tensor, ...], ...] = ()


@dataclass(frozen=True, kw_only=True)
class HeadStart(Row):
    """What a classifier fitted to the features of the weights as they are reached on the validation pictures.

    It was fitted to `features`, in `seconds`. `kept` is False where the weights' own classifier is better and stays.
    `balanced` is `val_balanced` of `Epoch`. `mirrors` is False where mirror images turned out to mislead, `grows` where
    smaller pictures do.
    """

    top1: Share | None
    loss: Loss
    features: Count
    penalty: Positive
    seconds: NotNegative
    kept: bool
    map: Share | None = None
    mirrors: bool = True
    grows: bool = True
    balanced: Share | None = None

    @property
    def merit(self) -> float:
        """Top-1 or, of several labels, mAP; 0…1."""
        return merit_of(self.top1, self.map)


@dataclass
class Best:
    """The best weights at the final size so far: after which epoch (0: the head start), and how good.

    With a `share` below 1 they lie between the head start's weights and that epoch's, so far from the former.
    """

    epoch: int
    score: tuple[float, float]
    weights: dict[str, Tensor]
    share: float = 1.0


@dataclass
class Run:
    """Everything that changes while training, and all that a resumed run needs.

    `first_loss` is the first step's loss and what guessing would have cost, left on the device, until they are read.
    `highest` is the metric's highest at the final size so far; `fitted` is the head start's classifier, by its keys.
    `best_trained` is the number and the score of the best epoch at the final size, whatever the head start reached.
    `part_sizes` are the numbers of pictures that the parts of this epoch's batches have; none: the stage's own.
    `portion` is this epoch's part of the passes in a row, (start, end), of a recipe with `epoch_pictures`.
    `eager` is the model as a training step calls it, wrapped where several processes train; `forward` is the same,
    compiled for the current stage if the settings ask for it. `partial` is None between epochs.
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
    head_start: HeadStart | None = None
    range_test: RangeTest | None = None
    best: Best | None = None
    highest: float | None = None
    fitted: dict[str, Tensor] = field(default_factory=dict)
    best_trained: tuple[int, tuple[float, float]] | None = None
    first_loss: tuple[Tensor, Tensor] | None = None
    part_sizes: frozenset[int] = frozenset()
    portion: tuple[int, int] | None = None
    eager: nn.Module | None = None
    forward: Callable[[Tensor], Tensor] | None = None


def start_run(job: Job) -> Run:
    """A network with its optimizer and average, on the device.

    It is freshly initialised or has the weights of `job.start`, whose classifier is kept only for the same classes.
    """
    recipe, settings, start = job.recipe, job.settings, job.start
    if settings.device.type == "cpu":
        keep_freed_memory()
    torch.manual_seed(settings.seed)
    model = build_network(job.variant, len(job.classes), padding=start.card.padding if start else None)
    nn.init.zeros_(model.classifier.bias)
    nn.init.zeros_(model.classifier.weight)  # undecided: the first loss is what chance costs, ln K, for any K
    prior = prior_logits(counts_seen(job.train_set, recipe), len(job.train_set)) if job.multi_label else None
    if prior is not None:  # what the labels' frequencies cost, a little less than K ln 2
        with torch.no_grad():
            model.classifier.bias.copy_(prior)
    if recipe.short_run_init:
        initialize_for_short_run(model)
    if recipe.norm_momentum is not None:
        for norm in model.norms():
            norm.momentum = recipe.norm_momentum
    if start:
        keeps = job.keeps_classifier
        kept = {k: v for k, v in start.network.state_dict().items() if keeps or not k.startswith("classifier.")}
        model.load_state_dict(model.state_dict() | kept)
    if settings.device.type == "cuda" and not settings.world.is_alone:
        synchronize_norms(model)
    if recipe.qat:
        fake_quantize(model)
    model.to(settings.device, memory_format=torch.channels_last)  # type: ignore[call-overload]
    average = WeightAverage(model, recipe.ema_decay)  # the copy that is validated keeps nothing for a gradient
    if settings.checkpoint_activations:
        checkpoint_blocks(model)
    return Run(
        model,
        average,
        make_optimizer(model, recipe),
        make_objective(recipe, len(job.classes), settings.device, job.teacher, prior),
        torch.amp.GradScaler(settings.device.type, enabled=settings.precision == "fp16"),
        portion=(0, recipe.epoch_pictures) if recipe.epoch_pictures else None,
    )


def enter_stage(run: Run, stage: TrainingStage, settings: Settings) -> None:
    """Set what changes at the beginning of a stage; weights, optimizer, average and schedule stay."""
    run.model.set_dropout(stage.dropout)
    run.model.set_stochastic_depth(stage.stochastic_depth_prob)
    run.model.requires_grad_(not stage.freeze_backbone)
    run.model.classifier.requires_grad_(True)
    if stage.freeze_backbone:
        run.model.eval()  # batch norm keeps its statistics, stochastic depth is off
        run.model.dropout.train()
    else:
        run.model.train()
        if stage.freeze_norms:
            for norm in run.model.norms():
                norm.eval()
    if settings.device.type == "cuda":
        torch.cuda.empty_cache()  # memory in the shapes of the last stage is of no use to this one
    # Wrapped anew for each stage: the wrapper looks only once at which parameters are frozen.
    run.eager = data_parallel(run.model, settings.world, settings.device)
    run.forward = run.eager
    if settings.compile:
        # A stage is one graph of fixed shapes. What was compiled for the last stage is dropped: torch counts
        # recompilations, and silently stops compiling at its limit.
        torch.compiler.reset()
        run.forward = torch.compile(run.eager, dynamic=False)
