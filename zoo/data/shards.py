"""Owns pictures packed into tar files: finding them there, and reading one without the others; it packs nothing.

A folder of shards, here or on a web server, is WebDataset's (github.com/webdataset/webdataset): tar files with
`KEY.jpg` and `KEY.cls`, whose text is the class index. `shards.json` beside them makes it ours: classes and shards of
each split, and `SPLIT.index.npy` says where in which shard every picture lies, so that any picture is one read away.
"""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from threading import Event
from typing import Any, overload

import numpy as np
from numpy.typing import NDArray

from zoo.data.http import RemoteFile, RemoteFolder, check_files
from zoo.data.tar_samples import walk_samples
from zoo.errors import BrokenPictureError, DataError

FORMAT = "zoo-shards-1"
MANIFEST = "shards.json"
# One row a picture: number of its shard, where its bytes begin there, how many they are, its class.
INDEX_ROW = np.dtype([("shard", "<u4"), ("offset", "<u8"), ("size", "<u8"), ("label", "<u4")])
# A manifest of 100,000 shards has a tenth of this; NumPy's header before the rows of an index is 128 bytes.
_MANIFEST_BYTES, _NPY_HEADER_BYTES = 64_000_000, 4096
# As NumPy writes it (numpy.lib.format, version 1.0), padded by as many spaces as its own version likes.
_NPY_HEADER = re.compile(
    rb"\x93NUMPY\x01\x00.."
    + re.escape(f"{{'descr': {INDEX_ROW.descr}, 'fortran_order': False, 'shape': (".encode())
    + rb"([0-9]{1,18}),\), \} *\n",
    re.DOTALL,
)
_AGAIN = "Pack again with `zoo data pack`, or index again with `zoo data index`."

Folder = Path | RemoteFolder
Shard = Path | RemoteFile


@dataclass(frozen=True)
class Packed:
    """One picture inside a tar file."""

    shard: Shard
    offset: int
    size: int

    @property
    def is_remote(self) -> bool:
        """Whether reading it waits for a server."""
        return isinstance(self.shard, RemoteFile)

    def __str__(self) -> str:
        return f"{self.shard} at byte {self.offset}"

    def read(self, unwanted: Event | None = None) -> bytes:
        """The picture's bytes, as they were packed; a server that fails is asked again until they are `unwanted`.

        Raises:
            BrokenPictureError: the shard is gone or shorter than its index says.
            DataError: the same of a shard on a server, which says nothing of this picture.
        """
        if isinstance(self.shard, RemoteFile):
            return self.shard.read(self.offset, self.size, unwanted=unwanted)
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

    shards: tuple[Shard, ...]
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


def read_manifest(folder: Folder) -> dict[str, Any]:
    """Read what `zoo data pack` or `zoo data index` wrote beside the shards.

    Raises:
        DataError: it is not there, damaged or of another format.
    """
    path = _place(folder, MANIFEST)
    try:
        manifest: dict[str, Any] = json.loads(_contents(folder, MANIFEST, _MANIFEST_BYTES))
        known = manifest["format"] == FORMAT and set(manifest["splits"]) >= {"train", "val"}
        _check_classes(manifest["classes"])
        for split in ("train", "val"):
            _check_entry(manifest["splits"][split])
    except (OSError, ValueError, KeyError, TypeError, RecursionError) as error:  # the last: brackets in brackets
        raise DataError(f"{path} is not readable: {error}.", _AGAIN) from error
    if not known:
        raise DataError(f"{path} is not of format {FORMAT} with train and val.", _AGAIN)
    return manifest


def open_split(folder: Folder, split: str) -> tuple[tuple[str, ...], PackedSources, NDArray[np.int64]]:
    """Classes, sources and labels (N,) of one split.

    Raises:
        DataError: a shard or the index is missing, or they do not belong together.
    """
    manifest = read_manifest(folder)
    entry = manifest["splits"][split]
    shards = _find_shards(folder, entry["shards"])
    path = _place(folder, entry["index"])
    try:
        data = _contents(folder, entry["index"], entry["pictures"] * INDEX_ROW.itemsize + _NPY_HEADER_BYTES)
        rows = _read_rows(data)
    except (OSError, ValueError) as error:
        raise DataError(f"{path} is not readable: {error}.", _AGAIN) from error
    classes = tuple(manifest["classes"])
    if not _fits(rows, entry, len(classes)):
        raise DataError(f"{path} does not belong to {_place(folder, MANIFEST)}.", _AGAIN)
    return classes, PackedSources(shards, rows), rows["label"].astype(np.int64)


