"""Owns labelled pictures: read, decoded, chosen; where they are is its neighbours' business.

A picture's own problems surface when it is loaded, as `BrokenPictureError`, so that one broken file among a million
good ones costs a line in the log and not the run.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from threading import Event
from typing import Literal

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from zoo.data.decode import open_picture
from zoo.data.http import PARALLEL
from zoo.data.planes import in_planes, to_image
from zoo.data.preprocess import prepare
from zoo.data.shards import Packed
from zoo.errors import BrokenPictureError, DataError
from zoo.model.spec import RGB, Preprocessing
from zoo.visible import visible

Split = Literal["train", "val"]
# What folders, tar files and columns call the part to validate on, and the one that nothing is chosen by.
VAL_NAMES = ("val", "valid", "validation")
TEST_NAME = "test"


# A picture as it is stored: a file's bytes, or (H, W, C) uint8 with C planes, 1, 3 or 4.
Stored = bytes | NDArray[np.uint8]


@dataclass(frozen=True)
class Pictures:
    """Labelled pictures of one split.

    `sources` are files, places in shards or (H, W, C) uint8 arrays; `labels` (N,) int64 index `classes`.
    `flip_keeps_class` says whether a mirrored picture still belongs to its class: not for digits. `left_out` says, a
    line each, what was found beside the pictures and not taken. `sizes` (N,) int64 are files' bytes when listed.
    Where a picture may have several labels or none, `targets` (N, K) bool has them, and `labels` is −1 throughout.
    `root` is the folder that pictures' names are below, where that is not `name`.
    """

    name: str
    classes: tuple[str, ...]
    sources: Sequence[Path | Packed | NDArray[np.uint8]]
    labels: NDArray[np.int64]
    flip_keeps_class: bool = True
    left_out: tuple[str, ...] = ()
    sizes: NDArray[np.int64] | None = None
    targets: NDArray[np.bool_] | None = None
    root: str | None = None

    def __len__(self) -> int:
        return len(self.sources)

    @property
    def multi_label(self) -> bool:
        """Whether a picture may have several labels, or none."""
        return self.targets is not None

    @property
    def array_channels(self) -> int | None:
        """How many planes arrays in memory have; None of files, each of which says so itself."""
        first = self.sources[0] if len(self) else None
        return first.shape[-1] if isinstance(first, np.ndarray) else None

    def label_of(self, index: int) -> int | NDArray[np.bool_]:
        """One picture's class; of pictures with several labels its row of `targets`, (K,) bool."""
        return int(self.labels[index]) if self.targets is None else self.targets[index]

    def all_targets(self) -> NDArray[np.bool_]:
        """`targets` (N, K) bool, also of pictures with one class each."""
        if self.targets is not None:
            return self.targets
        hot: NDArray[np.bool_] = np.arange(len(self.classes)) == self.labels[:, None]
        return hot

    def places_of(self, index: int) -> tuple[int, ...]:
        """The indices of all classes of one picture."""
        if self.targets is None:
            return (int(self.labels[index]),)
        return tuple(np.flatnonzero(self.targets[index]).tolist())

    def class_counts(self) -> NDArray[np.int64]:
        """How many pictures each class has, (K,) int64; one with several labels counts for each of them."""
        if self.targets is None:
            return np.bincount(self.labels, minlength=len(self.classes)).astype(np.int64)
        counts: NDArray[np.int64] = self.targets.sum(0, dtype=np.int64)
        return counts

    def describe(self, index: int) -> str:
        """Name one picture for a message."""
        source = self.sources[index]
        return f"{self.name} picture {index}" if isinstance(source, np.ndarray) else visible(str(source))

    def read(self, index: int, unwanted: Event | None = None) -> Stored:
        """One picture as it is stored: a file's bytes, or an (H, W, C) uint8 array.

        A server that fails is asked again until the picture is `unwanted`.

        Raises:
            BrokenPictureError: it cannot be read.
            DataError: a server has it, and does not answer as it should; that is no fault of this picture's.
        """
        source = self.sources[index]
        if isinstance(source, Packed):
            return source.read(unwanted)
        if isinstance(source, np.ndarray):
            return source
        try:
            return source.read_bytes()
        except FileNotFoundError as error:
            raise BrokenPictureError(f"There is no file {self.describe(index)}.") from error
        except OSError as error:
            raise BrokenPictureError(f"{self.describe(index)} cannot be read: {error.strerror}.") from error

    @contextmanager
    def reading(self, indices: Sequence[int]) -> Iterator[list[Callable[[], Stored]]]:
        """`read` of several pictures, as calls to be made in order.

        Those on a server are asked for at once, `PARALLEL` at a time, so that one latency hides another. When the block
        is left, however it is, no server is waited for any more.
        """
        sources = (self.sources[index] for index in indices)
        if not any(isinstance(source, Packed) and source.is_remote for source in sources):
            yield [partial(self.read, index) for index in indices]
            return
        pool = ThreadPoolExecutor(PARALLEL)
        failed: list[DataError] = []
        left = Event()

        def read(index: int) -> Stored:
            # Once a server has failed half a minute long, no other picture of the batch is waited for as long again.
            if failed:
                raise failed[0]
            try:
                return self.read(index, left)
            except BrokenPictureError:
                raise
            except DataError as error:
                failed.append(error)
                raise

        try:
            yield [pool.submit(read, index).result for index in indices]
        finally:
            left.set()
            pool.shutdown(wait=False, cancel_futures=True)

    def open(self, index: int, *, min_size: int | None = None, channels: int = RGB) -> Image.Image:
        """Decode one picture; `min_size` and `channels` as in `open_picture`.

        Raises:
            BrokenPictureError, DataError: as `read`, or it cannot be decoded.
        """
        return self.decode(index, self.read(index), min_size=min_size, channels=channels)

    def decode(self, index: int, stored: Stored, *, min_size: int | None = None, channels: int = RGB) -> Image.Image:
        """`open` of a picture that has been read.

        Raises:
            BrokenPictureError: it cannot be decoded, or has not these planes.
        """
        if isinstance(stored, np.ndarray):
            return to_image(in_planes(stored, channels, name=self.describe(index)))
        return open_picture(stored, min_size=min_size, name=self.describe(index), channels=channels)

    def head(self, count: int) -> Pictures:
        """At most `count` pictures spread evenly over the split, so every class of a sorted folder is in it."""
        if count >= len(self):
            return self
        chosen = np.linspace(0, len(self) - 1, count).round().astype(int)
        return self.at(chosen)

    def at(self, indices: NDArray[np.int64]) -> Pictures:
        """The pictures at `indices`."""
        sources = [self.sources[index] for index in indices]
        sizes = None if self.sizes is None else self.sizes[indices]
        targets = None if self.targets is None else self.targets[indices]
        return replace(self, sources=sources, labels=self.labels[indices], sizes=sizes, targets=targets)


def load_prepared(pictures: Pictures, preprocessing: Preprocessing) -> tuple[NDArray[np.uint8], list[int], list[str]]:
    """Decode and prepare every picture, going on without the broken ones.

    Returns:
        (N, S, S, C) uint8, the indices they had in `pictures`, and one message per broken picture.
    """
    good: list[NDArray[np.uint8]] = []
    indices: list[int] = []
    broken: list[str] = []
    with pictures.reading(range(len(pictures))) as reads:
        for index, read in enumerate(reads):
            try:
                image = pictures.decode(index, read(), channels=preprocessing.channels)
                good.append(prepare(image, preprocessing))
                indices.append(index)
            except BrokenPictureError as error:
                broken.append(error.problem)
    empty = (0, preprocessing.image_size, preprocessing.image_size, preprocessing.channels)
    return np.stack(good) if good else np.empty(empty, np.uint8), indices, broken
