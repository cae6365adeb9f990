"""Owns what tells one set of pictures from another without reading them: names, sizes, places; it decodes nothing."""

from __future__ import annotations

import hashlib
import zlib
from collections.abc import Iterator, Sequence
from pathlib import Path
from urllib.parse import unquote

import numpy as np
from numpy.typing import NDArray

from zoo.data.pictures import Pictures
from zoo.data.shards import Packed, PackedSources, Shard
from zoo.model.spec import RGB
from zoo.visible import visible


def fingerprint(pictures: Pictures) -> str:
    """SHA-256 of what a set's pictures are known by, in order; a moved or served copy of the same set has the same.

    Of files these are their paths below the set's folder and their sizes, both known since they were listed; of shards
    their paths and lengths, and where in them which picture is; of arrays the pixels. A million files take 4 s. A
    server's ETag is left out: it changes with every copy.
    """
    found = hashlib.sha256()
    for part in _parts(pictures):
        found.update(part)
    return found.hexdigest()


def name_below(pictures: Pictures, index: int) -> str:
    """A picture's name wherever its set is: the path below the set's folder; of an array its number and CRC-32."""
    source = pictures.sources[index]
    if isinstance(source, np.ndarray):
        return f"picture {index} {zlib.crc32(_as_known(source).tobytes()):08x}"
    return visible(_below(str(source), pictures.root or pictures.name))


def _parts(pictures: Pictures) -> Iterator[bytes]:
    sources, root = pictures.sources, pictures.root or pictures.name
    if isinstance(sources, PackedSources):
        yield _lengths(sources.shards, root)
        yield np.ascontiguousarray(sources.rows).tobytes()
        return
    if pictures.sizes is not None:
        yield pictures.sizes.tobytes()
    for source in sources:
        if isinstance(source, np.ndarray):
            known = _as_known(source)
            yield str(known.shape).encode()
            yield known.tobytes()
        elif isinstance(source, Packed):
            yield f"{_below(str(source.shard), root)}\0{source.offset}\0{source.size}\0".encode(
                errors="surrogateescape"
            )
        else:
            yield f"{_below(str(source), root)}\0".encode(errors="surrogateescape")


def _as_known(source: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """An array as it has been known since grey ones became RGB when they were opened: with three planes."""
    return source if source.shape[-1] != 1 else np.repeat(source, RGB, axis=-1)


def _lengths(shards: Sequence[Shard], root: str) -> bytes:
    """The shards' paths and lengths in bytes."""
    lines = (
        f"{_below(str(shard), root)}\0{shard.stat().st_size if isinstance(shard, Path) else shard.size_bytes}\0"
        for shard in shards
    )
    return "".join(lines).encode(errors="surrogateescape")


def _below(name: str, root: str) -> str:
    """A path below the set's folder, or that of an address, as the file system would write it."""
    rest = name.removeprefix(root).lstrip("/\\")
    return unquote(rest) if "://" in root else rest.replace("\\", "/")
