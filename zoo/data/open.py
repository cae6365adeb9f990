"""Owns which pictures a name means: the digits, a folder, a file of labels, shards or arrays, as train and val."""

from __future__ import annotations

import os
from dataclasses import replace
from pathlib import Path
from typing import NamedTuple

import numpy as np

from zoo.data.arrays import SUFFIX, has_val, read_arrays
from zoo.data.decode import picture_suffixes
from zoo.data.digits import NUM_CLASSES, NUM_TRAIN, NUM_VAL, open_digits
from zoo.data.folder import check_unicode, classes_on_one_side, hold_out, read_folder
from zoo.data.http import RemoteFolder, is_address, parse_address
from zoo.data.labels import UNDIVIDED, is_label_file, read_labels, splits_of
from zoo.data.pictures import TEST_NAME, VAL_NAMES, Pictures, Split
from zoo.data.shards import ShardFolder, is_shards, open_split
from zoo.errors import DataError
from zoo.wording import joined

EXPECTED = (
    "Expected `digits`, a folder with one sub-folder of pictures per class, a file of labels (.csv, .tsv, .jsonl, "
    ".parquet), shards (https://… too), or an .npz file."
)


def open_splits(data: str, *, seed: int = 0, group_by: str | None = None) -> tuple[Pictures, Pictures]:
    """Open `data` as (train, val).

    Args:
        data: "digits", or a folder: with `train/` and `val/`, or with one folder per class, which is then split by
            `seed` (a fifth of every class is held out), or of shards (`zoo data pack`, `zoo data index`), which may be
            on a server (https://…); or a file of labels (`zoo.data.labels`), or an .npz file of arrays.
        seed: decides the split of a folder that has none.
        group_by: keeps pictures that belong together on one side of such a split: "parent" or a regular expression, as
            `zoo.data.hold_out.choose_held_out` reads it.

    Raises:
        DataError: no such folder, no pictures, one class only, or classes that differ between the splits; of a
            server, as `RemoteFile.read`.
    """
    _check_name(data)
    divided = _open_divided(data)
    if isinstance(divided, Pictures):
        return hold_out(divided, data, seed, group_by)
    if group_by is not None:
        raise DataError(
            f"--group-by has no effect: {data} is divided already.", "It is for data without a part to validate on."
        )
    return divided


def open_parts(data: str) -> tuple[Pictures, ...]:
    """All pictures to learn from: train and val of data that has both, else one part; never test.

    Raises:
        DataError: as `open_splits`.
    """
    _check_name(data)
    divided = _open_divided(data)
    return (divided,) if isinstance(divided, Pictures) else divided


def _open_divided(data: str) -> tuple[Pictures, Pictures] | Pictures:
    """Train and val of data that has both; else what they have to be made of."""
    root = Path(data)
    if data == "digits":
        return open_digits("train"), open_digits("val")
    if is_address(data):
        remote = RemoteFolder(parse_address(data))
        return _shards(remote, "train"), _shards(remote, "val")
    if root.suffix == SUFFIX and root.is_file():
        splits = _arrays(root)
        return (splits[0], splits[1]) if len(splits) == 2 else splits[0]
    if is_labels(data):
        return _divided_labels(data)
    if not root.is_dir():
        raise _no_data(data)
    if is_shards(root):
        return _shards(root, "train"), _shards(root, "val")
    val_root = next((root / name for name in VAL_NAMES if (root / name).is_dir()), None)
    if not val_root or not (root / "train").is_dir():
        return read_folder(root / "train" if (root / "train").is_dir() else root)
    train = read_folder(root / "train")
    return train, _beside(val_root, train.classes)


