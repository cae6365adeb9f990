"""Owns one optimizer step: augment, normalise, erase, mix, forward, backward, average.

Which pictures, and when, is the loop's.
"""

from __future__ import annotations

from collections.abc import Iterable
from contextlib import AbstractContextManager

import numpy as np
import torch
from torch import Tensor, nn

from train.augment.device import augment_batch
from train.augment.erasing import erase
from train.augment.mixing import mix_batch
from train.augment.transfer import send
from train.input.loader import Batch
from train.learn.job import Job
from train.learn.run import Run
from train.processes.distributed import sharing_gradients
from train.progressive.recipe import TrainingStage
from train.settings import Settings
from zoo.errors import DataError
from zoo.model.spec import Preprocessing


def train_step(
    run: Run, job: Job, stage: TrainingStage, parts: Iterable[Batch], rng: np.random.Generator, *, num_parts: int = 1
) -> tuple[Tensor, Tensor, int]:
    """One optimizer step over the `num_parts` parts of a batch, whose gradients are averaged.

    Several processes exchange gradients once, with the last part.

    Returns:
        Sum of the losses and number of right answers (scalars, left on the device; of several labels the latter is 0),
        and the number of pictures.
        If no part has two readable pictures, nothing is learnt and that number is 0.

    Raises:
        DataError: a part without two readable pictures where several processes train.
    """
    run.optimizer.zero_grad(set_to_none=True)
    loss_sum = right = torch.zeros((), device=job.settings.device)
    count = 0
    for number, part in enumerate(parts, start=1):
        if len(part.labels) < 2:  # batch norm needs two values; only a folder of broken files gets here
            if job.settings.world.is_alone:
                continue
            raise DataError(  # the other processes wait for this one's gradients
                "A part of a batch has no two readable pictures.", "`zoo data check` names the broken ones."
            )
        with sharing_gradients(run.eager, wanted=number == num_parts):
            loss, correct = _backward(run, job, stage, part, rng, 1 / num_parts)
        loss_sum = loss_sum + loss * len(part.labels)
        right = right + correct
        count += len(part.labels)
    if not count:
        return loss_sum, right, 0
    if job.recipe.clip_grad_norm is not None:
        run.scaler.unscale_(run.optimizer)
        nn.utils.clip_grad_norm_(run.model.parameters(), job.recipe.clip_grad_norm)
    run.scaler.step(run.optimizer)
    run.scaler.update()
    run.average.update(run.model, run.step)
    run.step += 1
    return loss_sum, right, count


def _backward(
    run: Run, job: Job, stage: TrainingStage, part: Batch, rng: np.random.Generator, share: float
) -> tuple[Tensor, Tensor]:
    """Add `share` of one part's gradients; returns its mean loss and its number of right answers."""
    preprocessing, device = job.preprocessing, job.settings.device
    labels = part.labels.to(device, non_blocking=True)
    raw = part.pictures.to(device, non_blocking=True)
    if part.draws is not None:
        raw = augment_batch(raw, part.draws, stage.randaugment_magnitude)
    pictures = normalize(raw, preprocessing)
    erase(pictures, stage.random_erasing_prob, job.recipe, rng)
    targets = run.objective.targets(labels)
    mix_batch(pictures, targets, mixup_alpha=stage.mixup_alpha, cutmix_alpha=stage.cutmix_alpha, rng=rng)
    # A part with broken pictures has another shape, and nothing is compiled for it.
    forward = run.forward if len(labels) in (run.part_sizes or {stage.part_size}) else run.eager
    assert forward is not None, "enter_stage comes first"
    with autocast(job.settings):
        logits = forward(pictures)
        teacher = run.objective.teacher
        taught = teacher.answer(pictures, preprocessing) if teacher else None
    loss = run.objective.loss(logits.float(), targets, taught)
    if run.step == 0 and run.first_loss is None:
        run.first_loss = (loss.detach(), run.objective.loss(run.objective.guess(logits), targets, taught))
    run.scaler.scale(loss * share).backward()  # type: ignore[no-untyped-call]
    # Of several labels no answer is the first, and mAP needs all of them at once: training has its loss alone.
    right = loss.new_zeros(()) if labels.dim() == 2 else (logits.detach().argmax(1) == labels).sum()
    return loss.detach(), right


def normalize(pictures: Tensor, preprocessing: Preprocessing) -> Tensor:
    """(N, S, S, C) uint8 to (N, C, S, S) float32, normalised; the memory stays channels-last, so nothing is copied."""
    mean, std = send(np.array([preprocessing.mean, preprocessing.std], np.float32), pictures.device).unbind()
    return ((pictures.float() - mean) / std).permute(0, 3, 1, 2)


def autocast(settings: Settings) -> AbstractContextManager[object]:
    """Mixed precision as the settings say; fp32 changes nothing."""
    dtype = torch.float16 if settings.precision == "fp16" else torch.bfloat16
    return torch.autocast(settings.device.type, dtype, enabled=settings.precision != "fp32")
