"""Owns pictures packed into tar files: it finds them there and reads one without the others; it packs nothing.

A folder of shards, here or on a web server, has the tar files of WebDataset (github.com/webdataset/webdataset) with
`KEY.jpg` and `KEY.cls`, whose text is the class index. Two kinds of file beside them are ours: `shards.json` names the
classes and the shards of each split, and `SPLIT.index.npy` says where in which shard every picture is, so that any
picture needs one read.
"""

from __future__ import annotations

import io
import json
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from threading import Event
from typing import Annotated, overload

import numpy as np
from numpy.typing import NDArray

from zoo.data.http import RemoteFile, RemoteFolder, check_files
from zoo.data.tar_samples import walk_samples
from zoo.errors import BrokenPictureError, DataError, RowError
from zoo.files import write_bytes
from zoo.rows import Count, CountOrNone, Matching, Row, Within

FORMAT = "zoo-shards-1"
MANIFEST = "shards.json"
# One row per picture: number of its shard, where its bytes begin there, how many they are, its class.
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
# A manifest may come from anywhere and must name nothing outside its folder: no root, no "..", and nothing that Windows
# reads otherwise.
_INSIDE = r"(?!/)(?!([^:\\]*/)?\.\.(/|\Z))[^:\\]*"

FileInside = Annotated[str, Matching(_INSIDE, "a path inside the folder")]
ShardFolder = Path | RemoteFolder
Shard = Path | RemoteFile


@dataclass(frozen=True, kw_only=True)
class ShardEntry(Row):
    """A tar file of a split in the manifest, and how much of it belongs to the split."""

    file: FileInside
    pictures: CountOrNone
    bytes: CountOrNone


@dataclass(frozen=True, kw_only=True)
class SplitEntry(Row):
    """A split in the manifest. `sources` has a line for every picture: where it came from."""

    pictures: CountOrNone
    index: FileInside
    sources: FileInside | None = None
    shards: tuple[ShardEntry, ...]


@dataclass(frozen=True, kw_only=True)
class SplitEntries(Row):
    """The splits of a manifest."""

    train: SplitEntry
    val: SplitEntry


