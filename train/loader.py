"""Owns how pictures reach the loop, batch by batch as uint8; what is done to a picture is `train/augment.py`'s."""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import dataclass, field
from functools import partial

import numpy as np
import torch
from numpy.random import Generator
from numpy.typing import NDArray
from torch import Tensor
from torch.utils.data import DataLoader, Dataset, default_collate

from train.augment import randaugment, random_crop_box
from train.decode import Box, CropDecoder
from train.recipe import Recipe, TrainingStage
from train.stopping import leave_signals_to_the_run, signals_held
from zoo.datasets import Pictures
from zoo.errors import BrokenPictureError
from zoo.preprocess import prepare
from zoo.spec import Preprocessing


@dataclass(frozen=True)
class Batch:
    """Pictures (N, S, S, 3) uint8, labels (N,) int64, and a message for each picture that could not be decoded.

    `positions` (N,) int64 says where in the batch as it was asked for the readable ones stood.
    """

    pictures: Tensor
    labels: Tensor
    broken: tuple[str, ...]
    positions: Tensor

    def pin_memory(self) -> Batch:
        """Copy to page-locked memory, so that the transfer to a GPU overlaps with its work."""
        return Batch(self.pictures.pin_memory(), self.labels.pin_memory(), self.broken, self.positions)


@dataclass(frozen=True)
class Augmented(Dataset[tuple[NDArray[np.uint8], int] | str]):
    """One epoch of training pictures. Item (index): (S, S, 3) uint8 and its label, or why it could not be read."""

    pictures: Pictures
    recipe: Recipe
    stage: TrainingStage
    seed: int
    epoch: int
    decoder: CropDecoder = field(default_factory=CropDecoder, repr=False, compare=False)

    def __len__(self) -> int:
        return len(self.pictures)

    def __getitem__(self, index: int) -> tuple[NDArray[np.uint8], int] | str:
        rng = np.random.default_rng((self.seed, self.epoch, index))
        try:
            pixels = self.decoder.crop(
                self.pictures.read(index),
                partial(self._draw_crop, rng),
                self.stage.image_size,
                name=self.pictures.describe(index),
            )
        except BrokenPictureError as error:
            return error.problem
        if self.pictures.flip_keeps_class and rng.random() < 0.5:
            pixels = torch.from_numpy(pixels).flip(1).numpy()  # eight times as fast as NumPy, whose pixels are bytes
        pixels = randaugment(pixels, self.stage.randaugment_magnitude, self.recipe.randaugment_layers, rng)
        return pixels, int(self.pictures.labels[index])

    def _draw_crop(self, rng: Generator, width: int, height: int) -> Box:
        """A box for a picture of this size, which it may leave by as much as the recipe pads."""
        recipe = self.recipe
        padding = round(width * recipe.crop_padding), round(height * recipe.crop_padding)
        return random_crop_box(width, height, recipe.crop_scale, recipe.crop_ratio, rng, padding=padding)


@dataclass(frozen=True)
class Prepared(Dataset[tuple[NDArray[np.uint8], int] | str]):
    """Pictures prepared by a contract, without augmentation; items as in `Augmented`."""

    pictures: Pictures
    preprocessing: Preprocessing

    def __len__(self) -> int:
        return len(self.pictures)

    def __getitem__(self, index: int) -> tuple[NDArray[np.uint8], int] | str:
        try:
            return prepare(self.pictures.open(index), self.preprocessing).copy(), int(self.pictures.labels[index])
        except BrokenPictureError as error:
            return error.problem


def collate(items: list[tuple[NDArray[np.uint8], int] | str]) -> Batch:
    """Stack the readable pictures and keep the others' messages."""
    good = [item for item in items if not isinstance(item, str)]
    positions = torch.tensor([place for place, item in enumerate(items) if not isinstance(item, str)], dtype=torch.long)
    broken = tuple(item for item in items if isinstance(item, str))
    labels = torch.tensor([label for _, label in good], dtype=torch.long)
    # PyTorch's own collation stacks into shared memory where it runs in a worker: one copy less on the way out.
    pictures: Tensor = (
        default_collate([torch.from_numpy(picture) for picture, _ in good])
        if good
        else torch.empty((0, 1, 1, 3), dtype=torch.uint8)
    )
    return Batch(pictures, labels, broken, positions)


def epoch_batches(
    pictures: Pictures, recipe: Recipe, stage: TrainingStage, *, seed: int, epoch: int, processes: int = 1
) -> list[list[int]]:
    """Order of one epoch: a permutation by (seed, epoch), cut into full batches.

    The rest of the division is left out, another one each epoch: a last batch of one picture has no variance for
    batch norm. A data set smaller than a batch is one batch. `processes` that train together have a batch each, and
    these are the whole ones.
    """
    order = np.random.default_rng((seed, epoch)).permutation(len(pictures))
    size = stage.batch_size * processes
    return [order[step * size : (step + 1) * size].tolist() for step in range(steps_per_epoch(len(pictures), size))]


def steps_per_epoch(num_pictures: int, batch_size: int) -> int:
    """Full batches in an epoch, at least one."""
    return max(1, num_pictures // batch_size)


def default_workers(pictures: Pictures) -> int:
    """Decoding processes: none for pictures already in memory, else one per core up to 8."""
    in_memory = len(pictures) > 0 and isinstance(pictures.sources[0], np.ndarray)
    return 0 if in_memory else min(8, os.cpu_count() or 1)


def load(
    dataset: Dataset[tuple[NDArray[np.uint8], int] | str], batches: list[list[int]], *, workers: int, pin: bool
) -> Iterator[Batch]:
    """Yield `batches` of a data set in their order."""
    loader = DataLoader(
        dataset,
        batch_sampler=batches,
        num_workers=workers,
        collate_fn=collate,
        pin_memory=pin,
        prefetch_factor=4 if workers else None,
        worker_init_fn=leave_signals_to_the_run,
    )
    with signals_held():
        loaded = iter(loader)
    yield from loaded


def load_validation(
    pictures: Pictures, preprocessing: Preprocessing, *, batch_size: int, workers: int, pin: bool
) -> Iterator[Batch]:
    """Yield every picture once, prepared by the contract, in order."""
    batches = [
        list(range(start, min(start + batch_size, len(pictures)))) for start in range(0, len(pictures), batch_size)
    ]
    return load(Prepared(pictures, preprocessing), batches, workers=workers, pin=pin)
