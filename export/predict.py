"""Owns prediction: pictures in, the likeliest classes out, by any `Runner`; it prints nothing."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from export.options import PredictOptions
from export.runners.runner import Runner, are_finite, not_finite
from zoo.data.decode import open_picture
from zoo.data.preprocess import prepare, softmax
from zoo.errors import BrokenPictureError

BATCH_SIZE = 8


@dataclass(frozen=True, kw_only=True)
class Prediction:
    """One class with its softmax score in 0…1. No `Row`: a server makes several for every answer."""

    class_name: str
    index: int
    score: float

    def to_dict(self) -> dict[str, Any]:
        """Return plain JSON types; "class" is no name that Python allows for a field."""
        return {"class": self.class_name, "index": self.index, "score": self.score}


@dataclass(frozen=True, kw_only=True)
class Classification:
    """The predictions for one picture, best first; or why there are none."""

    picture: Path
    predictions: tuple[Prediction, ...] = ()
    error: BrokenPictureError | None = None

    def to_dict(self) -> dict[str, Any]:
        """One line of `zoo predict --json`, which broken pictures have none of."""
        return {"picture": str(self.picture), "predictions": [row.to_dict() for row in self.predictions]}


def predict(runner: Runner, pictures: Sequence[Path], *, top: int = PredictOptions.top) -> Iterator[Classification]:
    """Classify picture files in batches, in their order; a broken one does not stop the rest. `top` classes are named.

    Raises:
        ArtifactError: logits that are not finite; at the end, after the classes of all other pictures.
    """
    step = min(BATCH_SIZE, runner.max_batch_size or BATCH_SIZE)
    unusable = broken = 0
    for start in range(0, len(pictures), step):
        for found in _predict_batch(runner, pictures[start : start + step], top):
            broken += found.error is not None
            if found.error or found.predictions:
                yield found
            else:
                unusable += 1
    if unusable:
        raise not_finite(runner.artifact, unusable, len(pictures) - broken)


def _predict_batch(runner: Runner, pictures: Sequence[Path], top: int) -> Iterator[Classification]:
    """The classification of each picture; one whose logits are not finite has neither predictions nor an error."""
    prepared: list[NDArray[np.uint8] | BrokenPictureError] = []
    for picture in pictures:
        try:
            prepared.append(prepare(open_picture(picture), runner.contract.preprocessing))
        except BrokenPictureError as error:
            prepared.append(error)
    good = [item for item in prepared if not isinstance(item, BrokenPictureError)]
    logits = runner.infer(np.stack(good)) if good else np.empty((0, 1), np.float32)
    rows = iter(zip(logits, are_finite(logits), strict=True))
    for picture, item in zip(pictures, prepared, strict=True):
        if isinstance(item, BrokenPictureError):
            yield Classification(picture=picture, error=item)
            continue
        row, usable = next(rows)
        best = best_of(softmax(row), runner.contract.classes, top) if usable else ()
        yield Classification(picture=picture, predictions=best)


def best_of(scores: NDArray[np.float32], classes: Sequence[str], top: int) -> tuple[Prediction, ...]:
    """The `top` classes of one picture's scores (K,), best first; equal scores in index order."""
    order = np.argsort(-scores, kind="stable")[:top]
    return tuple(Prediction(class_name=classes[index], index=int(index), score=float(scores[index])) for index in order)
