"""Owns pictures packed into tar files: finding them there, and reading one without the others; it packs nothing.

A folder of shards is WebDataset's (github.com/webdataset/webdataset): tar files with `KEY.jpg` followed by `KEY.cls`,
whose text is the class index. `shards.json` beside them makes it ours: classes and shards of each split, and
`SPLIT.index.npy` says where in which shard every picture lies, so that any picture is one read away.
"""

from __future__ import annotations

import json
import tarfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, overload

import numpy as np
from numpy.typing import NDArray

from zoo.errors import BrokenPictureError, DataError
from zoo.preprocess import SUFFIXES

FORMAT = "zoo-shards-1"
MANIFEST = "shards.json"
# One row a picture: number of its shard, where its bytes begin there, how many they are, its class.
INDEX_ROW = np.dtype([("shard", "<u4"), ("offset", "<u8"), ("size", "<u8"), ("label", "<u4")])


@dataclass(frozen=True)
class Packed:
    """One picture inside a tar file."""

    shard: Path
    offset: int
    size: int

    def __str__(self) -> str:
        return f"{self.shard} at byte {self.offset}"

    def read(self) -> bytes:
        """The picture's bytes, as they were packed.

        Raises:
            BrokenPictureError: the shard is gone or shorter than its index says.
        """
        try:
            with self.shard.open("rb") as handle:
                handle.seek(self.offset)
                data = handle.read(self.size)
        except OSError as error:
            raise BrokenPictureError(f"{self.shard} cannot be read: {error.strerror}.") from error
        if len(data) != self.size:
            raise BrokenPictureError(f"{self} is cut off.", "The shard is incomplete: copy or pack it again.")
        return data


@dataclass(frozen=True)
class PackedSources(Sequence[Packed]):
    """The pictures of a split, made when asked for: 24 bytes each, however many millions there are."""

    shards: tuple[Path, ...]
    rows: NDArray[np.void]

    def __len__(self) -> int:
        return len(self.rows)

    @overload
    def __getitem__(self, index: int) -> Packed: ...
    @overload
    def __getitem__(self, index: slice) -> PackedSources: ...
    def __getitem__(self, index: int | slice) -> Packed | PackedSources:
        if isinstance(index, slice):
            return PackedSources(self.shards, self.rows[index])
        shard, offset, size, _ = self.rows[index].tolist()
        return Packed(self.shards[shard], offset, size)


def is_shards(folder: Path) -> bool:
    """Whether a folder holds packed pictures."""
    return (folder / MANIFEST).is_file()


def read_manifest(folder: Path) -> dict[str, Any]:
    """Read what `zoo data pack` wrote beside the shards.

    Raises:
        DataError: it is damaged or of another format.
    """
    path = folder / MANIFEST
    try:
        manifest: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
        known = manifest["format"] == FORMAT and set(manifest["splits"]) >= {"train", "val"}
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise DataError(f"{path} is not readable: {error}.", "Pack again with `zoo data pack`.") from error
    if not known:
        raise DataError(f"{path} is not of format {FORMAT} with train and val.", "Pack again with `zoo data pack`.")
    return manifest


def open_split(folder: Path, split: str) -> tuple[tuple[str, ...], PackedSources, NDArray[np.int64]]:
    """Classes, sources and labels (N,) of one split.

    Raises:
        DataError: a shard or the index is missing, or they do not belong together.
    """
    manifest = read_manifest(folder)
    entry = manifest["splits"][split]
    shards = tuple(folder / shard["file"] for shard in entry["shards"])
    for path, shard in zip(shards, entry["shards"], strict=True):
        if not path.is_file() or path.stat().st_size != shard["bytes"]:
            raise DataError(f"{path} is missing or incomplete.", "Copy it again, or pack again with `zoo data pack`.")
    path = folder / entry["index"]
    try:
        rows = np.load(path, allow_pickle=False)
    except (OSError, ValueError) as error:
        raise DataError(f"{path} is not readable: {error}.", "Pack again with `zoo data pack`.") from error
    classes = tuple(manifest["classes"])
    fits = rows.dtype == INDEX_ROW and len(rows) == entry["pictures"] and (rows["label"] < len(classes)).all()
    if not fits or (rows["shard"] >= len(shards)).any():
        raise DataError(f"{path} does not belong to {folder / MANIFEST}.", "Pack again with `zoo data pack`.")
    return classes, PackedSources(shards, rows), rows["label"].astype(np.int64)


def index_shard(path: Path, number: int) -> NDArray[np.void]:
    """Find every picture of a tar file by walking its headers; rows of `INDEX_ROW`.

    Raises:
        DataError: not a tar file, or pictures and classes that do not pair up.
    """
    try:
        rows = np.array(list(_rows(path, number)), INDEX_ROW)
    except (tarfile.TarError, OSError, ValueError) as error:
        raise DataError(f"{path} is not a shard: {error}.", "Expected KEY.jpg and KEY.cls in turn.") from error
    return rows


def _rows(path: Path, number: int) -> Iterator[tuple[int, int, int, int]]:
    with tarfile.open(path, "r:") as tar:
        pictures: dict[str, tuple[int, int]] = {}
        for member in tar:
            key, _, kind = member.name.partition(".")
            if f".{kind}" in SUFFIXES:
                pictures[key] = (member.offset_data, member.size)
            elif kind == "cls":
                text = tar.extractfile(member)
                if key not in pictures or text is None:
                    raise ValueError(f"{member.name} follows no picture")
                yield number, *pictures.pop(key), int(text.read())
        if pictures:
            raise ValueError(f"{next(iter(pictures))} has no class")
