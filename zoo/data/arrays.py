"""Owns pictures in NumPy arrays of an .npz file, as CIFAR and Keras' data sets often are; it splits none."""

from __future__ import annotations

import zipfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from zoo.errors import DataError
from zoo.model.spec import COLOR_ORDERS

SUFFIX = ".npz"
# The names that people use; of each split the first pair that is there is taken. "val" may be missing.
_PAIRS = {
    "train": (("x_train", "y_train"), ("x", "y")),
    "val": (("x_val", "y_val"), ("x_test", "y_test")),
}
_EXPECTED = (
    "Expected x_train, y_train, x_test, y_test, or x and y: x (N, H, W) or (N, H, W, C) uint8 with C 1, 3 or 4, y (N,) "
    "integers."
)


@dataclass(frozen=True, kw_only=True)
class Arrays:
    """Pictures (N, H, W, C) uint8 and labels (N,) int64 of each split that is there; "train" always is.

    They have the file's own planes, 1, 3 or 4. `classes` are the file's `classes`, else the numbers.
    `flip_keeps_class` is the file's, else true.
    """

    classes: tuple[str, ...]
    splits: Mapping[str, tuple[NDArray[np.uint8], NDArray[np.int64]]]
    flip_keeps_class: bool


def read_arrays(path: Path) -> Arrays:
    """Read an .npz file; nothing in it is executed (`allow_pickle=False`).

    Raises:
        DataError: not such a file, or arrays of other shapes, types or labels.
    """
    try:
        with np.load(path, allow_pickle=False) as file:
            held = dict(file)
    except (OSError, ValueError, zipfile.BadZipFile) as error:
        raise DataError(f"{path} is not readable: {error}.", _EXPECTED) from error
    splits = {}
    for split, pairs in _PAIRS.items():
        pair = next((pair for pair in pairs if set(pair) <= held.keys()), None)
        if pair:
            splits[split] = _pair(path, held[pair[0]], held[pair[1]])
    if "train" not in splits:
        raise DataError(f"{path} has {', '.join(sorted(held)) or 'nothing'}.", _EXPECTED)
    highest = max(int(labels.max()) for _, labels in splits.values())
    classes = tuple(str(name) for name in held.get("classes", np.arange(highest + 1)))
    if highest >= len(classes) or len(classes) < 2:
        raise DataError(f"{path} has labels up to {highest} and {len(classes)} classes.", "Labels count from 0.")
    return Arrays(classes=classes, splits=splits, flip_keeps_class=bool(held.get("flip_keeps_class", True)))


def has_val(path: Path) -> bool:
    """Whether an .npz file has validation pictures of its own; only the names of its arrays are read."""
    try:
        with np.load(path, allow_pickle=False) as file:
            return any(set(pair) <= set(file.files) for pair in _PAIRS["val"])
    except (OSError, ValueError, AttributeError, zipfile.BadZipFile):  # the last but one: a single array
        return True  # `read_arrays` says what is wrong


def _pair(path: Path, pictures: NDArray[Any], labels: NDArray[Any]) -> tuple[NDArray[np.uint8], NDArray[np.int64]]:
    labels = labels.reshape(-1) if labels.ndim == 2 and labels.shape[1] == 1 else labels  # CIFAR's y is (N, 1)
    if pictures.ndim == 3:
        pictures = pictures[..., None]
    fits = (
        pictures.ndim == 4 and pictures.shape[-1] in COLOR_ORDERS and pictures.dtype == np.uint8 and pictures.size > 0
    )
    if not fits or labels.shape != pictures.shape[:1] or labels.dtype.kind not in "iu" or labels.min() < 0:
        raise DataError(
            f"{path} has pictures {pictures.dtype} {pictures.shape} and labels {labels.dtype} {labels.shape}.",
            _EXPECTED,
        )
    return np.ascontiguousarray(pictures), labels.astype(np.int64)
