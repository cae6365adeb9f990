"""Owns how tar files that others wrote become readable: their splits, classes and index. It changes no tar file.

`zoo/data/tar_samples.py` says what a tar file must hold; `zoo/data/shards.py` reads what is written here.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from zoo.data.hold_out import first_fifth, hash_of
from zoo.data.pictures import TEST_NAME, VAL_NAMES
from zoo.data.shards import INDEX_ROW, MANIFEST, Manifest, ShardEntry, SplitEntries, SplitEntry, is_inside, write_rows
from zoo.data.tar_samples import walk_samples
from zoo.errors import DataError
from zoo.files import write_json
from zoo.rows import Row
from zoo.wording import joined

CLASSES = "classes.txt"
SPLIT_NAMES = ("train", *VAL_NAMES, TEST_NAME)
# Without names of classes, labels above this are taken for identifiers: a manifest of them all would have gigabytes.
MOST_NUMBERS = 1_000_000


@dataclass(frozen=True, kw_only=True)
class Indexed(Row):
    """What was found: the classes, and how many pictures and tar files each split has.

    `held_out` says that there was one split only and val is a fifth of it, in the same files; `left_out` are tar files
    of a second split to evaluate on.
    """

    classes: tuple[str, ...]
    pictures: dict[str, int]
    shards: dict[str, int]
    held_out: bool
    left_out: tuple[str, ...]


@dataclass(frozen=True)
class _Walked:
    """A split's pictures: a row of `INDEX_ROW` and a hash for each; the hashes decide which may be held out."""

    files: tuple[Path, ...]
    rows: NDArray[np.void]
    hashes: NDArray[np.uint64]


def index_folder(
    folder: Path, *, classes_file: Path | None = None, on_shard: Callable[[], None] = lambda: None
) -> Indexed:
    """Write `shards.json` and an index beside WebDataset's tar files.

    Args:
        folder: has tar files, in sub-folders or not; a word of their path names their split.
        classes_file: names of the classes, one a line; by default the folder's `classes.txt`, else the numbers.
        on_shard: called after each tar file.

    Raises:
        DataError: no tar files, or their split is not clear; samples without a picture or class; there is an index.
    """
    if (folder / MANIFEST).exists():
        raise DataError(f"{folder / MANIFEST} is there already.", "Remove it to index the tar files anew.")
    splits, left_out = choose_splits(folder)
    walked = {split: _walk(files, on_shard) for split, files in splits.items()}
    highest = max(int(one.rows["label"].max()) for one in walked.values())
    classes = _read_classes(folder, classes_file, highest)
    held_out = "val" not in walked
    if held_out:
        walked = _hold_out(folder, walked["train"])
    entries = {split: _write_split(folder, split, one) for split, one in walked.items()}
    write_json(folder / MANIFEST, Manifest(classes=classes, splits=SplitEntries(**entries)).to_dict())
    return Indexed(
        classes=classes,
        pictures={split: entry.pictures for split, entry in entries.items()},
        shards={split: len(entry.shards) for split, entry in entries.items()},
        held_out=held_out,
        left_out=left_out,
    )


def find_tars(folder: Path) -> list[Path]:
    """Every tar file under a folder, but hidden ones, sorted."""
    return sorted(path for path in folder.rglob("*.tar") if path.is_file() and not path.name.startswith("."))


def choose_splits(folder: Path) -> tuple[dict[str, tuple[Path, ...]], tuple[str, ...]]:
    """Choose the tar files of train, and of val where there are any; also return the names of those of neither.

    A word of the path names the split: `train-000.tar`, `imagenet1k-validation-00.tar`, `val/7.tar`. If no file names
    one, all are train.

    Raises:
        DataError: no tar files; some name a split and some do not, or name two; none of train.
    """
    tars = find_tars(folder)
    if not tars:
        raise DataError(
            f"{folder} has no tar files.", "Expected uncompressed ones: train-000000.tar, val-000000.tar, …"
        )
    odd = next((path for path in tars if not is_inside(path.relative_to(folder).as_posix())), None)
    if odd:
        raise DataError(f"{odd} has a colon or a backslash in its name.", f"Rename it: {MANIFEST} cannot name it.")
    named: dict[str, list[Path]] = {}
    for path in tars:
        named.setdefault(_split_of(path.relative_to(folder)), []).append(path)
    if set(named) == {""}:
        return {"train": tuple(tars)}, ()
    if "" in named or "train" not in named:
        problem = f"{named[''][0]} names no split" if "" in named else f"{folder} has no tar files of train"
        raise DataError(f"{problem}.", f"Expected names with one of {', '.join(SPLIT_NAMES)}: train-000000.tar, …")
    chosen = {"train": tuple(named["train"])}
    val = next((name for name in (*VAL_NAMES, TEST_NAME) if name in named), None)
    if val:
        chosen["val"] = tuple(named[val])
    others = (path for name in named if name not in ("train", val) for path in named[name])
    return chosen, tuple(str(path.relative_to(folder)) for path in others)


