"""Owns which pictures a name means: the embedded digits, a folder, shards or arrays, as train and val; no augmentation.

A picture's own problems surface when it is loaded, as `BrokenPictureError`, so that one broken file among a million
good ones costs a line in the log and not the run.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from threading import Event
from typing import Literal

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from zoo.arrays import SUFFIX, read_arrays
from zoo.errors import BrokenPictureError, DataError
from zoo.files import replacing
from zoo.model.spec import Preprocessing
from zoo.preprocess import SUFFIXES, UNREAD_SUFFIXES, open_picture, prepare
from zoo.remote import PARALLEL, RemoteFolder, is_address, parse_address
from zoo.shards import Folder, Packed, is_shards, open_split

Split = Literal["train", "val"]
# A picture as it is stored: a file's bytes, or (H, W, 3) uint8.
Stored = bytes | NDArray[np.uint8]
VAL_SHARE = 0.2
VAL_NAMES = ("val", "valid", "validation", "test")


@dataclass(frozen=True)
class Pictures:
    """Labelled pictures of one split.

    `sources` are files, places in shards or (H, W, 3) uint8 arrays; `labels` (N,) int64 index `classes`.
    `flip_keeps_class` says whether a mirrored picture still belongs to its class: not for digits.
    """

    name: str
    classes: tuple[str, ...]
    sources: Sequence[Path | Packed | NDArray[np.uint8]]
    labels: NDArray[np.int64]
    flip_keeps_class: bool = True

    def __len__(self) -> int:
        return len(self.sources)

    def describe(self, index: int) -> str:
        """Name one picture for a message."""
        source = self.sources[index]
        return f"{self.name} picture {index}" if isinstance(source, np.ndarray) else str(source)

    def read(self, index: int, unwanted: Event | None = None) -> Stored:
        """One picture as it is stored: a file's bytes, or an (H, W, 3) uint8 array.

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
            raise BrokenPictureError(f"There is no file {source}.") from error
        except OSError as error:
            raise BrokenPictureError(f"{source} cannot be read: {error.strerror}.") from error

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

    def open(self, index: int, *, min_size: int | None = None) -> Image.Image:
        """Decode one picture to RGB; `min_size` as in `open_picture`.

        Raises:
            BrokenPictureError, DataError: as `read`, or it cannot be decoded.
        """
        return self.decode(index, self.read(index), min_size=min_size)

    def decode(self, index: int, stored: Stored, *, min_size: int | None = None) -> Image.Image:
        """`open` of a picture that has been read.

        Raises:
            BrokenPictureError: it cannot be decoded.
        """
        if isinstance(stored, np.ndarray):
            return Image.fromarray(stored)
        return open_picture(stored, min_size=min_size, name=self.describe(index))

    def head(self, count: int) -> Pictures:
        """At most `count` pictures spread evenly over the split, so every class of a sorted folder is in it."""
        if count >= len(self):
            return self
        chosen = np.linspace(0, len(self) - 1, count).round().astype(int)
        return self.at(chosen)

    def at(self, indices: NDArray[np.int64]) -> Pictures:
        """The pictures at `indices`."""
        sources = [self.sources[index] for index in indices]
        return Pictures(self.name, self.classes, sources, self.labels[indices], self.flip_keeps_class)


def load_prepared(pictures: Pictures, preprocessing: Preprocessing) -> tuple[NDArray[np.uint8], list[int], list[str]]:
    """Decode and prepare every picture, going on without the broken ones.

    Returns:
        (N, S, S, 3) uint8, the indices they had in `pictures`, and one message per broken picture.
    """
    good: list[NDArray[np.uint8]] = []
    indices: list[int] = []
    broken: list[str] = []
    with pictures.reading(range(len(pictures))) as reads:
        for index, read in enumerate(reads):
            try:
                good.append(prepare(pictures.decode(index, read()), preprocessing))
                indices.append(index)
            except BrokenPictureError as error:
                broken.append(error.problem)
    size = preprocessing.image_size
    return np.stack(good) if good else np.empty((0, size, size, 3), np.uint8), indices, broken


