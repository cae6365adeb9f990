"""Owns what the network makes of the validation pictures; when it is asked is the loop's."""

from __future__ import annotations

from collections.abc import Generator, Sequence
from contextlib import closing
from dataclasses import dataclass
from itertools import chain
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional as F

from train.input.loader import Batch, load_validation
from train.learn.run import Settings
from train.learn.step import autocast, normalize
from train.processes.distributed import gather
from zoo.data.pictures import Pictures
from zoo.errors import DataError
from zoo.model.network import Network
from zoo.model.spec import Preprocessing


@dataclass(frozen=True, kw_only=True)
class Answers:
    """What the network said of each readable picture, (N,) each: the picture's index in the set, its class, the class
    it was taken for, and the scores (softmax, 0…1) of both.
    """

    index: NDArray[np.int64]
    label: NDArray[np.int64]
    predicted: NDArray[np.int64]
    label_score: NDArray[np.float32]
    score: NDArray[np.float32]


@dataclass(frozen=True)
class Validation:
    """Result on the validation pictures."""

    loss: float
    top1: float
    broken: tuple[str, ...]
    answers: Answers


def validate_together(
    model: Network, pictures: Pictures, preprocessing: Preprocessing, settings: Settings
) -> Validation:
    """`validate`, every process taking its share; all of them get the whole result."""
    world = settings.world
    if world.is_alone or len(pictures) < world.size:
        return validate(model, pictures, preprocessing, settings)
    shares = [np.arange(rank, len(pictures), world.size) for rank in range(world.size)]
    own = validate(model, pictures.at(shares[world.rank]), preprocessing, settings)
    return merge_validations(gather(world, own), shares)


def merge_validations(parts: Sequence[Validation], shares: Sequence[NDArray[np.int64]]) -> Validation:
    """One validation of several; part i is over the pictures `shares[i]`."""
    counts = [len(part.answers.index) for part in parts]
    index = np.concatenate([share[part.answers.index] for part, share in zip(parts, shares, strict=True)])
    order = index.argsort(kind="stable")

    def joined(name: str) -> NDArray[Any]:
        values: NDArray[Any] = np.concatenate([getattr(part.answers, name) for part in parts])[order]
        return values

    label, predicted = joined("label"), joined("predicted")
    return Validation(
        sum(part.loss * count for part, count in zip(parts, counts, strict=True)) / sum(counts),
        float((label == predicted).mean()),
        tuple(chain.from_iterable(part.broken for part in parts)),
        Answers(
            index=index[order],
            label=label,
            predicted=predicted,
            label_score=joined("label_score"),
            score=joined("score"),
        ),
    )


@torch.inference_mode()
def validate(model: Network, pictures: Pictures, preprocessing: Preprocessing, settings: Settings) -> Validation:
    """Measure loss and accuracy over all readable pictures, in float32 sums.

    Raises:
        DataError: no picture could be decoded.
    """
    loss_sum = 0.0
    broken: list[str] = []
    parts: list[Tensor] = []
    first = 0
    with closing(_logits(model, pictures, preprocessing, settings)) as answered:
        for logits, batch in answered:
            broken += batch.broken
            labels, scores = batch.labels, logits.softmax(1)
            loss_sum += F.cross_entropy(logits, labels, reduction="sum").item()
            score, predicted = scores.max(1)
            own = scores.gather(1, labels[:, None])[:, 0]
            parts.append(torch.stack([first + batch.positions, labels, predicted, own, score]).double())
            first += len(labels) + len(batch.broken)
    columns: NDArray[np.float64] = torch.cat(parts, dim=1).numpy() if parts else np.empty((5, 0))
    index, label, answer, own, score = columns
    count = len(index)
    if not count:
        raise DataError("Not one validation picture could be decoded.", "The files are damaged, or not pictures.")
    answers = Answers(
        index=index.astype(np.int64),
        label=label.astype(np.int64),
        predicted=answer.astype(np.int64),
        label_score=own.astype(np.float32),
        score=score.astype(np.float32),
    )
    top1 = float((answers.label == answers.predicted).mean())
    return Validation(loss_sum / count, top1, tuple(broken), answers)


def _logits(
    model: Network, pictures: Pictures, preprocessing: Preprocessing, settings: Settings
) -> Generator[tuple[Tensor, Batch], None, None]:
    """Logits (N, K) float32 on the CPU, and the batch they are of; N is 0 where every picture of it is broken."""
    pin = settings.device.type == "cuda"
    with closing(load_validation(pictures, preprocessing, batch_size=64, workers=settings.workers, pin=pin)) as loaded:
        for batch in loaded:
            if not len(batch.labels):
                yield torch.empty(0, model.num_classes), batch
                continue
            inputs = normalize(batch.pictures.to(settings.device, non_blocking=True), preprocessing)
            with autocast(settings):
                logits = model(inputs)
            yield logits.float().cpu(), batch