@dataclass(frozen=True, kw_only=True)
class Manifest(Row):
    """`shards.json`. Where pictures were reduced, `size` is their shorter side in pixels and `quality` that of JPEG."""

    written_too = ("format",)

    classes: tuple[str, ...]
    size: Count | None = None
    quality: Annotated[int, Within(1, 100)] | None = None
    splits: SplitEntries

    @property
    def format(self) -> str:
        """Which fields there are."""
        return FORMAT


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
        """The picture's bytes as they were packed; a server that fails is asked again until they are `unwanted`.

        Raises:
            BrokenPictureError: the shard is gone or shorter than its index says.
            DataError: the same of a shard on a server: it is not this picture that is broken.
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


def read_manifest(folder: ShardFolder) -> Manifest:
    """Read what `zoo data pack` or `zoo data index` wrote beside the shards.

    Raises:
        DataError: it is not there, damaged or of another format.
    """
    path = _place(folder, MANIFEST)
    try:
        fields = json.loads(_contents(folder, MANIFEST, _MANIFEST_BYTES))
        if fields["format"] != FORMAT:
            raise DataError(f"{path} is not of format {FORMAT}.", _AGAIN)
        manifest = Manifest.from_dict(fields)
    except RowError as error:
        raise DataError(f"{path} is not readable: {error.problem}", _AGAIN) from error
    except (OSError, ValueError, KeyError, TypeError, RecursionError) as error:  # the last: brackets in brackets
        raise DataError(f"{path} is not readable: {error}.", _AGAIN) from error
    if len(set(manifest.classes)) < len(manifest.classes):
        raise DataError(f"{path} is not readable: two classes have one name.", _AGAIN)
    return manifest


def open_split(folder: ShardFolder, split: str) -> tuple[tuple[str, ...], PackedSources, NDArray[np.int64]]:
    """Classes, sources and labels (N,) of one split.

    Raises:
        DataError: a shard or the index is missing, or they do not belong together.
    """
    manifest = read_manifest(folder)
    entry: SplitEntry = getattr(manifest.splits, split)
    shards = _find_shards(folder, entry.shards)
    path = _place(folder, entry.index)
    try:
        data = _contents(folder, entry.index, entry.pictures * INDEX_ROW.itemsize + _NPY_HEADER_BYTES)
        rows = _read_rows(data)
    except (OSError, ValueError) as error:
        raise DataError(f"{path} is not readable: {error}.", _AGAIN) from error
    if not _fits(rows, entry, len(manifest.classes)):
        raise DataError(f"{path} does not belong to {_place(folder, MANIFEST)}.", _AGAIN)
    return manifest.classes, PackedSources(shards, rows), rows["label"].astype(np.int64)


def index_shard(path: Path, number: int) -> NDArray[np.void]:
    """Find every picture of a tar file by walking its headers; rows of `INDEX_ROW`.

    Raises:
        DataError: not a tar file, or pictures and classes that do not pair up.
    """
    samples = walk_samples(path)
    return np.array([(number, sample.offset, sample.size, sample.label) for sample in samples], INDEX_ROW)


def write_rows(path: Path, rows: NDArray[np.void]) -> None:
    """Write a split's index, rows of `INDEX_ROW`, whole or not at all.

    NumPy writes its files through buffers of its own and does not look whether their end arrived: on a full disk the
    file was short, and nobody was told.

    Raises:
        ZooError: it cannot be written.
    """
    buffer = io.BytesIO()
    np.save(buffer, rows, allow_pickle=False)
    write_bytes(path, buffer.getvalue())


def is_inside(name: str) -> bool:
    """Whether a manifest may name this file."""
    return re.fullmatch(_INSIDE, name) is not None


def _place(folder: ShardFolder, name: str) -> str:
    return folder.url_of(name) if isinstance(folder, RemoteFolder) else str(folder / name)


def _contents(folder: ShardFolder, name: str, max_bytes: int) -> bytes:
    if isinstance(folder, RemoteFolder):
        return folder.fetch(name, max_bytes=max_bytes)
    return (folder / name).read_bytes()


def _read_rows(data: bytes) -> NDArray[np.void]:
    """The rows of an .npy file, read-only.

    NumPy's own readers allocate what the header claims before they see whether it is there. They open archives as well,
    and they give the header, a Python expression, to Python's parser, which fails in many ways where it is damaged.

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


def _find_shards(folder: ShardFolder, entries: Sequence[ShardEntry]) -> tuple[Shard, ...]:
    """Every shard of a split; each is there and has its size."""
    if isinstance(folder, RemoteFolder):
        files = [RemoteFile(folder.url_of(entry.file), entry.bytes) for entry in entries]
        check_files(files)
        return tuple(files)
    paths = tuple(folder / entry.file for entry in entries)
    for path, entry in zip(paths, entries, strict=True):
        if not _is_complete(path, entry.bytes):
            raise DataError(f"{path} is missing or incomplete.", f"Copy it again. {_AGAIN}")
    return paths


def _is_complete(path: Path, size_bytes: int) -> bool:
    try:
        return path.is_file() and path.stat().st_size == size_bytes
    except OSError:  # a name too long for the file system
        return False


def _fits(rows: NDArray[np.void], entry: SplitEntry, num_classes: int) -> bool:
    """Whether an index belongs to a manifest's entry: every row has a known class and lies within a known shard."""
    if len(rows) != entry.pictures:
        return False
    if (rows["label"] >= num_classes).any() or (rows["shard"] >= len(entry.shards)).any():
        return False
    ends = np.array([shard.bytes for shard in entry.shards], np.uint64)[rows["shard"]]
    return bool(((rows["offset"] <= ends) & (rows["size"] <= ends - rows["offset"])).all())