def index_shard(path: Path, number: int) -> NDArray[np.void]:
    """Find every picture of a tar file by walking its headers; rows of `INDEX_ROW`.

    Raises:
        DataError: not a tar file, or pictures and classes that do not pair up.
    """
    samples = walk_samples(path)
    return np.array([(number, sample.offset, sample.size, sample.label) for sample in samples], INDEX_ROW)


def is_inside(name: str) -> bool:
    """Whether a manifest may name this file: a path from the folder down, read alike on every system."""
    path = PurePosixPath(name)
    return not (path.is_absolute() or ".." in path.parts or "\\" in name or ":" in name)


def _check_classes(classes: Any) -> None:
    if not isinstance(classes, list) or not all(isinstance(name, str) for name in classes):
        raise ValueError("classes are not a list of names")
    if len(set(classes)) < len(classes):
        raise ValueError("two classes have one name")


def _check_entry(entry: dict[str, Any]) -> None:
    """Refuse what names files outside the folder: a manifest may come from anywhere."""
    for name in (entry["index"], *(shard["file"] for shard in entry["shards"])):
        if not is_inside(name):
            raise ValueError(f"{name!r} is not in the folder")
    counts = entry["pictures"], *(shard["bytes"] for shard in entry["shards"])
    if not all(isinstance(count, int) and count >= 0 for count in counts):
        raise ValueError("counts are not whole numbers")


def _place(folder: Folder, name: str) -> str:
    return folder.url_of(name) if isinstance(folder, RemoteFolder) else str(folder / name)


def _contents(folder: Folder, name: str, max_bytes: int) -> bytes:
    if isinstance(folder, RemoteFolder):
        return folder.fetch(name, max_bytes=max_bytes)
    return (folder / name).read_bytes()


def _read_rows(data: bytes) -> NDArray[np.void]:
    """The rows of an .npy file, read-only.

    NumPy's own readers make room for what the header claims before they look for it, open archives as well, and give
    the header, a Python expression, to Python's parser, which fails in its own ways where it is damaged or deep.

    Raises:
        ValueError: not such a file, or its header claims other rows than follow.
    """
    begin = 10 + int.from_bytes(data[8:10], "little")
    header = _NPY_HEADER.fullmatch(data[:begin])
    if header is None:
        raise ValueError("it does not begin as an .npy file of such rows does")
    claimed, found = int(header[1]), len(data) - begin
    if claimed * INDEX_ROW.itemsize != found:
        raise ValueError(f"its header claims {claimed:,} rows of {INDEX_ROW.itemsize} bytes, {found:,} follow it")
    return np.frombuffer(data, INDEX_ROW, offset=begin)


def _find_shards(folder: Folder, entries: Sequence[dict[str, Any]]) -> tuple[Shard, ...]:
    """Every shard of a split, there and of its size."""
    if isinstance(folder, RemoteFolder):
        files = [RemoteFile(folder.url_of(entry["file"]), entry["bytes"]) for entry in entries]
        check_files(files)
        return tuple(files)
    paths = tuple(folder / entry["file"] for entry in entries)
    for path, entry in zip(paths, entries, strict=True):
        if not _is_complete(path, entry["bytes"]):
            raise DataError(f"{path} is missing or incomplete.", f"Copy it again. {_AGAIN}")
    return paths


def _is_complete(path: Path, size_bytes: int) -> bool:
    try:
        return path.is_file() and path.stat().st_size == size_bytes
    except OSError:  # a name longer than a file system takes
        return False


def _fits(rows: NDArray[np.void], entry: dict[str, Any], num_classes: int) -> bool:
    """Whether an index is that of a manifest's entry: every row is a known class in a known shard, within its bytes."""
    if len(rows) != entry["pictures"]:
        return False
    if (rows["label"] >= num_classes).any() or (rows["shard"] >= len(entry["shards"])).any():
        return False
    ends = np.array([shard["bytes"] for shard in entry["shards"]], np.uint64)[rows["shard"]]
    return bool(((rows["offset"] <= ends) & (rows["size"] <= ends - rows["offset"])).all())
