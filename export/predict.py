"""Owns prediction: pictures in, the likeliest class or all labels out, by any `Runner`; it prints nothing."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from export.contract import Contract
from export.interface import scores_of
from export.options import TOP
from export.runners.mirrored import Mirrored
from export.runners.runner import Runner, are_finite, not_finite
from zoo.data.decode import open_picture
from zoo.data.named import Named
from zoo.data.preprocess import prepare
from zoo.errors import ArtifactError, BrokenPictureError
from zoo.visible import visible

BATCH_SIZE = 8


@dataclass(frozen=True, kw_only=True)
class Prediction:
    """One class with its score in 0…1. No `Row`: a server makes several for every answer.

    The score is the softmax or, of a network that answers several labels, the sigmoid; then `threshold` is the score
    from which on the class is one.
    """

    class_name: str
    index: int
    score: float
    threshold: float | None = None

    def to_dict(self) -> dict[str, Any]:
        """Return plain JSON types; "class" is no name that Python allows for a field."""
        fields = {"class": self.class_name, "index": self.index, "score": self.score}
        return fields if self.threshold is None else fields | {"threshold": self.threshold}


@dataclass(frozen=True, kw_only=True)
class Classification:
    """The predictions for one picture, best first; or why there are none.

    `multi_label`: the predictions are all labels of the picture, of which there may be none. `flip`: its mirror image
    was looked at, too.
    """

    picture: Path | str
    predictions: tuple[Prediction, ...] = ()
    error: BrokenPictureError | None = None
    multi_label: bool = False
    flip: bool = False

    def to_dict(self) -> dict[str, Any]:
        """One line of `zoo predict --json`, which broken pictures have none of."""
        task: dict[str, Any] = {"task": "multi-label"} if self.multi_label else {}
        task |= {"flip": True} if self.flip else {}
        return {"picture": str(self.picture), **task, "predictions": [row.to_dict() for row in self.predictions]}


def predict(
    runner: Runner, pictures: Sequence[Path | Named], *, top: int | None = None, calibrated: bool = False
) -> Iterator[Classification]:
    """Classify pictures in batches, in their order; a broken one does not stop the rest.

    Args:
        runner: any back end, or one that asks it for mirror images too (`open_runner` with `flip`).
        pictures: files, or what `zoo.data.named.find_pictures` found; those of an address are fetched a batch at once.
        top: how many classes are named; None: `TOP` or, where a picture may have several labels, all that reach their
            thresholds.
        calibrated: scores are the softmax of logits divided by the temperature that the artifact carries.

    Raises:
        ArtifactError: no temperature where one is asked for, or it answers several labels, or from two views. Or logits
            that are not finite: at the end, after the classes of all other pictures.
    """
    temperature = _temperature_of(runner) if calibrated else 1.0
    step = min(BATCH_SIZE, runner.max_batch_size or BATCH_SIZE)
    unusable = broken = 0
    for start in range(0, len(pictures), step):
        for found in _predict_batch(runner, pictures[start : start + step], top, temperature):
            if found is None:
                unusable += 1
                continue
            broken += found.error is not None
            yield found
    if unusable:
        raise not_finite(runner.artifact, unusable, len(pictures) - broken)


def _temperature_of(runner: Runner) -> float:
    if runner.contract.thresholds is not None:
        raise ArtifactError(
            f"{runner.artifact} answers several labels, each by a score of its own; no temperature is fitted to them.",
            "Leave --calibrated out.",
        )
    if isinstance(runner, Mirrored):
        raise ArtifactError(
            f"The temperature of {runner.artifact} is fitted to answers to one picture, not to the mean with those to "
            "its mirror image.",
            "Leave --calibrated or --flip out.",
        )
    if runner.temperature is None:
        raise ArtifactError(
            f"{runner.artifact} carries no temperature, by which --calibrated could divide its logits.",
            "`zoo train` fits one at the end of a run, and what is exported from its checkpoint carries it too: train "
            "again, or leave --calibrated out.",
        )
    return runner.temperature


def _predict_batch(
    runner: Runner, pictures: Sequence[Path | Named], top: int | None, temperature: float
) -> Iterator[Classification | None]:
    """The classification of each picture; None of one whose logits are not finite."""
    preprocessing = runner.contract.preprocessing
    prepared: list[NDArray[np.uint8] | BrokenPictureError] = []
    names = [picture.name if isinstance(picture, Named) else picture for picture in pictures]
    with ThreadPoolExecutor(len(pictures)) as pool:
        stored = list(pool.map(_stored, pictures))
    for name, source in zip(names, stored, strict=True):
        try:
            if isinstance(source, BrokenPictureError):
                raise source
            image = open_picture(source, name=visible(str(name)), channels=preprocessing.channels)
            prepared.append(prepare(image, preprocessing))
        except BrokenPictureError as error:
            prepared.append(error)
    good = [item for item in prepared if not isinstance(item, BrokenPictureError)]
    outputs = runner.infer(np.stack(good)) if good else np.empty((0, 1), np.float32)
    rows = iter(zip(outputs, are_finite(outputs), strict=True))
    for picture, item in zip(names, prepared, strict=True):
        if isinstance(item, BrokenPictureError):
            yield Classification(picture=picture, error=item)
            continue
        row, usable = next(rows)
        if not usable:
            yield None
            continue
        found = answer_of(row, runner.contract, top, temperature=temperature)
        several, flip = runner.contract.thresholds is not None, isinstance(runner, Mirrored)
        yield Classification(picture=picture, predictions=found, multi_label=several, flip=flip)


def _stored(picture: Path | Named) -> Path | bytes | BrokenPictureError:
    """A picture's file or bytes, or why there are none."""
    try:
        return picture.stored() if isinstance(picture, Named) else picture
    except BrokenPictureError as error:
        return error


