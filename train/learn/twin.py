"""Owns the same network of timm, trained by the very same step: what a benchmark puts beside ours; it times nothing."""

from __future__ import annotations

import importlib
from dataclasses import replace
from typing import Any, cast

import torch
from torch import nn

from train.learn.ema import WeightAverage
from train.learn.job import Job
from train.learn.optim import optimizer_over
from train.learn.run import Run
from train.progressive.recipe import TrainingStage
from zoo.errors import MissingCapabilityError
from zoo.model.network import Network
from zoo.model.spec import Variant
from zoo.weights.origins import ORIGINS


def load_timm(variant: Variant) -> tuple[Any, str]:
    """timm, and its name of a network.

    Raises:
        MissingCapabilityError: timm is not installed. ZooError: it has no such network.
    """
    origin = ORIGINS["timm"]
    origin.check_has(variant)
    try:
        return importlib.import_module("timm"), origin.networks[variant.id]
    except ModuleNotFoundError as error:
        raise MissingCapabilityError("--beside-timm: timm is not installed.", "pip install timm") from error


def twin_of(run: Run, job: Job, stage: TrainingStage) -> Run:
    """A run of timm's network with the optimizer, the average and the loss of ours, ready for a stage.

    Raises:
        MissingCapabilityError, ZooError: as `load_timm`.
    """
    timm, name = load_timm(job.variant)
    torch.manual_seed(job.settings.seed)
    model: nn.Module = timm.create_model(
        name, num_classes=len(job.classes), drop_rate=stage.dropout, drop_path_rate=stage.stochastic_depth_prob
    )
    model.to(job.settings.device, memory_format=torch.channels_last)  # type: ignore[call-overload]
    model.train()
    groups: list[dict[str, Any]] = [
        {
            "params": [parameter for parameter in model.parameters() if (parameter.ndim > 1) == decayed],
            "weight_decay": job.recipe.weight_decay if decayed else 0.0,
        }
        for decayed in (True, False)
    ]
    # A step asks nothing of a network but to be called, so any module can take our network's place.
    network = cast(Network, model)
    return replace(
        run,
        model=network,
        average=WeightAverage(network, job.recipe.ema_decay),
        optimizer=optimizer_over(groups, job.recipe),
        eager=model,
        forward=torch.compile(model, dynamic=False) if job.settings.compile else model,
        step=0,
        first_loss=None,
    )
