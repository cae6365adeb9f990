"""Owns the loop: stages, epochs, steps, validation and what is needed to go on; it draws and prints nothing."""

from __future__ import annotations

import math
import time
from collections.abc import Iterator
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from train.augment import mix_batch
from train.loader import Augmented, Batch, epoch_batches, load, load_validation
from train.recipe import Recipe, TrainingStage
from train.run import Epoch, Run, Settings, save_state
from train.schedule import learning_rate, stage_of_epoch
from zoo.datasets import Pictures
from zoo.errors import DataError, ZooError
from zoo.model import Network
from zoo.spec import Preprocessing

# A state of S is 340 MB (weights, average, two moments of AdamW): not worth writing after epochs of seconds.
STATE_INTERVAL_S = 30.0


@dataclass(frozen=True)
class Validation:
    """Result on the validation pictures; `confusion[i, j]` counts class i taken for class j."""

    loss: float
    top1: float
    confusion: np.ndarray[tuple[int, int], np.dtype[np.int64]]
    broken: tuple[str, ...]


class Watcher(Protocol):
    """Sees a run go by: the live view and the record on disk."""

    def on_stage(self, index: int, stage: TrainingStage) -> None:
        """A stage begins."""

    def on_step(self, epoch: int, step: int, steps: int, pictures: int, loss: float | None) -> None:
        """A step ended; `loss` is None where reading it would make the device wait."""

    def on_broken(self, message: str) -> None:
        """A picture could not be decoded; told once per picture."""

    def on_epoch(self, run: Run, epoch: Epoch) -> None:
        """An epoch and its validation ended."""


def fit(
    run: Run,
    recipe: Recipe,
    train_set: Pictures,
    val_set: Pictures,
    preprocessing: Preprocessing,
    settings: Settings,
    *,
    state_path: Path,
    watcher: Watcher,
) -> Validation:
    """Train from where `run` stands to the end of the recipe.

    Returns:
        The averaged weights' validation at the recipe's test size. The weights are in `run.average.model`.

    Raises:
        DataError: no picture could be decoded. ZooError: the loss is no longer finite.
    """
    result = None
    saved_at = time.monotonic()
    scaler = torch.amp.GradScaler(settings.device.type, enabled=settings.precision == "fp16")
    for epoch in range(len(run.history), recipe.epochs):
        index = stage_of_epoch(recipe.stages, epoch)
        stage = recipe.stages[index]
        if epoch == sum(earlier.epochs for earlier in recipe.stages[:index]) or not run.history:
            watcher.on_stage(index, stage)
        run.model.set_dropout(stage.dropout)
        run.model.set_stochastic_depth(stage.stochastic_depth_prob)
        # Dropout and stochastic depth draw from torch's own generator: fixed per epoch, a resumed run draws the same.
        torch.manual_seed(settings.seed * 100_003 + epoch)
        started = time.monotonic()
        loss, top1, seen = _train_epoch(run, recipe, stage, train_set, preprocessing, settings, scaler, epoch, watcher)
        seconds = time.monotonic() - started
        val_size = round(stage.image_size * recipe.test_size / recipe.stages[-1].image_size)
        result = validate(run.average.model, val_set, preprocessing.at(val_size), settings)
        _report_broken(run, result.broken, watcher)
        line = Epoch(
            epoch=epoch + 1,
            stage=index + 1,
            image_size=stage.image_size,
            learning_rate=learning_rate(recipe, epoch + 1),
            train_loss=loss,
            train_top1=top1,
            val_loss=result.loss,
            val_top1=result.top1,
            val_size=val_size,
            pictures_per_second=seen / seconds,
            seconds=seconds,
            broken=len(run.broken),
        )
        run.history.append(line)
        watcher.on_epoch(run, line)
        if time.monotonic() - saved_at > STATE_INTERVAL_S and epoch + 1 < recipe.epochs:
            save_state(run, recipe, settings, train_set, state_path)
            saved_at = time.monotonic()
    return result or validate(run.average.model, val_set, preprocessing.at(recipe.test_size), settings)


def _train_epoch(
    run: Run,
    recipe: Recipe,
    stage: TrainingStage,
    train_set: Pictures,
    preprocessing: Preprocessing,
    settings: Settings,
    scaler: torch.amp.GradScaler,
    epoch: int,
    watcher: Watcher,
) -> tuple[float, float, int]:
    """One pass over the pictures: mean loss, accuracy on the unmixed labels, pictures seen."""
    device = settings.device
    batches = epoch_batches(train_set, recipe, stage, seed=settings.seed, epoch=epoch)
    dataset = Augmented(train_set, recipe, stage, settings.seed, epoch)
    totals = torch.zeros(2, device=device)  # sum of losses, number right: on the device, so that no step waits
    seen = 0
    run.model.train()
    loaded = load(dataset, batches, workers=settings.workers, pin=device.type == "cuda")
    for step, batch in enumerate(loaded):
        _report_broken(run, batch.broken, watcher)
        if len(batch.labels) < 2:  # batch norm needs two values; only a folder of broken files gets here
            continue
        for group in run.optimizer.param_groups:
            group["lr"] = learning_rate(recipe, epoch + (step + 1) / len(batches))
        loss, right = train_step(
            run,
            batch,
            recipe,
            stage,
            preprocessing,
            settings,
            scaler,
            np.random.default_rng((settings.seed, epoch, 7, step)),
        )
        count = len(batch.labels)
        totals += torch.stack([loss * count, right.float()])
        seen += count
        # Host–device synchronisation: on a GPU only every 20th step reads the loss back.
        readable = device.type == "cpu" or step % 20 == 0 or step + 1 == len(batches)
        value = loss.item() if readable else None
        if value is not None and not math.isfinite(value):
            raise ZooError(
                f"The loss became {value} in epoch {epoch + 1}, step {step + 1} ({stage.image_size} px).",
                "Lower --lr or use --precision fp32; --resume goes on from the last good state.",
            )
        watcher.on_step(epoch, step + 1, len(batches), count, value)
    if not seen:
        raise DataError("Not one training picture could be decoded.", "The files are damaged, or not pictures.")
    loss_sum, right_sum = totals.tolist()
    return loss_sum / seen, right_sum / seen, seen


