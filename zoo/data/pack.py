"""Owns packing a data set into shards, with pictures reduced to what training can use; `shards.py` reads them."""

from __future__ import annotations

import io
import tarfile
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from itertools import islice
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from zoo.data.jpeg import read_jpeg_header, restart_blocks
from zoo.data.pictures import Pictures
from zoo.data.shards import INDEX_ROW, MANIFEST, Manifest, ShardEntry, SplitEntries, SplitEntry, index_shard, write_rows
from zoo.errors import BrokenPictureError, DataError
from zoo.files import replacing, write_json, write_text
from zoo.model.spec import Variant
from zoo.rows import CountOrNone, Row

# A shard of about 256 MB: large enough for a disk to stream, small enough that a split has many of them.
SHARD_BYTES = 256_000_000
QUALITY = 90
# A picture is reduced only where that saves something: a fifth of the side is a third of the pixels.
WORTH_REDUCING = 1.2


@dataclass(frozen=True, kw_only=True)
class PackedSplit(Row):
    """What packing a split did: how many pictures, how many of them reduced, and why others were left out."""

    pictures: CountOrNone
    reduced: CountOrNone
    source_bytes: CountOrNone
    packed_bytes: CountOrNone
    broken: tuple[str, ...]


def pack_size(variant: Variant) -> int:
    """Pixels of the shorter side that a network can use: its evaluation size, and 1.15 times its last training size.

    Evaluation takes the whole picture at `eval_size` and must not enlarge it. Training takes crops: at 1.15 times the
    size, crops of three quarters of the area (1 / 1.15²) and more are still sharp in the last stage. S is trained at
    300 px and evaluated at 384: 384.
    """
    return max(variant.eval_size, round(1.15 * variant.train_size))


def pack(
    splits: dict[str, Pictures],
    folder: Path,
    *,
    size: int,
    quality: int = QUALITY,
    seed: int = 0,
    workers: int = 1,
    shard_bytes: int = SHARD_BYTES,
    on_picture: Callable[[], None] = lambda: None,
) -> dict[str, PackedSplit]:
    """Write the pictures of every split into shards, in an order shuffled by `seed`, and the manifest last.

    A JPEG that is upright, grey or RGB, and at most 1.2 times `size` on its shorter side is copied byte for byte. Every
    other picture is turned upright, reduced to `size` on its shorter side but never enlarged, and written as RGB JPEG
    with restart markers; what is transparent is laid over black.

    Args:
        on_picture: called after each picture.

    Raises:
        DataError: the folder is in use, pictures with several labels or four planes, or a split without one readable
        picture.
    """
    if any(pictures.multi_label for pictures in splits.values()):
        raise DataError(
            "Shards hold one class a picture, and these pictures may have several.",
            "Train on the file of labels itself.",
        )
    if any(pictures.array_channels == 4 for pictures in splits.values()):
        raise DataError("Shards hold JPEGs, which have no fourth plane.", "Train on the arrays themselves.")
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        left = next(folder.glob("*.tar"), None) if folder.is_dir() and not (folder / MANIFEST).exists() else None
        hint = (
            f" Or remove {folder}: an earlier packing did not end, and left shards that nothing reads." if left else ""
        )
        raise DataError(f"{folder} is a file, or not empty.", f"Choose another place with --out.{hint}")
    done: dict[str, PackedSplit] = {}
    entries: dict[str, SplitEntry] = {}
    for name, pictures in splits.items():
        order = np.random.default_rng((seed, 0)).permutation(len(pictures))

        def reduced(index: int, pictures: Pictures = pictures) -> _Item:
            return _reduce(pictures, index, size, quality)

        with ThreadPoolExecutor(workers) as pool:
            items = _in_order(pool, reduced, order.tolist(), ahead=4 * workers)
            done[name], entries[name] = _write_split(name, items, folder, shard_bytes, on_picture)
        if not done[name].pictures:
            raise DataError(f"Not one picture of {name} could be decoded.", "The files are damaged, or not pictures.")
    classes = next(iter(splits.values())).classes
    manifest = Manifest(classes=classes, size=size, quality=quality, splits=SplitEntries(**entries))
    write_json(folder / MANIFEST, manifest.to_dict())
    return done


@dataclass(frozen=True)
class _Item:
    name: str
    label: int
    data: bytes
    source_bytes: int
    reduced: bool
    problem: str = ""