def answer_of(
    outputs: NDArray[np.float32], contract: Contract, top: int | None = None, *, temperature: float = 1.0
) -> tuple[Prediction, ...]:
    """What one picture's outputs (K,) say, best first: its likeliest classes, or all labels that reach thresholds.

    Args:
        outputs: as `Runner.infer` answers them.
        contract: of the runner.
        top: the so many likeliest classes instead, of several labels too: their thresholds say which of them count.
        temperature: what logits are divided by.
    """
    return named(scores_of(outputs, contract, temperature=temperature)[None], contract, top)[0]


def named(scores: NDArray[np.float32], contract: Contract, top: int | None = None) -> list[tuple[Prediction, ...]]:
    """`answer_of` several pictures' scores (N, K), all at once: a call of NumPy for each picture takes more time."""
    if contract.thresholds is None:
        return best_of(scores, contract.classes, TOP if top is None else top)
    thresholds = contract.thresholds
    return [
        tuple(
            replace(one, threshold=thresholds[one.index])
            for one in likeliest
            if top is not None or one.score >= thresholds[one.index]
        )
        for likeliest in best_of(scores, contract.classes, scores.shape[1] if top is None else top)
    ]


def best_of(scores: NDArray[np.float32], classes: Sequence[str], top: int) -> list[tuple[Prediction, ...]]:
    """The `top` classes of each picture's scores (N, K), best first; equal scores in index order."""
    return [
        tuple(
            Prediction(class_name=classes[index], index=index, score=score) for index, score in zip(*row, strict=True)
        )
        for row in _ordered(scores, top)
    ]


def _ordered(scores: NDArray[np.float32], top: int) -> Iterator[tuple[list[int], list[float]]]:
    """The indices of each row's `top` highest scores, best first, and these scores.

    Of many scores those below the last one wanted are not sorted.
    """
    if 4 * top > scores.shape[1]:
        every = np.argsort(-scores, axis=1, kind="stable")[:, :top]
        yield from zip(every.tolist(), np.take_along_axis(scores, every, axis=1).tolist(), strict=True)
        return
    last = np.partition(scores, -top, axis=1)[:, -top, None]
    rows, columns = np.nonzero(scores >= last)
    order = np.lexsort((columns, -scores[rows, columns], rows))
    rows, columns = rows[order], columns[order]
    found, indices = scores[rows, columns].tolist(), columns.tolist()
    for start in np.searchsorted(rows, np.arange(len(scores))).tolist():
        yield indices[start : start + top], found[start : start + top]
