"""Owns the answer to a picture and its mirror image together, by any runner; whether it may be asked for, too."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray

from export.contract import Contract
from export.runners.runner import Runner, are_finite
from zoo.errors import ArtifactError


class Mirrored:
    """A runner that asks another one twice, for each picture and for its mirror image, and answers with the mean.

    It is the mean of probabilities, as in Krizhevsky et al. 2012 (§4.1): of the softmax or, of several labels, of each
    sigmoid. `temperature` is None: none is fitted to such answers.
    """

    temperature: float | None = None

    def __init__(self, runner: Runner) -> None:
        """Take over a runner: it is closed with this one."""
        self._runner = runner
        self.artifact = runner.artifact
        self.contract: Contract = runner.contract
        self.backend = runner.backend
        self.device = runner.device
        self.max_batch_size = runner.max_batch_size
        self.threads = runner.threads

    def infer(self, pictures: NDArray[np.uint8]) -> NDArray[np.float32]:
        """Classify (N, S, S, C) uint8 pictures, each seen twice: mean probabilities (N, K) float32, or logits of them.

        Which of both the contract says, as for the runner that is asked.
        """
        views = (pictures, np.ascontiguousarray(pictures[:, :, ::-1]))
        answers = [self._runner.infer(view) for view in views]
        if self.contract.form.output == "probabilities":
            return np.asarray(np.mean(answers, axis=0), np.float32)
        return mean_of_views(answers, several_labels=self.contract.thresholds is not None)

    def outputs(self, pictures: NDArray[np.uint8]) -> dict[str, NDArray[Any]]:
        """The same by its name; the artifact's other outputs are of one view, and left out."""
        return {self.contract.form.output: self.infer(pictures)}

    def __enter__(self) -> Self:
        self._runner.__enter__()
        return self

    def __exit__(self, *raised: Any) -> None:
        self._runner.__exit__(*raised)


def mean_of_views(logits: Sequence[NDArray[np.float32]], *, several_labels: bool) -> NDArray[np.float32]:
    """Logits (N, K) whose softmax is the mean of the softmax of each of the views' logits (N, K).

    With several labels it is the sigmoid. It is computed from logarithms, so that what is improbable stays finite. A
    picture of which one view is not finite has NaN, as it would not have an answer either.
    """
    views = np.stack(logits).astype(np.float64)
    usable = np.stack([are_finite(view) for view in logits]).all(axis=0)
    views[:, ~usable] = 0.0
    if several_labels:
        # log p and log(1 − p); their difference is the logit.
        mean = np.logaddexp.reduce(-np.logaddexp(0.0, -views)) - np.logaddexp.reduce(-np.logaddexp(0.0, views))
    else:
        log_p = views - np.logaddexp.reduce(views, axis=2, keepdims=True)
        mean = np.logaddexp.reduce(log_p) - np.log(len(views))
    mean[~usable] = np.nan
    return np.asarray(mean.astype(np.float32))


def check_flip(artifact: str, provenance: Mapping[str, Any]) -> None:
    """Refuse mirror images of pictures that belong to another class then, such as digits.

    Args:
        provenance: as the artifact's checkpoint or passport records it. Artifacts of earlier versions name their data
            alone.

    Raises:
        ArtifactError: the artifact was trained on such pictures.
    """
    data = provenance.get("data")
    if not provenance.get("flip_keeps_class", data != "digits"):
        raise ArtifactError(
            f"{artifact} was trained on {data}: mirrored, such pictures are of another class.", "Leave --flip out."
        )
