"""Owns flip and RandAugment on whole uint8 batches, on whatever device they are; `host.py` draws the operations.

Pictures that drew operations of the same kind are taken out of the batch, changed at once and put back. The host drew
the operations and knows which pictures these are, so it never waits for the device.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import lru_cache
from itertools import pairwise
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from train.augment.device_geometry import GEOMETRY, find_matrix, find_sources, take_interpolated, take_nearest
from train.augment.device_tones import autocontrast, color, contrast, equalize, replace_values, sharpness
from train.augment.host import OPERATIONS
from train.augment.strength import MAX_LEVEL, SIGNS, SMOOTH_BELOW_PX, TABLES, enhance_factor, sharpness_weights
from train.augment.transfer import send
from zoo.model.spec import RGB

Parameters = Callable[[str, float, float, int], NDArray[Any]]


@dataclass(frozen=True, kw_only=True)
class OperationKind:
    """Operations that are one function of pictures (N, S, S, C) uint8 and parameters (N, …).

    `parameters` has those of one picture, for an operation's name, share, sign and picture size. `moves`: they move
    pixels; those that do not change tones, and leave a fourth plane as it is.
    """

    names: tuple[str, ...]
    parameters: Parameters
    change: Callable[[Tensor, Tensor], Tensor]
    moves: bool = False

    def do(self, pictures: Tensor, parameters: Tensor) -> Tensor:
        """Change pictures, whose own memory may become the result."""
        if self.moves or pictures.shape[-1] <= RGB:
            return self.change(pictures, parameters)
        pictures[..., :RGB] = self.change(pictures[..., :RGB].contiguous(), parameters)
        return pictures


def _factor(name: str, share: float, sign: float, size: int) -> NDArray[np.float32]:
    return np.array([enhance_factor(share, sign)], np.float32)


def _weights(name: str, share: float, sign: float, size: int) -> NDArray[np.float32]:
    return np.array(sharpness_weights(share, sign))


def _table(name: str, share: float, sign: float, size: int) -> NDArray[np.uint8]:
    return np.frombuffer(TABLES[name](share, sign), np.uint8)


def _nothing(name: str, share: float, sign: float, size: int) -> NDArray[np.uint8]:
    return np.zeros(0, np.uint8)


def _flip(pictures: Tensor, _: Tensor) -> Tensor:
    return pictures.flip(2)


FLIP = "flip"
_NEAREST = OperationKind(names=GEOMETRY, parameters=find_sources, change=take_nearest, moves=True)
_INTERPOLATED = OperationKind(names=GEOMETRY, parameters=find_matrix, change=take_interpolated, moves=True)
_TONES = (
    OperationKind(names=tuple(TABLES), parameters=_table, change=replace_values),
    OperationKind(names=("color",), parameters=_factor, change=color),
    OperationKind(names=("contrast",), parameters=_factor, change=contrast),
    OperationKind(names=("sharpness",), parameters=_weights, change=sharpness),
    OperationKind(names=("autocontrast",), parameters=_nothing, change=autocontrast),
    OperationKind(names=("equalize",), parameters=_nothing, change=equalize),
    OperationKind(names=(FLIP,), parameters=_nothing, change=_flip, moves=True),
)
_KINDS = (_NEAREST, *_TONES)
_KINDS_OF_SMALL = (_INTERPOLATED, *_TONES)
# By an operation's place in OPERATIONS, with the flip behind them: its kind (the identity has none), and its place in
# that kind.
_NAMES = (*OPERATIONS, FLIP)
_KIND_OF = np.array([next((k for k, kind in enumerate(_KINDS) if name in kind.names), -1) for name in _NAMES])
_PLACE_OF = np.array([next((kind.names.index(name) for kind in _KINDS if name in kind.names), 0) for name in _NAMES])


def augment_batch(pictures: Tensor, draws: Tensor, magnitude: float) -> Tensor:
    """Flip and RandAugment every picture as was drawn for it, like `train.augment.host.augment` for each of them.

    Nothing here waits for the device. The values are exactly those of `augment` if Pillow was compiled without fused
    multiply-add (x86-64); else interpolated geometry and color may be one level off.

    Args:
        pictures: (N, S, S, C) uint8, contiguous, on any device; not written to.
        draws: (N, 1 + 2L) int8 on the host, a row of `train.augment.host.draw_augmentation` for each picture.
        magnitude: the stage's `randaugment_magnitude`.
    """
    pictures = pictures.clone()
    size, device = pictures.shape[1], pictures.device
    kinds, parameters = _kinds(size), _parameters(size, magnitude / MAX_LEVEL, device)
    layers = [sort_by_kind(operations, signs) for operations, signs in _layers(draws.numpy())]
    orders = send(np.stack([order for order, _ in layers]), device)
    for (own, rows), (_, groups) in zip(orders.unbind(), layers, strict=True):
        for kind, first, last in groups:
            drawn = parameters[kind].index_select(0, rows[first:last])
            changed = kinds[kind].do(pictures.index_select(0, own[first:last]), drawn)
            pictures.index_copy_(0, own[first:last], changed)
    return pictures


def _layers(draws: NDArray[np.int8]) -> Iterator[tuple[NDArray[np.int8], NDArray[np.int8]]]:
    """Operation and sign of every picture, (N,) each, layer by layer; the flip is the first layer."""
    flips = np.where(draws[:, 0], _NAMES.index(FLIP), _NAMES.index("identity"))
    yield flips.astype(np.int8), np.ones_like(draws[:, 0])
    for column in range(1, draws.shape[1], 2):
        yield draws[:, column], draws[:, column + 1]


def sort_by_kind(
    operations: NDArray[np.int8], signs: NDArray[np.int8]
) -> tuple[NDArray[np.int64], list[tuple[int, int, int]]]:
    """Sort the pictures of a layer by the kind of their operation.

    Returns:
        (2, N): the pictures in that order, and for each its row of the kind's parameters; and a (kind, first, last)
        for each kind that was drawn. Pictures whose operation is the identity belong to no kind.
    """
    kinds = _KIND_OF[operations]
    order = kinds.argsort(kind="stable")
    rows = 2 * _PLACE_OF[operations] + (signs > 0)
    ends = np.searchsorted(kinds[order], np.arange(len(_KINDS) + 1)).tolist()
    groups = [(kind, first, last) for kind, (first, last) in enumerate(pairwise(ends)) if last > first]
    return np.stack([order, rows[order]]), groups


def _kinds(size: int) -> tuple[OperationKind, ...]:
    return _KINDS_OF_SMALL if size < SMOOTH_BELOW_PX else _KINDS


@lru_cache(maxsize=8)
def _parameters(size: int, share: float, device: torch.device) -> tuple[Tensor, ...]:
    """For each kind its operations' parameters, rows of sign -1 and 1 in turn; they are the same throughout a stage."""
    rows = [
        [kind.parameters(name, share, sign, size) for name in kind.names for sign in SIGNS] for kind in _kinds(size)
    ]
    return tuple(send(np.stack(own), device) for own in rows)
