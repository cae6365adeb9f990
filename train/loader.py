"""Owns how pictures reach the loop, batch by batch as uint8; what is done to a picture is `train/augment.py`'s."""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import torch
from numpy.random import Generator
from numpy.typing import NDArray
from PIL import Image, ImageOps
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from train.augment import randaugment, random_crop_box
from train.recipe import Recipe, TrainingStage
from zoo.datasets import Pictures
from zoo.errors import BrokenPictureError
from zoo.preprocess import prepare
from zoo.spec import Preprocessing


@dataclass(frozen=True)
class Batch:
    """Pictures (N, S, S, 3) uint8, labels (N,) int64, and a message for each picture that could not be decoded."""

    pictures: Tensor
    labels: Tensor
    broken: tuple[str, ...]

    def pin_memory(self) -> Batch:
        """Copy to page-locked memory, so that the transfer to a GPU overlaps with its work."""
        return Batch(self.pictures.pin_memory(), self.labels.pin_memory(), self.broken)


@dataclass(frozen=True)
class Augmented(Dataset[tuple[NDArray[np.uint8], int] | str]):
    """One epoch of training pictures. Item (index): (S, S, 3) uint8 and its label, or why it could not be read."""

    pictures: Pictures
    recipe: Recipe
    stage: TrainingStage
    seed: int
    epoch: int

    def __len__(self) -> int:
        return len(self.pictures)

    def __getitem__(self, index: int) -> tuple[NDArray[np.uint8], int] | str:
        rng = np.random.default_rng((self.seed, self.epoch, index))
        size = self.stage.image_size
        try:
            # A crop of share c of the area needs 1/√c times the size to be sharp; JPEGs decode no further than that.
            image = self.pictures.open(index, min_size=round(size / self.recipe.crop_scale[0] ** 0.5))
        except BrokenPictureError as error:
            return error.problem
        image, box = self._draw_crop(image, rng)
        image = image.resize((size, size), Image.Resampling.BILINEAR, box=box)  # Pillow's resize is antialiased
        if self.pictures.flip_keeps_class and rng.random() < 0.5:
            image = image.transpose(Image.Transpose.FLIP_LEFT_RIGHT)
        image = randaugment(image, self.stage.randaugment_magnitude, self.recipe.randaugment_layers, rng)
        return np.asarray(image), int(self.pictures.labels[index])

    def _draw_crop(self, image: Image.Image, rng: Generator) -> tuple[Image.Image, tuple[float, float, float, float]]:
        """The picture, padded where the recipe says so, and a crop box in its pixels."""
        recipe = self.recipe
        pad_x, pad_y = (round(side * recipe.crop_padding) for side in image.size)
        box = random_crop_box(
            image.width, image.height, recipe.crop_scale, recipe.crop_ratio, rng, padding=(pad_x, pad_y)
        )
        if not (pad_x or pad_y):
            return image, box
        left, top, right, bottom = box
        padded = ImageOps.expand(image, (pad_x, pad_y, pad_x, pad_y))
        return padded, (left + pad_x, top + pad_y, right + pad_x, bottom + pad_y)


@dataclass(frozen=True)
class Prepared(Dataset[tuple[NDArray[np.uint8], int] | str]):
    """Pictures prepared by a contract, without augmentation; items as in `Augmented`."""

    pictures: Pictures
    preprocessing: Preprocessing

    def __len__(self) -> int:
        return len(self.pictures)

    def __getitem__(self, index: int) -> tuple[NDArray[np.uint8], int] | str:
        try:
            return prepare(self.pictures.open(index), self.preprocessing), int(self.pictures.labels[index])
        except BrokenPictureError as error:
            return error.problem


def collate(items: list[tuple[NDArray[np.uint8], int] | str]) -> Batch:
    """Stack the readable pictures and keep the others' messages."""
    good = [item for item in items if not isinstance(item, str)]
    broken = tuple(item for item in items if isinstance(item, str))
    pictures = np.stack([picture for picture, _ in good]) if good else np.empty((0, 1, 1, 3), np.uint8)
    labels = np.array([label for _, label in good], np.int64)
    return Batch(torch.from_numpy(pictures), torch.from_numpy(labels), broken)


def epoch_batches(
    pictures: Pictures, recipe: Recipe, stage: TrainingStage, *, seed: int, epoch: int
) -> list[list[int]]:
    """Order of one epoch: a permutation by (seed, epoch), cut into full batches.

    The rest of the division is left out, another one each epoch: a last batch of one picture has no variance for
    batch norm. A data set smaller than a batch is one batch.
    """
    order = np.random.default_rng((seed, epoch)).permutation(len(pictures))
    steps = steps_per_epoch(len(pictures), stage.batch_size)
    return [order[step * stage.batch_size : (step + 1) * stage.batch_size].tolist() for step in range(steps)]


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
    )
    yield from loader


def load_validation(
    pictures: Pictures, preprocessing: Preprocessing, *, batch_size: int, workers: int, pin: bool
) -> Iterator[Batch]:
    """Yield every picture once, prepared by the contract, in order."""
    batches = [
        list(range(start, min(start + batch_size, len(pictures)))) for start in range(0, len(pictures), batch_size)
    ]
    return load(Prepared(pictures, preprocessing), batches, workers=workers, pin=pin)
