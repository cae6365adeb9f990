"""Owns folders of pictures: a class a folder, and the fifth that is held out where nobody divided them."""

from __future__ import annotations

import hashlib
import os
from pathlib import Path

import numpy as np

from zoo.data.pictures import Pictures
from zoo.data.preprocess import SUFFIXES, UNREAD_SUFFIXES
from zoo.errors import DataError

VAL_SHARE = 0.2


def hold_out(everything: Pictures, data: str, seed: int) -> tuple[Pictures, Pictures]:
    """Split pictures that come without a split."""
    held_out = np.array([_held_out(everything, index, seed) for index in range(len(everything))])
    train, val = everything.at(np.flatnonzero(~held_out)), everything.at(np.flatnonzero(held_out))
    if not len(val) or not len(train):
        raise DataError(
            f"{data} has {len(everything)} pictures, too few to hold a fifth out.",
            "Add pictures, or make train/ and val/ folders.",
        )
    return train, val


def read_folder(root: Path) -> Pictures:
    """All pictures of a folder with one sub-folder per class.

    Raises:
        DataError: a folder that cannot be read, no pictures, or one class only.
    """
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
