"""Owns what a data set is found to be: broken pictures, duplicates, balance and sizes; it changes no file."""

from __future__ import annotations

import hashlib
import io
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from zoo.data.open import remarks
from zoo.data.pictures import Pictures
from zoo.errors import BrokenPictureError
from zoo.model.spec import RGB

# A JPEG decoded at a share of its size is read to its end, so what is missing or damaged is noticed all the same.
LOOK_AT_SIZE = 32


@dataclass(frozen=True)
class Seen:
    """One picture as the check saw it, or what is wrong with it; duplicates share their `fingerprint`.

    `labels` are the indices of its classes: one, unless the data set may have several.
    """

    split: str
    name: str
    labels: tuple[int, ...]
    width: int = 0
    height: int = 0
    fingerprint: bytes = b""
    problem: str = ""


@dataclass(frozen=True, kw_only=True)
class Report:
    """What a data set is. `duplicates` are groups of names; `conflicts` those whose members differ in their labels."""

    splits: dict[str, int]
    remarks: tuple[str, ...]
    broken: tuple[str, ...]
    classes: tuple[dict[str, Any], ...]
    imbalance: float
    sizes: dict[str, dict[str, int]]
    duplicates_within: tuple[tuple[str, ...], ...]
    duplicates_across: tuple[tuple[str, ...], ...]
    conflicts: tuple[tuple[str, ...], ...]

    def to_dict(self) -> dict[str, Any]:
        """Return plain JSON types."""
        return asdict(self)


def check(
    splits: dict[str, Pictures],
    *,
    workers: int,
    on_picture: Callable[[], None] = lambda: None,
    channels: int = RGB,
) -> Report:
    """Read and decode every picture of every split, in so many planes.

    Two pictures are duplicates where size and decoded pixels are the same (JPEGs: at a share of their size), so copies
    with other metadata are found too; copies that were compressed anew or resized are not.
    """
    wanted = [
        (split, pictures, index, channels) for split, pictures in splits.items() for index in range(len(pictures))
    ]
    seen = []
    with ThreadPoolExecutor(workers) as pool:
        for one in pool.map(lambda place: _look(*place), wanted):
            seen.append(one)
            on_picture()
    classes = next(iter(splits.values())).classes
    good = [one for one in seen if not one.problem]
    groups = _duplicate_groups(good)
    across = [group for group in groups if len({one.split for one in group}) > 1]
    counts = Counter((one.split, label) for one in good for label in one.labels)
    totals = [sum(counts[split, label] for split in splits) for label in range(len(classes))]
    return Report(
        splits={split: len(pictures) for split, pictures in splits.items()},
        remarks=remarks(*splits.values()),
        broken=tuple(one.problem for one in seen if one.problem),
        classes=tuple(
            {"class": name} | {split: counts[split, label] for split in splits} for label, name in enumerate(classes)
        ),
        imbalance=max(totals) / min(totals) if min(totals) else float(max(totals)),
        sizes=_sizes(good),
        duplicates_within=_names(group for group in groups if len({one.split for one in group}) == 1),
        duplicates_across=_names(across),
        conflicts=_names(group for group in groups if len({one.labels for one in group}) > 1),
    )


def _look(split: str, pictures: Pictures, index: int, channels: int) -> Seen:
    name, labels = pictures.describe(index), pictures.places_of(index)
    try:
        source = pictures.read(index)
        image = pictures.decode(index, source, min_size=LOOK_AT_SIZE, channels=channels)
        width, height = _stored_size(source) if isinstance(source, bytes) else image.size
    except BrokenPictureError as error:
        return Seen(split, name, labels, problem=error.problem)
    return Seen(split, name, labels, width, height, _fingerprint(source, image, width, height))


def _fingerprint(source: bytes | NDArray[np.uint8], image: Image.Image, width: int, height: int) -> bytes:
    """A hash of size and pixels; of the bytes where all pixels are alike, as empty pictures are not copies."""
    flat = all(low == high for low, high in (plane.getextrema() for plane in image.split()))
    data = source if flat else image.tobytes()
    return hashlib.sha256(f"{width} × {height} ".encode() + bytes(data)).digest()


def _stored_size(data: bytes) -> tuple[int, int]:
    """Width and height in full; `open_picture` has accepted the bytes already."""
    with Image.open(io.BytesIO(data)) as image:
        return image.size


def _duplicate_groups(seen: Iterable[Seen]) -> list[list[Seen]]:
    """Groups of two and more that are the same picture, in the order of their first member."""
    groups: defaultdict[bytes, list[Seen]] = defaultdict(list)
    for one in seen:
        groups[one.fingerprint].append(one)
    return [group for group in groups.values() if len(group) > 1]


def _names(groups: Iterable[list[Seen]]) -> tuple[tuple[str, ...], ...]:
    return tuple(tuple(one.name for one in group) for group in groups)


def _sizes(seen: list[Seen]) -> dict[str, dict[str, int]]:
    """Smallest, median and largest of widths, heights and shorter sides, in pixels."""
    columns = {
        "width": [one.width for one in seen],
        "height": [one.height for one in seen],
        "shorter_side": [min(one.width, one.height) for one in seen],
    }
    return {
        key: {"min": min(values), "median": int(np.median(values)), "max": max(values)}
        for key, values in columns.items()
        if values
    }
