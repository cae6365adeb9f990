"""Owns packing a data set into shards, its pictures reduced to what training can use; reading is `shards.py`'s."""

from __future__ import annotations

import io
import tarfile
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from zoo.data.decode import open_picture
from zoo.data.jpeg import read_jpeg_header, restart_blocks
from zoo.data.pictures import Pictures
from zoo.data.shards import FORMAT, MANIFEST, index_shard
from zoo.errors import BrokenPictureError, DataError
from zoo.files import replacing, write_json, write_text
from zoo.model.spec import Variant

# A shard of about 256 MB: large enough for a disk to stream, small enough that a split has many of them.
SHARD_BYTES = 256_000_000
QUALITY = 90
# Above its size a picture is reduced only where that saves something: a fifth of the side is a third of the pixels.
WORTH_REDUCING = 1.2


@dataclass(frozen=True, kw_only=True)
class PackedSplit:
    """What packing a split did: pictures, of these reduced, and the messages of those that were left out."""

    pictures: int
    reduced: int
    source_bytes: int
    packed_bytes: int
    broken: tuple[str, ...]


def pack_size(variant: Variant) -> int:
    """Pixels of the shorter side that a network can use: its evaluation size, and 1.15 times its last training size.

    Evaluation looks at the whole picture at `eval_size` and must not enlarge it. Training cuts crops out: at 1.15
    times the size, crops of three quarters of the area (1 / 1.15²) and more are still sharp at the last stage. S is
    trained at 300 px and evaluated at 384: 384.
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
    on_picture: Callable[[str], None] = lambda split: None,
) -> dict[str, PackedSplit]:
    """Write the pictures of every split into shards, in an order shuffled by `seed`, and the manifest last.

    A JPEG that is upright, grey or RGB, and at most 1.2 times `size` on its shorter side is copied byte for byte;
    every other picture is reduced to `size` there, never enlarged, turned upright and written as JPEG, with restart
    markers.

    Args:
        on_picture: told the split after each picture.

    Raises:
        DataError: the folder is in use, or a split without one readable picture.
    """
    if folder.exists() and any(folder.iterdir()):
        raise DataError(f"{folder} is not empty.", "Choose another place with --out.")
    done: dict[str, PackedSplit] = {}
    entries: dict[str, Any] = {}
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
    manifest = {"format": FORMAT, "classes": list(classes), "size": size, "quality": quality, "splits": entries}
    write_json(folder / MANIFEST, manifest)
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
    """Results in order, never more than `ahead` of them waiting in memory."""
    rest = iter(indices)
    waiting = [pool.submit(work, index) for index in islice(rest, ahead)]
    try:
        while waiting:
            yield waiting.pop(0).result()
            waiting += [pool.submit(work, index) for index in islice(rest, 1)]
    finally:
        for future in waiting:  # after an error: a server that is gone need not be asked again
            future.cancel()


def _reduce(pictures: Pictures, index: int, size: int, quality: int) -> _Item:
    name, label = pictures.describe(index), int(pictures.labels[index])
    try:
        source = pictures.read(index)
        image = (
            open_picture(source, min_size=2 * size, name=name)  # twice the size, so that the resize decides sharpness
            if isinstance(source, bytes)
            else Image.fromarray(source)
        )
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
    split: str, items: Iterator[_Item], folder: Path, shard_bytes: int, on_picture: Callable[[str], None]
) -> tuple[PackedSplit, dict[str, Any]]:
    """Write shards until the items end; returns what was done and the split's entry in the manifest."""
    names: list[str] = []
    broken: list[str] = []
    shards: list[dict[str, Any]] = []
    indices: list[NDArray[np.void]] = []
    totals = np.zeros(3, np.int64)  # reduced, source bytes, packed bytes

    def readable() -> Iterator[_Item]:
        for item in items:
            on_picture(split)
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
        shards.append({"file": path.name, "pictures": len(rows), "bytes": path.stat().st_size})
    index = np.concatenate(indices) if indices else np.empty(0)
    with replacing(folder / f"{split}.index.npy") as temporary:
        np.save(temporary, index, allow_pickle=False)
    write_text(folder / f"{split}.sources.txt", "".join(f"{name}\n" for name in names))
    entry = {"pictures": len(names), "index": f"{split}.index.npy", "sources": f"{split}.sources.txt", "shards": shards}
    reduced, source_bytes, packed_bytes = totals.tolist()
    return (
        PackedSplit(
            pictures=len(names),
            reduced=reduced,
            source_bytes=source_bytes,
            packed_bytes=packed_bytes,
            broken=tuple(broken),
        ),
        entry,
    )


def _write_shard(path: Path, first: _Item, queue: Iterator[_Item], number: int, shard_bytes: int) -> None:
    """Write `first` and what follows it until the shard is full. Members carry no time, owner or path."""
    with tarfile.open(path, "w", format=tarfile.USTAR_FORMAT) as tar:
        item: _Item | None = first
        while item is not None:
            for kind, data in (("jpg", item.data), ("cls", str(item.label).encode())):
                member = tarfile.TarInfo(f"{number:09d}.{kind}")
                member.size = len(data)
                tar.addfile(member, io.BytesIO(data))
            number += 1
            item = next(queue, None) if tar.offset < shard_bytes else None
