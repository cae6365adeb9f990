"""Owns what the network answers to the validation pictures; the loop decides when it is asked."""

from __future__ import annotations

from collections.abc import Callable, Generator, Sequence
from contextlib import closing
from dataclasses import dataclass
from itertools import chain

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional as F

from train.input.decoders import load_validation
from train.input.loader import Batch
from train.learn.label_answers import LabelAnswers, LabelValidation, merge_label_validations
from train.learn.run import DIVERGED_HINT
from train.learn.step import autocast, normalize
from train.processes.distributed import gather
from train.settings import Settings
from zoo.data.pictures import Pictures
from zoo.errors import DataError, DivergedError
from zoo.model.network import Network
from zoo.model.spec import Preprocessing

# A validation keeps at most about so many logits, 8 MB: 2,000 pictures of 1,000 classes fit one temperature well.
SAMPLED_VALUES = 2_000_000
VALIDATION_BATCH = 64
Chosen = NDArray[np.int64] | None


@dataclass(frozen=True)
class Answers:
    """What the network answered to each readable picture, (N,) each: the picture's index in the set, its class, the
    predicted class, and the scores (softmax, 0…1) of both.
    """

    index: NDArray[np.int64]
    label: NDArray[np.int64]
    predicted: NDArray[np.int64]
    label_score: NDArray[np.float32]
    score: NDArray[np.float32]


@dataclass(frozen=True)
class Sample:
    """Logits (M, K) float32 of pictures that are spread over the set, and their classes (M,): of small sets all."""

    logits: NDArray[np.float32]
    label: NDArray[np.int64]


@dataclass(frozen=True)
class Validation:
    """Result on the validation pictures; the loss, a sum, may be infinite where no answer is.

    `unusable` counts the pictures whose answers are not finite; where there are any, nothing else may be used.
    `sample` is what a temperature is fitted to.
    """

    loss: float
    top1: float
    broken: tuple[str, ...]
    answers: Answers
    unusable: int = 0
    sample: Sample | None = None
    map: None = None


# What a network is worth on pictures of one class each, or of several labels.
Judged = Validation | LabelValidation


def validate_together(
    model: Network, pictures: Pictures, preprocessing: Preprocessing, settings: Settings, chosen: Chosen = None
) -> Judged:
    """`validate`, or `validate_labels`, of which every process does a share; all of them return the whole result.

    Indices of the answers are the pictures' in the set, `chosen` or not.

    Raises:
        DivergedError: answers are not finite: says of how many pictures. Among NaN the first class is the likeliest,
        so there would be figures.
    """
    world = settings.world
    result: Judged
    order = np.arange(len(pictures)) if chosen is None else chosen
    if world.is_alone or len(order) < world.size:
        ask = validate_labels if pictures.multi_label else validate
        result = ask(model, pictures, preprocessing, settings, order)
    else:
        share = order[world.rank :: world.size]
        if pictures.multi_label:
            labelled = validate_labels(model, pictures, preprocessing, settings, share)
            result = merge_label_validations(gather(world, labelled))
        else:
            result = merge_validations(gather(world, validate(model, pictures, preprocessing, settings, share)))
    if result.unusable:
        raise DivergedError(
            f"The network answers {result.unusable} of {len(result.answers.index)} validation pictures with logits "
            "that are not finite.",
            DIVERGED_HINT,
        )
    return result


def glanced_at(pictures: Pictures, count: int, seed: int) -> NDArray[np.int64]:
    """The indices of so many validation pictures, drawn by the seed: the same ones whenever a run looks at a part."""
    return np.sort(np.random.default_rng((seed, 13)).permutation(len(pictures))[:count])


def merge_validations(parts: Sequence[Validation]) -> Validation:
    """Join validations of different pictures into one."""
    answers = _join([part.answers for part in parts])
    order = answers.index.argsort(kind="stable")
    answers = Answers(**{name: column[order] for name, column in vars(answers).items()})
    return Validation(
        sum(part.loss * len(part.answers.index) for part in parts) / len(order),
        float((answers.label == answers.predicted).mean()),
        tuple(chain.from_iterable(part.broken for part in parts)),
        answers,
        sum(part.unusable for part in parts),
        _join_samples([part.sample for part in parts]),
    )


def _join_samples(samples: Sequence[Sample | None]) -> Sample | None:
    known = [sample for sample in samples if sample is not None]
    if not known:
        return None
    return Sample(np.concatenate([each.logits for each in known]), np.concatenate([each.label for each in known]))


def _join(parts: Sequence[Answers]) -> Answers:
    return Answers(**{name: np.concatenate([getattr(part, name) for part in parts]) for name in vars(parts[0])})