def open_splits(data: str, *, seed: int = 0) -> tuple[Pictures, Pictures]:
    """Open `data` as (train, val).

    Args:
        data: "digits", or a folder: with `train/` and `val/`, or with one folder per class, which is then split by
            `seed` (a fifth of every class is held out), or of shards (`zoo data pack`, `zoo data index`), which may be
            on a server (https://…); or an .npz file of arrays.
        seed: decides the split of a folder that has none.

    Raises:
        DataError: no such folder, no pictures, one class only, or classes that differ between the splits; of a
            server, as `RemoteFile.read`.
    """
    _check_name(data)
    if data == "digits":
        return _digits("train"), _digits("val")
    if is_address(data):
        remote = RemoteFolder(parse_address(data))
        return _shards(remote, "train"), _shards(remote, "val")
    root = Path(data)
    if root.suffix == SUFFIX and root.is_file():
        return _arrays(root, seed)
    if not root.is_dir():
        raise DataError(
            f"There is no {'file' if root.suffix == SUFFIX else 'folder'} {data}.",
            "Use --data digits, or a folder with one sub-folder of pictures per class.",
        )
    if is_shards(root):
        return _shards(root, "train"), _shards(root, "val")
    val_root = next((root / name for name in VAL_NAMES if (root / name).is_dir()), None)
    if (root / "train").is_dir() and val_root:
        train, val = _folder(root / "train"), _folder(val_root)
        if train.classes != val.classes:
            missing = sorted(set(train.classes) ^ set(val.classes))
            raise DataError(
                f"{root / 'train'} and {val_root} differ in their classes: {', '.join(missing[:5])}.",
                "Both need the same sub-folders.",
            )
        return train, val
    return _hold_out(_folder(root / "train" if (root / "train").is_dir() else root), data, seed)


def _check_name(data: str) -> None:
    """Refuse an empty name, which would be the current folder, and a folder that may not be looked into."""
    if not data.strip():
        raise DataError("--data is empty.", "Is the variable set? Use --data digits, or a folder of pictures.")
    root = Path(data)
    if not is_address(data) and root.is_dir() and not os.access(root, os.R_OK | os.X_OK):
        raise DataError(f"{data} cannot be read: Permission denied.", "Ask for the right to read it and its folders.")


def _hold_out(everything: Pictures, data: str, seed: int) -> tuple[Pictures, Pictures]:
    """Split pictures that come without a split."""
    held_out = np.array([_held_out(everything, index, seed) for index in range(len(everything))])
    train, val = everything.at(np.flatnonzero(~held_out)), everything.at(np.flatnonzero(held_out))
    if not len(val) or not len(train):
        raise DataError(
            f"{data} has {len(everything)} pictures, too few to hold a fifth out.",
            "Add pictures, or make train/ and val/ folders.",
        )
    return train, val


def open_val(data: str, *, seed: int | None = None) -> Pictures:
    """Open the pictures to evaluate on: the val split of data that has one.

    Of a folder without, what training with `seed` held out; with None, for a folder nothing was trained on, all of it.

    Raises:
        DataError: as `open_splits`.
    """
    _check_name(data)
    if is_address(data):
        return _shards(RemoteFolder(parse_address(data)), "val")
    root = Path(data)
    if seed is None and data != "digits" and root.is_dir() and not (root / "train").is_dir() and not is_shards(root):
        named = next((root / name for name in VAL_NAMES if (root / name).is_dir()), root)
        return _folder(named)
    if seed is not None and root.is_dir() and not (root / "train").is_dir():
        val_root = next((root / name for name in VAL_NAMES if (root / name).is_dir()), None)
        if val_root:
            return _folder(val_root)
    return open_splits(data, seed=seed or 0)[1]


def has_split(data: str) -> bool:
    """Whether pictures come with what is to be evaluated on, so that nothing has to be held out of a folder."""
    root = Path(data)
    if data == "digits" or is_address(data) or not root.is_dir() or is_shards(root):
        return True
    return any((root / name).is_dir() for name in VAL_NAMES)


def was_recorded(data: str, recorded: str | None) -> bool:
    """Whether `data` names the pictures that were recorded at training, however the path or address is written."""
    if recorded is None or is_address(data) != is_address(recorded):
        return False
    if is_address(data):
        return parse_address(data) == parse_address(recorded)
    return data == recorded or (data != "digits" and Path(data).resolve() == Path(recorded).resolve())


def sample_photographs() -> Pictures:
    """Two photographs that come with scikit-learn, cut into tiles: real pictures for parity where no data is known."""
    from sklearn.datasets import load_sample_images

    tiles = [
        np.ascontiguousarray(photo[top : top + 200, left : left + 200])
        for photo in load_sample_images().images
        for top in range(0, photo.shape[0] - 199, 113)
        for left in range(0, photo.shape[1] - 199, 110)
    ]
    return Pictures("sample photographs", ("unknown",), tiles, np.zeros(len(tiles), np.int64))