def _beside(root: Path, classes: tuple[str, ...]) -> Pictures:
    """The pictures of a folder beside train/, with the classes of train/, of which it may lack some.

    Raises:
        DataError: it has other classes, or no pictures.
    """
    part = read_folder(root, least_classes=1)
    unknown = [name for name in part.classes if name not in classes]
    if unknown:
        check_unicode(tuple(dict.fromkeys((*classes, *part.classes))), str(root.parent))
        raise DataError(
            f"{root} has classes that {root.parent / 'train'} has not: {joined(unknown[:5])}.",
            "Name its sub-folders after the classes trained on.",
        )
    places = np.array([classes.index(name) for name in part.classes], np.int64)
    return replace(part, classes=classes, labels=places[part.labels])


def is_labels(data: str) -> bool:
    """Whether `data` is a file of labels that is there; one that is not is told as any other name."""
    return not is_address(data) and is_label_file(Path(data)) and Path(data).is_file()


def _divided_labels(data: str) -> tuple[Pictures, Pictures] | Pictures:
    splits = read_labels(Path(data)).splits
    if UNDIVIDED in splits:
        return splits[UNDIVIDED]
    if "train" not in splits:
        raise DataError(f"{data} has no pictures of the split train, but {joined(splits)}.", "Name some in its column.")
    return (splits["train"], splits["val"]) if "val" in splits else splits["train"]


class Counted(NamedTuple):
    """How many pictures there are to train, validate and test on, of how many classes, and if they may be flipped.

    `multi_label`: a picture may have several classes, or none. `training` is None where counting opened nothing.
    """

    train: int
    val: int
    test: int
    classes: int
    flip_keeps_class: bool
    multi_label: bool = False
    training: Pictures | None = None


def count_pictures(data: str, *, seed: int = 0, group_by: str | None = None) -> Counted:
    """Count what `open_splits` would open.

    Raises:
        DataError: as `open_splits`.
    """
    if data == "digits" and group_by is None:
        return Counted(NUM_TRAIN, NUM_VAL, 0, NUM_CLASSES, flip_keeps_class=False)
    train, val = open_splits(data, seed=seed, group_by=group_by)
    test = open_test(data, train.classes)
    counts = len(train), len(val), len(test) if test else 0, len(train.classes)
    return Counted(*counts, train.flip_keeps_class, train.multi_label, train)


def open_test(data: str, classes: tuple[str, ...]) -> Pictures | None:
    """The pictures of a folder's test/, or of a file's split test, beside train: nothing is chosen by them.

    Args:
        classes: those of the training pictures; test/ may lack some.

    Raises:
        DataError: test/ has other classes, or no pictures.
    """
    root = Path(data)
    if is_labels(data):
        return read_labels(root).splits.get("test") if {"train", "test"} <= splits_of(root) else None
    if is_address(data) or not (root / "train").is_dir() or not (root / TEST_NAME).is_dir():
        return None
    return _beside(root / TEST_NAME, classes)


def _no_data(data: str) -> DataError:
    """Describe a name that is no data: nothing is there, or a file of another kind."""
    path = Path(data)
    if not path.exists():
        is_file = path.suffix == SUFFIX or is_label_file(path)
        return DataError(f"There is no {'file' if is_file else 'folder'} {data}.", EXPECTED)
    if path.suffix.lower() in picture_suffixes():
        problem = f"{data} is one picture; a folder with one sub-folder of pictures per class is expected."
        return DataError(problem, f"To classify it: `zoo predict ARTIFACT {data}`.")
    if path.suffix == ".tar":
        problem = f"{data} is one tar file; the folder that holds all of them is expected."
        return DataError(problem, "`zoo data index FOLDER` makes WebDataset's tar files readable.")
    return DataError(f"{data} is a file, and neither of labels nor an .npz file of arrays.", EXPECTED)


def remarks(train: Pictures, val: Pictures) -> tuple[str, ...]:
    """What a person should know of pictures as they were found, a line each: what was left out, what is too few."""
    left_out = tuple(dict.fromkeys((*train.left_out, *val.left_out)))
    said = (f"Left out: {'; '.join(left_out)}.",) if left_out else ()
    return (*said, *_about_labels(train, val), *classes_on_one_side(train, val))


