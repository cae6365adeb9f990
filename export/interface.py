"""Owns what goes into an artifact and what comes out, by its contract: the one place where outputs become scores.

Runners, the gate, evaluation, prediction and the server all come here, so that no softmax is taken twice.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from export.contract import TOP_CLASSES, TOP_SCORES, Contract
from zoo.data.preprocess import softmax
from zoo.label_scores import sigmoid

# The smallest normal float32, for a softmax that has underflown to 0; and the largest float32 below 1, for a sigmoid
# that has been rounded to it.
LEAST = float(np.finfo(np.float32).tiny)
MOST = 1.0 - 2.0**-24


@dataclass(frozen=True)
class Tensor:
    """An input or output: its name, its type as NumPy calls it, and its shape for one picture."""

    name: str
    dtype: Literal["uint8", "float32", "int64"]
    shape: tuple[int, ...]


def input_of(contract: Contract) -> Tensor:
    """The one input of a graph that keeps `contract`; its first axis is the batch."""
    size, channels = contract.preprocessing.image_size, contract.preprocessing.channels
    if contract.form.input == "uint8":
        return Tensor(contract.form.input_name, "uint8", (size, size, channels))
    return Tensor(contract.form.input_name, "float32", (channels, size, size))


def outputs_of(contract: Contract) -> tuple[Tensor, ...]:
    """The outputs of a graph that keeps `contract`, those of all classes first."""
    every = Tensor(contract.form.output, "float32", (len(contract.classes),))
    if contract.form.topk is None:
        return (every,)
    k = contract.form.topk
    return every, Tensor(TOP_SCORES, "float32", (k,)), Tensor(TOP_CLASSES, "int64", (k,))


def as_input(pictures: NDArray[np.uint8], contract: Contract) -> NDArray[np.uint8] | NDArray[np.float32]:
    """Pictures (N, S, S, C) as a graph takes them: as they are, or normalised planes (N, C, S, S) float32.

    Planes that a client has normalised, float32 already, are taken as they are.
    """
    if contract.form.input == "uint8" or pictures.dtype == np.float32:
        return pictures
    std = np.array(contract.preprocessing.std, np.float32)
    scale, shift = 1 / std, -np.array(contract.preprocessing.mean, np.float32) / std
    planes = np.ascontiguousarray(pictures.transpose(0, 3, 1, 2)).astype(np.float32)
    planes *= scale[:, None, None]
    planes += shift[:, None, None]
    return planes


def scores_of(outputs: NDArray[np.float32], contract: Contract, *, temperature: float = 1.0) -> NDArray[np.float32]:
    """Scores in 0…1 from what an artifact answers: (K,) or (N, K), logits or probabilities as its contract says.

    Args:
        temperature: what the logits are divided by first; see `zoo predict --calibrated`.
    """
    if contract.form.output == "probabilities" and temperature == 1.0:
        return outputs
    logits = as_logits(outputs, contract) / np.float32(temperature)
    return softmax(logits) if contract.thresholds is None else sigmoid(logits)


def as_logits(outputs: NDArray[np.float32], contract: Contract) -> NDArray[np.float32]:
    """Logits, or what they are but for a constant a picture: log p of a softmax, log p − log(1 − p) of a sigmoid.

    Softmax, cross-entropy and the order of classes do not depend on that constant. What was rounded to 0 or 1 stands
    for the smallest or largest number that is not.
    """
    if contract.form.output == "logits":
        return outputs
    if contract.thresholds is None:
        return np.log(np.maximum(outputs, np.float32(LEAST)))
    share = np.clip(outputs.astype(np.float64), LEAST, MOST)
    return np.asarray(np.log(share) - np.log1p(-share), np.float32)