@torch.inference_mode()
def validate(
    model: Network, pictures: Pictures, preprocessing: Preprocessing, settings: Settings, chosen: Chosen = None
) -> Validation:
    """Measure loss and accuracy over all readable pictures, or the chosen ones, in float32 sums.

    Indices of the answers are the pictures' in the set.

    Raises:
        DataError: no picture could be decoded.
    """
    loss_sum = 0.0
    broken: list[str] = []
    parts: list[Answers] = []
    samples: list[Sample | None] = []
    # Every so many pictures: neighbours in the set are of one class.
    order = np.arange(len(pictures)) if chosen is None else chosen
    stride = -(-len(order) * model.num_classes // SAMPLED_VALUES)
    first = unusable = 0
    loading = each_batch(model, pictures, preprocessing, settings, width=model.num_classes, chosen=order)
    with closing(loading) as answered:
        for logits, batch in answered:
            broken += batch.broken
            unusable += int((~logits.isfinite().all(dim=1)).sum())
            labels, scores = batch.labels, logits.softmax(1)
            loss_sum += F.cross_entropy(logits, labels, reduction="sum").item()
            score, predicted = scores.max(1)
            columns = (
                torch.from_numpy(order)[first + batch.positions],
                labels,
                predicted,
                scores.gather(1, labels[:, None])[:, 0],
                score,
            )
            parts.append(Answers(*(column.numpy() for column in columns)))
            kept = (first + batch.positions) % stride == 0
            samples.append(Sample(logits[kept].numpy(), labels[kept].numpy()))
            first += len(labels) + len(batch.broken)
    count = sum(len(part.index) for part in parts)
    if not count:
        raise _none_decoded()
    answers = _join(parts)
    top1 = float((answers.label == answers.predicted).mean())
    return Validation(loss_sum / count, top1, tuple(broken), answers, unusable, _join_samples(samples))


@torch.inference_mode()
def validate_labels(
    model: Network, pictures: Pictures, preprocessing: Preprocessing, settings: Settings, chosen: Chosen = None
) -> LabelValidation:
    """`validate` of pictures that may have several labels. It keeps all scores: 5 bytes for each picture and class.

    Raises:
        DataError: no picture could be decoded.
    """
    loss_sum = 0.0
    broken: list[str] = []
    columns: list[tuple[NDArray[np.int64], NDArray[np.bool_], NDArray[np.float32]]] = []
    first = unusable = 0
    order = np.arange(len(pictures)) if chosen is None else chosen
    loading = each_batch(model, pictures, preprocessing, settings, width=model.num_classes, chosen=order)
    with closing(loading) as answered:
        for logits, batch in answered:
            broken += batch.broken
            if len(batch.labels):
                unusable += int((~logits.isfinite().all(dim=1)).sum())
                loss = F.binary_cross_entropy_with_logits(logits, batch.labels.float(), reduction="sum")
                loss_sum += loss.item()
                columns.append(
                    (order[(first + batch.positions).numpy()], batch.labels.numpy(), logits.sigmoid().numpy())
                )
            first += len(batch.labels) + len(batch.broken)
    if not columns:
        raise _none_decoded()
    index, targets, scores = (np.concatenate(parts) for parts in zip(*columns, strict=True))
    return LabelValidation(loss_sum / len(index), tuple(broken), LabelAnswers(index, targets, scores), unusable)


def _none_decoded() -> DataError:
    return DataError("Not one validation picture could be decoded.", "The files are damaged, or not pictures.")


def each_batch(
    forward: Callable[[Tensor], Tensor],
    pictures: Pictures,
    preprocessing: Preprocessing,
    settings: Settings,
    *,
    width: int,
    chosen: Chosen = None,
) -> Generator[tuple[Tensor, Batch], None, None]:
    """What `forward` makes of the pictures as validation sees them, (N, width) float32 on the CPU, with their batch.

    N is 0 if every picture of the batch is broken. `chosen` are the pictures' indices; None: all.
    """
    order = None if chosen is None else chosen.tolist()
    asked = load_validation(
        pictures,
        preprocessing,
        batch_size=VALIDATION_BATCH,
        workers=settings.workers,
        pin=settings.pin,
        chosen=order,
    )
    with closing(asked) as loaded:
        for batch in loaded:
            if not len(batch.labels):
                yield torch.empty(0, width), batch
                continue
            inputs = normalize(batch.pictures.to(settings.device, non_blocking=True), preprocessing)
            with autocast(settings):
                made = forward(inputs)
            yield made.float().cpu(), batch