def _about_labels(train: Pictures, val: Pictures) -> tuple[str, ...]:
    """How many labels a picture has, where it may have several."""
    if train.targets is None or val.targets is None:
        return ()
    each = np.concatenate([train.targets.sum(1), val.targets.sum(1)])
    none = int((each == 0).sum())
    without = f"; {none:,} pictures have none" if none else ""
    return (f"Several labels a picture: {each.mean():.2f} on average, {each.max()} at most{without}.",)


def _check_name(data: str) -> None:
    """Refuse an empty name, which would be the current folder, and a folder that may not be looked into."""
    if not data.strip():
        raise DataError("--data is empty.", "Is the variable set? Use --data digits, or a folder of pictures.")
    root = Path(data)
    if not is_address(data) and root.is_dir() and not os.access(root, os.R_OK | os.X_OK):
        raise DataError(f"{data} cannot be read: Permission denied.", "Ask for the right to read it and its folders.")


def open_val(data: str, *, seed: int | None = None, group_by: str | None = None) -> Pictures:
    """Open the pictures to evaluate on: the val split of data that has one.

    Of a folder without, what training with `seed` held out; with None, for a folder nothing was trained on, all of it.

    Raises:
        DataError: as `open_splits`.
    """
    _check_name(data)
    if is_address(data):
        return _shards(RemoteFolder(parse_address(data)), "val")
    root = Path(data)
    if is_labels(data):
        splits = read_labels(root).splits
        parts = (*(("val", "test") if seed is None or "train" not in splits else ("val",)), UNDIVIDED)
        chosen = next((part for part in parts if part in splits), None)
        if chosen is not None and (chosen != UNDIVIDED or seed is None):
            return splits[chosen]
    elif data != "digits" and root.is_dir() and not is_shards(root):
        has_train = (root / "train").is_dir()
        # Nobody who trained on a train/ without a val/ was validated on its test/: a seed asks for what was held out.
        folders = (*VAL_NAMES, TEST_NAME) if seed is None or not has_train else VAL_NAMES
        named = next((root / name for name in folders if (root / name).is_dir()), None)
        if named and not (has_train and named.name in VAL_NAMES):
            return read_folder(named, least_classes=1)
        if seed is None and not has_train:
            return read_folder(root, least_classes=1)
    return open_splits(data, seed=seed or 0, group_by=group_by)[1]


def has_split(data: str) -> bool:
    """Whether pictures come with what is to be evaluated on, so that nothing has to be held out of a folder."""
    root = Path(data)
    if is_labels(data):
        named = splits_of(root)
        return "val" in named or ("test" in named and "train" not in named)
    if data == "digits" or is_address(data) or not root.is_dir() or is_shards(root):
        return True
    parts = VAL_NAMES if (root / "train").is_dir() else (*VAL_NAMES, TEST_NAME)
    return any((root / name).is_dir() for name in parts)


def is_held_out(data: str) -> bool:
    """Whether what is validated on is held out of `data`, which comes without it."""
    root = Path(data)
    return not has_val(root) if root.suffix == SUFFIX and root.is_file() else not has_split(data)


def was_recorded(data: str, recorded: str | None) -> bool:
    """Whether `data` names the pictures that were recorded at training, however the path or address is written."""
    if recorded is None or is_address(data) != is_address(recorded):
        return False
    if is_address(data):
        return parse_address(data) == parse_address(recorded)
    return data == recorded or (data != "digits" and Path(data).resolve() == Path(recorded).resolve())


def _arrays(path: Path) -> list[Pictures]:
    """The pictures of train and, where there are any, of val."""
    arrays = read_arrays(path)
    return [
        Pictures(str(path), arrays.classes, list(pictures), labels, arrays.flip_keeps_class)
        for pictures, labels in (arrays.splits[split] for split in ("train", "val") if split in arrays.splits)
    ]


def _shards(root: ShardFolder, split: Split) -> Pictures:
    classes, sources, labels = open_split(root, split)
    return Pictures(str(root), classes, sources, labels)