def _in_order(
    pool: ThreadPoolExecutor, work: Callable[[int], _Item], indices: list[int], *, ahead: int
) -> Iterator[_Item]:
    """Yield results in order, with at most `ahead` of them waiting in memory."""
    rest = iter(indices)
    waiting = [pool.submit(work, index) for index in islice(rest, ahead)]
    try:
        while waiting:
            yield waiting.pop(0).result()
            waiting += [pool.submit(work, index) for index in islice(rest, 1)]
    finally:
        for future in waiting:  # after an error: a server that is away need not be asked again
            future.cancel()


def _reduce(pictures: Pictures, index: int, size: int, quality: int) -> _Item:
    name, label = pictures.describe(index), int(pictures.labels[index])
    try:
        source = pictures.read(index)
        image = pictures.decode(index, source, min_size=2 * size)  # twice the size: the resize decides sharpness
    except BrokenPictureError as error:
        return _Item(name, label, b"", 0, False, error.problem)
    source_bytes = len(source) if isinstance(source, bytes) else source.nbytes
    if isinstance(source, bytes) and _good_as_it_is(source, size):
        return _Item(name, label, source, source_bytes, False)
    factor = min(1.0, size / min(image.size))
    if factor < 1.0:
        wanted = (round(image.width * factor), round(image.height * factor))
        image = image.resize(wanted, Image.Resampling.BICUBIC)
    return _Item(name, label, encode_jpeg(image, quality), source_bytes, factor < 1.0)


def encode_jpeg(image: Image.Image, quality: int) -> bytes:
    """A JPEG, chroma 4:2:0, with restart markers: training decodes no more of it than its crop covers."""
    block_width = 8 if image.mode == "L" else 16
    buffer = io.BytesIO()
    image.save(
        buffer,
        "JPEG",
        quality=quality,
        subsampling="4:2:0",
        restart_marker_blocks=restart_blocks(-(-image.width // block_width)),
    )
    return buffer.getvalue()


def _good_as_it_is(data: bytes, size: int) -> bool:
    header = read_jpeg_header(data)
    if header is None or header.orientation != 1:
        return False
    return min(header.width, header.height) <= WORTH_REDUCING * size


def _write_split(
    split: str, items: Iterator[_Item], folder: Path, shard_bytes: int, on_picture: Callable[[], None]
) -> tuple[PackedSplit, SplitEntry]:
    """Write shards until the items end; return what was done and the split's entry in the manifest."""
    names: list[str] = []
    broken: list[str] = []
    shards: list[ShardEntry] = []
    indices: list[NDArray[np.void]] = []
    totals = np.zeros(3, np.int64)  # reduced, source bytes, packed bytes

    def readable() -> Iterator[_Item]:
        for item in items:
            on_picture()
            if item.problem:
                broken.append(item.problem)
                continue
            names.append(item.name)
            totals[:] += (item.reduced, item.source_bytes, len(item.data))
            yield item

    queue = readable()
    for first in queue:
        path = folder / f"{split}-{len(shards):06d}.tar"
        start = len(names) - 1
        with replacing(path) as temporary:
            _write_shard(temporary, first, queue, start, shard_bytes)
        rows = index_shard(path, len(shards))
        indices.append(rows)
        shards.append(ShardEntry(file=path.name, pictures=len(rows), bytes=path.stat().st_size))
    name = f"{split}.index.npy"
    write_rows(folder / name, np.concatenate(indices) if indices else np.empty(0, INDEX_ROW))
    sources = f"{split}.sources.txt"
    write_text(folder / sources, "".join(f"{name}\n" for name in names))
    reduced, source_bytes, packed_bytes = totals.tolist()
    done = PackedSplit(
        pictures=len(names),
        reduced=reduced,
        source_bytes=source_bytes,
        packed_bytes=packed_bytes,
        broken=tuple(broken),
    )
    return done, SplitEntry(pictures=len(names), index=name, sources=sources, shards=tuple(shards))


def _write_shard(path: Path, first: _Item, queue: Iterator[_Item], number: int, shard_bytes: int) -> None:
    """Write `first` and what follows it until the shard is full. Members have no time, owner or folder."""
    with tarfile.open(path, "w", format=tarfile.USTAR_FORMAT) as tar:
        item: _Item | None = first
        while item is not None:
            for kind, data in (("jpg", item.data), ("cls", str(item.label).encode())):
                member = tarfile.TarInfo(f"{number:09d}.{kind}")
                member.size = len(data)
                tar.addfile(member, io.BytesIO(data))
            number += 1
            item = next(queue, None) if tar.offset < shard_bytes else None