def train_step(
    run: Run,
    batch: Batch,
    recipe: Recipe,
    stage: TrainingStage,
    preprocessing: Preprocessing,
    settings: Settings,
    scaler: torch.amp.GradScaler,
    rng: np.random.Generator,
) -> tuple[Tensor, Tensor]:
    """One optimizer step: loss (scalar) and number of right answers (scalar), both left on the device."""
    device = settings.device
    labels = batch.labels.to(device, non_blocking=True)
    pictures = normalize(batch.pictures.to(device, non_blocking=True), preprocessing)
    targets = F.one_hot(labels, run.model.num_classes).float()
    targets = targets * (1.0 - recipe.label_smoothing) + recipe.label_smoothing / run.model.num_classes
    mix_batch(pictures, targets, mixup_alpha=stage.mixup_alpha, cutmix_alpha=stage.cutmix_alpha, rng=rng)
    with autocast(settings):
        logits = run.model(pictures)
    loss = F.cross_entropy(logits.float(), targets)
    run.optimizer.zero_grad(set_to_none=True)
    scaler.scale(loss).backward()  # type: ignore[no-untyped-call]
    if recipe.clip_grad_norm is not None:
        scaler.unscale_(run.optimizer)
        nn.utils.clip_grad_norm_(run.model.parameters(), recipe.clip_grad_norm)
    scaler.step(run.optimizer)
    scaler.update()
    run.average.update(run.model, run.step)
    run.step += 1
    return loss.detach(), (logits.detach().argmax(1) == labels).sum()


def normalize(pictures: Tensor, preprocessing: Preprocessing) -> Tensor:
    """(N, S, S, 3) uint8 to (N, 3, S, S) float32, normalised; the memory stays channels-last, so nothing is copied."""
    mean = torch.tensor(preprocessing.mean, device=pictures.device)
    std = torch.tensor(preprocessing.std, device=pictures.device)
    return ((pictures.float() - mean) / std).permute(0, 3, 1, 2)


def autocast(settings: Settings) -> AbstractContextManager[object]:
    """Mixed precision as the settings say; fp32 changes nothing."""
    dtype = torch.float16 if settings.precision == "fp16" else torch.bfloat16
    return torch.autocast(settings.device.type, dtype, enabled=settings.precision != "fp32")


@torch.inference_mode()
def validate(model: Network, pictures: Pictures, preprocessing: Preprocessing, settings: Settings) -> Validation:
    """Measure loss, accuracy and confusion over all readable pictures, in float32 sums.

    Raises:
        DataError: no picture could be decoded.
    """
    confusion = torch.zeros(model.num_classes, model.num_classes, dtype=torch.int64)
    loss_sum = 0.0
    broken: list[str] = []
    for logits, labels, messages in _answers(model, pictures, preprocessing, settings):
        broken += messages
        loss_sum += F.cross_entropy(logits, labels, reduction="sum").item()
        confusion.index_put_((labels, logits.argmax(1)), torch.ones_like(labels), accumulate=True)
    count = int(confusion.sum())
    if not count:
        raise DataError("Not one validation picture could be decoded.", "The files are damaged, or not pictures.")
    return Validation(loss_sum / count, int(confusion.trace()) / count, confusion.numpy(), tuple(broken))


def _answers(
    model: Network, pictures: Pictures, preprocessing: Preprocessing, settings: Settings
) -> Iterator[tuple[Tensor, Tensor, tuple[str, ...]]]:
    loaded = load_validation(
        pictures, preprocessing, batch_size=64, workers=settings.workers, pin=settings.device.type == "cuda"
    )
    for batch in loaded:
        if not len(batch.labels):
            yield torch.empty(0, model.num_classes), batch.labels, batch.broken
            continue
        inputs = normalize(batch.pictures.to(settings.device, non_blocking=True), preprocessing)
        with autocast(settings):
            logits = model(inputs)
        yield logits.float().cpu(), batch.labels, batch.broken


def _report_broken(run: Run, messages: tuple[str, ...], watcher: Watcher) -> None:
    for message in messages:
        if message not in run.broken:
            run.broken.add(message)
            watcher.on_broken(message)