def write_samples(folder: Path, count: int) -> list[Path]:
    """Write `count` digits of the validation split as PNG files, their true class in the name; returns the paths."""
    digits = _digits("val")
    paths = []
    for index in range(count):
        path = folder / f"digit-{digits.classes[digits.labels[index]]}-{index:03d}.png"
        with replacing(path) as temporary:
            digits.open(index).save(temporary, format="PNG")
        paths.append(path)
    return paths


def _digits(split: Split) -> Pictures:
    """scikit-learn's digits: 1,797 real handwritten digits, 8×8 grey (UCI, CC BY 4.0); 1,437 train, 360 val."""
    from sklearn.datasets import load_digits
    from sklearn.model_selection import train_test_split

    raw = load_digits()
    grey = np.round(raw.images * (255.0 / 16.0)).astype(np.uint8)
    rgb = np.repeat(grey[..., None], 3, axis=-1)
    parts = train_test_split(np.arange(len(rgb)), test_size=360, stratify=raw.target, random_state=0)
    chosen = parts[0 if split == "train" else 1]
    classes = tuple(str(name) for name in raw.target_names)
    return Pictures("digits", classes, list(rgb[chosen]), raw.target[chosen].astype(np.int64), flip_keeps_class=False)


def _arrays(path: Path, seed: int) -> tuple[Pictures, Pictures]:
    arrays = read_arrays(path)
    train, *val = (
        Pictures(str(path), arrays.classes, list(pictures), labels, arrays.flip_keeps_class)
        for pictures, labels in (arrays.splits[split] for split in ("train", "val") if split in arrays.splits)
    )
    return (train, val[0]) if val else _hold_out(train, str(path), seed)


def _shards(root: Folder, split: Split) -> Pictures:
    classes, sources, labels = open_split(root, split)
    return Pictures(str(root), classes, sources, labels)


def _folder(root: Path) -> Pictures:
    folders = sorted(path for path in root.iterdir() if path.is_dir() and not path.name.startswith("."))
    found = {folder.name: _picture_files(folder) for folder in folders}
    classes = tuple(name for name, files in found.items() if files)
    tar = None if classes else next(root.rglob("*.tar"), None)
    if tar:
        raise DataError(
            f"{root} has no pictures in sub-folders, but tar files such as {tar.name}.",
            "If they are WebDataset's shards: `zoo data index` on their folder makes them readable.",
        )
    if not classes:
        raise DataError(
            f"{root} has no pictures in sub-folders.",
            f"Expected {root}/CLASS/PICTURE with one of {' '.join(SUFFIXES)}.",
        )
    if len(classes) == 1:
        raise DataError(f"{root} has one class only ({classes[0]}).", "A classifier needs pictures of at least two.")
    sources = [path for name in classes for path in found[name]]
    labels = np.repeat(np.arange(len(classes)), [len(found[name]) for name in classes]).astype(np.int64)
    return Pictures(str(root), classes, sources, labels)


def _picture_files(folder: Path) -> list[Path]:
    # Hidden files are not pictures: macOS leaves a `._x.jpg` beside every x.jpg it copies.
    known = {*SUFFIXES, *UNREAD_SUFFIXES}

    def refuse(error: OSError) -> None:
        # Path.rglob passes over such a folder: a class would be missing, and nobody told.
        raise DataError(f"{error.filename} cannot be read: {error.strerror}.", "Check who may read it.") from error

    files = (Path(root) / name for root, _, names in os.walk(folder, onerror=refuse) for name in names)
    found = (path for path in files if path.suffix.lower() in known and not path.name.startswith("."))
    return sorted(path for path in found if path.is_file())


def _held_out(pictures: Pictures, index: int, seed: int) -> bool:
    """A picture's own name decides, so adding pictures never moves another one between the splits."""
    source = pictures.sources[index]
    name = f"{seed}/{pictures.classes[pictures.labels[index]]}/{source.name if isinstance(source, Path) else index}"
    return is_held_out(name)


def is_held_out(name: str) -> bool:
    """Whether the picture of that name belongs to the fifth that is held out."""
    return int.from_bytes(hashlib.sha256(name.encode()).digest()[:4], "big") < VAL_SHARE * 2**32
