"""Owns what a batch is made of, picture by picture, as uint8; which process makes it is `train/input/decoders.py`'s."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Any, ClassVar, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.utils.data import Dataset, default_collate

from train.augment.host import Draws, augment, draw_augmentation, random_crop_box
from train.input.decode import Crop, CropDecoder
from train.input.kept import reading
from train.input.order import picture_of
from train.input.streams import Streams
from train.options import AugmentOn
from train.processes.workers import out_of_memory
from train.progressive.recipe import Recipe, TrainingStage
from zoo.data.jpeg import Box
from zoo.data.pictures import Pictures, Stored
from zoo.data.preprocess import prepare
from zoo.errors import BrokenPictureError, DataError, ZooError
from zoo.model.spec import RGB, Preprocessing

Read = Callable[[], Stored]
# A picture's class, or its row of `Pictures.targets`, (K,) bool.
Label = int | NDArray[np.bool_]


@dataclass(frozen=True)
class Batch:
    """Pictures (N, S, S, C) uint8, labels (N,) int64, and a message for each picture that could not be decoded.

    Where a picture may have several labels, they are (N, K) bool.
    `positions` (N,) int64 are the readable pictures' places in the batch that was asked for. `draws` (N, 1 + 2L) int8
    is what is still to be done to them, `train.augment.host.Draws` each; None if nothing is.
    """

    pictures: Tensor
    labels: Tensor
    broken: tuple[str, ...]
    positions: Tensor
    draws: Tensor | None = None

    def __reduce__(self) -> tuple[Callable[..., Batch], tuple[Any, ...]]:
        """Workers send pictures through shared memory; the few bytes of the rest are faster inside the message."""
        small = (None if tensor is None else tensor.numpy() for tensor in (self.labels, self.positions, self.draws))
        return _receive, (self.pictures, self.broken, *small)

    def pin_memory(self) -> Batch:
        """Copy to page-locked memory, so that the transfer to a GPU overlaps with its work; draws stay on the host."""
        return replace(self, pictures=self.pictures.pin_memory(), labels=self.labels.pin_memory())


def _receive(pictures: Tensor, broken: tuple[str, ...], *small: NDArray[Any] | None) -> Batch:
    labels, positions, draws = (None if array is None else torch.from_numpy(array) for array in small)
    assert labels is not None
    assert positions is not None
    return Batch(pictures, labels, broken, positions, draws)


class Item(NamedTuple):
    """One picture (S, S, C) uint8, its label, and what is still to be done to it, if anything."""

    pixels: NDArray[np.uint8]
    label: Label
    draws: Draws | None = None


class _Drawn(NamedTuple):
    """One picture, decoded, its label, and what was drawn for it."""

    crop: Crop
    label: Label
    draws: Draws


@dataclass(frozen=True)
class Made(Dataset[Item | str]):
    """Pictures as a data set whose items are made of them: item (index), or why it could not be decoded.

    `crops` says whether items are made of parts of pictures.
    """

    crops: ClassVar[bool] = False
    pictures: Pictures

    def __len__(self) -> int:
        return len(self.pictures)

    def __getitem__(self, index: int) -> Item | str:
        return self.make([index], [partial(self.pictures.read, picture_of(index, len(self)))])[0]

    def __getitems__(self, indices: list[int]) -> list[Item | str] | ZooError:
        """The items of a batch, whose pictures are read together; `DataLoader` calls it.

        An error that is not one picture's is returned: raised in a worker, it would arrive as the text of a traceback.
        """
        try:
            places = [picture_of(index, len(self)) for index in indices]
            with reading(self.pictures, places, channels=self.planes, crops=self.crops) as reads:
                return self.make(indices, reads)
        except DataError as error:
            return error
        except MemoryError:
            return out_of_memory()

    def make(self, indices: Sequence[int], reads: Sequence[Read]) -> list[Item | str]:
        """The items of pictures, or of draws of them (`train.input.order`), which `reads` read."""
        raise NotImplementedError

    @property
    def planes(self) -> int:
        """How many planes items have."""
        raise NotImplementedError


@dataclass(frozen=True)
class Augmented(Made):
    """One epoch of training pictures in so many planes, cropped and augmented.

    With `augment_on` "device" they are not yet flipped and RandAugmented; the draws for them are the same.
    """

    crops: ClassVar[bool] = True
    recipe: Recipe
    stage: TrainingStage
    seed: int
    epoch: int
    augment_on: AugmentOn = "workers"
    channels: int = RGB
    decoder: CropDecoder = field(default_factory=CropDecoder, repr=False, compare=False)
    streams: Streams = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "streams", Streams(self.seed, self.epoch))

    @property
    def planes(self) -> int:
        """How many planes items have."""
        return self.channels

    def make(self, indices: Sequence[int], reads: Sequence[Read]) -> list[Item | str]:
        """Crop and augment pictures, as seed, epoch and draw decide.

        A few pictures at a time are all decoded, then all resized, then all augmented, so that the processor finds each
        step's code in its caches. That saves a tenth of the time.
        """
        items: list[Item | str] = []
        drawn: list[_Drawn | str] = []
        for draw, read in zip(indices, reads, strict=True):
            drawn.append(self._decode(draw, read))
            if self.decoder.is_full:
                items += self._finish(drawn)
                drawn = []
        return items + self._finish(drawn)

    def _decode(self, draw: int, read: Read) -> _Drawn | str:
        rng, index = self.streams.of(draw), picture_of(draw, len(self))
        size, name = self.stage.image_size, self.pictures.describe(index)
        try:
            box = partial(self._draw_crop, rng)
            crop = self.decoder.decode(read(), box, size, name=name, channels=self.channels)
        except BrokenPictureError as error:
            return error.problem
        draws = draw_augmentation(
            rng,
            flips=self.pictures.flip_keeps_class,
            magnitude=self.stage.randaugment_magnitude,
            num_layers=self.recipe.randaugment_layers,
        )
        return _Drawn(crop, self.pictures.label_of(index), draws)

    def _finish(self, drawn: list[_Drawn | str]) -> list[Item | str]:
        """Resize what was decoded, then flip and RandAugment it, unless the device does that."""
        size, magnitude = self.stage.image_size, self.stage.randaugment_magnitude
        items: list[Item | str] = [
            one if isinstance(one, str) else Item(one.crop.resized(size), one.label, one.draws) for one in drawn
        ]
        self.decoder.reuse()
        if self.augment_on == "device":
            return items
        return [
            one
            if isinstance(one, str) or one.draws is None
            else Item(augment(one.pixels, one.draws, magnitude), one.label)
            for one in items
        ]

    def _draw_crop(self, rng: np.random.Generator, width: int, height: int) -> Box:
        """A box in a picture of this size; it may reach as far beyond the picture as the recipe pads."""
        recipe = self.recipe
        padding = round(width * recipe.crop_padding), round(height * recipe.crop_padding)
        return random_crop_box(width, height, recipe.crop_scale, recipe.crop_ratio, rng, padding=padding)


@dataclass(frozen=True)
class Prepared(Made):
    """Pictures preprocessed without augmentation."""

    preprocessing: Preprocessing

    @property
    def planes(self) -> int:
        """How many planes items have."""
        return self.preprocessing.channels

    def make(self, indices: Sequence[int], reads: Sequence[Read]) -> list[Item | str]:
        """Prepare pictures, one after the other."""
        return [self._prepare(index, read) for index, read in zip(indices, reads, strict=True)]

    def _prepare(self, index: int, read: Read) -> Item | str:
        try:
            image = self.pictures.decode(index, read(), channels=self.preprocessing.channels)
            return Item(prepare(image, self.preprocessing).copy(), self.pictures.label_of(index))
        except BrokenPictureError as error:
            return error.problem


def collate(items: list[Item | str] | ZooError) -> Batch | ZooError:
    """Stack the readable pictures, and keep the messages of the broken ones."""
    if isinstance(items, ZooError):
        return items
    good = [item for item in items if not isinstance(item, str)]
    positions = torch.tensor([place for place, item in enumerate(items) if not isinstance(item, str)], dtype=torch.long)
    broken = tuple(item for item in items if isinstance(item, str))
    labels = _labels([item.label for item in good])
    # In a worker PyTorch's own collation stacks into shared memory, which saves a copy.
    pictures: Tensor = (
        default_collate([torch.from_numpy(item.pixels) for item in good])
        if good
        else torch.empty((0, 1, 1, RGB), dtype=torch.uint8)
    )
    draws = [item.draws for item in good if item.draws is not None]
    return Batch(pictures, labels, broken, positions, torch.from_numpy(np.stack(draws)) if draws else None)


def _labels(labels: list[Label]) -> Tensor:
    """Labels as `Batch` has them."""
    several = [label for label in labels if isinstance(label, np.ndarray)]
    return torch.from_numpy(np.stack(several)) if several else torch.tensor(labels, dtype=torch.long)