def _split_of(path: Path) -> str:
    words = set(re.findall("[a-z]+", str(path).lower())) & set(SPLIT_NAMES)
    if len(words) > 1:
        raise DataError(f"{path} names {joined(sorted(words))}.", "A tar file belongs to one split: rename it.")
    return words.pop() if words else ""


def _walk(files: tuple[Path, ...], on_shard: Callable[[], None]) -> _Walked:
    rows, hashes = [], []
    for number, path in enumerate(files):
        samples = list(walk_samples(path))
        rows.append(np.array([(number, one.offset, one.size, one.label) for one in samples], INDEX_ROW))
        hashes.append(np.array([hash_of(f"{one.label}/{one.key}") for one in samples], np.uint64))
        on_shard()
    found = _Walked(files, np.concatenate(rows), np.concatenate(hashes))
    if not len(found.rows):
        raise DataError(f"{files[0]} and {len(files) - 1} more have no samples.", "Expected KEY.jpg and KEY.cls.")
    return found


def _hold_out(folder: Path, train: _Walked) -> dict[str, _Walked]:
    """Make two splits of one, as of a folder of pictures: the files are the same, their indices divide the pictures."""
    held_out = first_fifth(train.hashes, train.rows["label"].astype(np.int64))
    if held_out.all() or not held_out.any():
        raise DataError(
            f"{folder} has {len(train.rows)} pictures, too few to hold a fifth out.", "Add val-000000.tar, …"
        )
    chosen = {"train": ~held_out, "val": held_out}
    return {split: _Walked(train.files, train.rows[own], train.hashes[own]) for split, own in chosen.items()}


def _read_classes(folder: Path, path: Path | None, highest: int) -> tuple[str, ...]:
    if path is None and (folder / CLASSES).exists():
        path = folder / CLASSES
    if path is None and highest >= MOST_NUMBERS:
        raise DataError(
            f"{folder} has labels up to {highest}, which would be {highest + 1:,} classes.",
            "KEY.cls holds the number of the class, from 0; or name them all with --classes.",
        )
    classes = _class_names(path) if path else tuple(str(number) for number in range(highest + 1))
    if len(classes) < 2:
        raise DataError(f"{folder} has one class only.", "A classifier needs pictures of at least two.")
    if highest >= len(classes) or len(set(classes)) < len(classes):
        raise DataError(
            f"{path} has {len(set(classes))} different names in {len(classes)} lines, labels go up to {highest}.",
            "One name a line: the first is that of class 0.",
        )
    return classes


def _class_names(path: Path) -> tuple[str, ...]:
    try:
        lines = path.read_text(encoding="utf-8-sig").rstrip().split("\n")  # splitlines would end one at a form feed
    except (OSError, UnicodeError) as error:
        raise DataError(
            f"{path} is not readable: {error}.", "Expected text with a class's name in every line."
        ) from error
    names = tuple(line.strip() for line in lines)
    if "" in names:
        raise DataError(
            f"{path}: line {names.index('') + 1} is empty.",
            "One name a line: the first is that of class 0. Name that class, or remove the line.",
        )
    return names


def _write_split(folder: Path, split: str, walked: _Walked) -> SplitEntry:
    """Write a split's index; returns its entry in the manifest."""
    name = f"{split}.index.npy"
    write_rows(folder / name, walked.rows)
    counts = np.bincount(walked.rows["shard"], minlength=len(walked.files)).tolist()
    shards = tuple(
        ShardEntry(file=path.relative_to(folder).as_posix(), pictures=count, bytes=path.stat().st_size)
        for path, count in zip(walked.files, counts, strict=True)
    )
    return SplitEntry(pictures=len(walked.rows), index=name, shards=shards)
