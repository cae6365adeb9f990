"""Owns folders of pictures: a folder for each class, what in it is a picture, and what is left out and why."""

from __future__ import annotations

import os
import stat
import unicodedata
from collections import Counter
from collections.abc import Iterator, Sequence
from operator import itemgetter
from pathlib import Path

import numpy as np

from zoo.data.decode import picture_suffixes, read_suffixes
from zoo.data.fingerprint import name_below
from zoo.data.hold_out import choose_held_out, groups_of, only_on_one_side, rarest_label
from zoo.data.pictures import Pictures
from zoo.errors import DataError
from zoo.visible import visible

# What systems and programs leave beside pictures, in small letters; names with a dot before them are theirs too.
SYSTEM_NAMES = frozenset(
    ("__macosx", "@eadir", "#recycle", "$recycle.bin", "system volume information", "lost+found", "thumbs.db")
)


def hold_out(everything: Pictures, data: str, seed: int, group_by: str | None = None) -> tuple[Pictures, Pictures]:
    """Split pictures that come without a split; `group_by` as in `choose_held_out`.

    Raises:
        DataError: too few pictures, or as `choose_held_out`.
    """
    names = [name_in_class(everything, index) for index in range(len(everything))]
    strata, classes = everything.labels, everything.classes
    if everything.targets is not None:
        strata, classes = rarest_label(everything.targets), ("",) * (len(classes) + 1)
    held_out = choose_held_out(names, strata, classes, seed=seed, group_by=group_by)
    train, val = everything.at(np.flatnonzero(~held_out)), everything.at(np.flatnonzero(held_out))
    if not len(val) or not len(train):
        groups = 0 if group_by is None else len(set(groups_of(names, strata, classes, group_by)))
        if 0 < groups < len(everything):
            raise DataError(
                f"{data} cannot be divided: --group-by {group_by} makes {groups} group{'s' * (groups > 1)} of its "
                f"{len(everything)} pictures, and no group may be held out without a class losing all.",
                "Leave --group-by out, or choose a smaller one.",
            )
        raise DataError(
            f"{data} has {len(everything)} pictures, too few to hold a fifth out.",
            "Add pictures, or make train/ and val/ folders.",
        )
    return train, val


def classes_on_one_side(train: Pictures, val: Pictures) -> tuple[str, ...]:
    """What to say of classes that are in one of two splits only, or in none of them, a line each."""
    there, held = train.class_counts(), val.class_counts()
    unseen = [name for name, count in zip(train.classes, there, strict=True) if not count]
    lonely = [name for name in only_on_one_side(there, held, train.classes) if name not in unseen]
    said = (
        (unseen, "no picture to train on: what the run says of it is chance."),
        (lonely, "no picture to validate on: how well it is told from others is not known."),
    )
    return tuple(f"{_named_classes(names)} {has}" for names, has in said if names)


def _named_classes(names: Sequence[str]) -> str:
    """“Class x has”, or “Each of the classes x, y and 3 more has”."""
    if len(names) == 1:
        return f"Class {names[0]} has"
    return f"Each of the classes {', '.join(names[:5])}{f' and {len(names) - 5} more' if len(names) > 5 else ''} has"


def read_folder(root: Path, *, least_classes: int = 2) -> Pictures:
    """All pictures of a folder with one sub-folder per class.

    Links to folders are followed, each folder once. What is no picture is left out and told in `Pictures.left_out`.

    Args:
        least_classes: a classifier is trained on two at least, and may be looked at on one.

    Raises:
        DataError: a folder that cannot be read, no pictures, too few classes, or two whose names look alike.
    """
    left_out: Counter[str] = Counter()
    entries = sorted(path for path in root.iterdir() if not _is_system(path.name, left_out))
    folders = [path for path in entries if path.is_dir()]
    loose = sum(path.suffix.lower() in picture_suffixes() for path in entries if path.is_file())
    found = {visible(folder.name): picture_files(folder, left_out) for folder in folders}
    if len(found) < len(folders):
        shown = Counter(visible(folder.name) for folder in folders).most_common(1)[0][0]
        raise DataError(f"{root} has two folders that are shown as {shown!r}.", "Give them names that differ.")
    classes = tuple(name for name, files in found.items() if files)
    tar = None if classes else next(root.rglob("*.tar"), None)
    if tar:
        raise DataError(
            f"{root} has no pictures in sub-folders, but tar files such as {tar.name}.",
            "If they are WebDataset's shards: `zoo data index` on their folder makes them readable.",
        )
    if len(classes) < least_classes:
        raise _too_few_classes(root, classes, loose)
    check_unicode(classes, str(root))
    files = [file for name in classes for file in found[name]]
    labels = np.repeat(np.arange(len(classes)), [len(found[name]) for name in classes]).astype(np.int64)
    left_out |= {"pictures beside the folders of classes": loose} if loose else {}
    said = [f"{count} {what}" for what, count in left_out.items()]
    said += [f"{name}/, which has no pictures: it is no class" for name, files in found.items() if not files]
    sizes = np.array([size for _, size in files], np.int64)
    return Pictures(str(root), classes, [path for path, _ in files], labels, left_out=tuple(said), sizes=sizes)


def _too_few_classes(root: Path, classes: tuple[str, ...], loose: int) -> DataError:
    """Describe a folder with no class or one; often it is one too deep, or one too high."""
    if classes:
        deeper = any(path.is_dir() for path in (root / classes[0]).iterdir())
        high = f" Are the classes the folders in {root / classes[0]}? Then pass that one." if deeper else ""
        return DataError(
            f"{root} has one class only ({classes[0]}).", f"A classifier needs pictures of at least two.{high}"
        )
    if loose:
        return DataError(
            f"{root} has {loose} picture{'s' if loose > 1 else ''}, but none in a sub-folder: which class are they?",
            f"Expected {root}/CLASS/PICTURE. Is {root.name} itself one class? Then pass the folder it is in.",
        )
    common = " ".join(suffix for suffix in read_suffixes() if suffix in (".jpg", ".png", ".webp", ".tif", ".heic"))
    return DataError(
        f"{root} has no pictures in sub-folders.", f"Expected {root}/CLASS/PICTURE, PICTURE ending in {common} …"
    )


def check_unicode(names: tuple[str, ...], where: str) -> None:
    """Refuse names that differ only in how Unicode writes them, such as é as one sign or as two.

    Raises:
        DataError: names them.
    """
    seen: dict[str, str] = {}
    for name in names:
        twin = seen.setdefault(unicodedata.normalize("NFC", name), name)
        if twin != name:
            raise DataError(
                f"{where}: two classes are called {name!r}, which Unicode writes in two ways ({twin!a} and {name!a}).",
                "One system made one, another the other: give both one name.",
            )


def _is_system(name: str, left_out: Counter[str]) -> bool:
    """Whether a file or folder is a system's or a program's own; if so, count it."""
    system = name.startswith(".") or name.lower() in SYSTEM_NAMES
    if system:
        left_out["hidden or system files and folders"] += 1
    return system


def picture_files(folder: Path, left_out: Counter[str]) -> list[tuple[Path, int]]:
    """The pictures of a folder and its sub-folders, sorted, each with its size in bytes.

    What is no picture is counted in `left_out`.

    Raises:
        DataError: a folder that cannot be read.
    """
    known = picture_suffixes()
    pictures = []
    real = folder.resolve()
    for path, size in _walk(folder, left_out, {real, *real.parents}):  # a link upwards leads to the other classes
        if path.suffix.lower() in known and size is not None:
            pictures.append((path, size))
        else:
            suffix = visible(path.suffix.lower()) or "other"
            left_out[f"{suffix} files, which are no pictures" if path.exists() else "links that lead nowhere"] += 1
    return sorted(pictures, key=itemgetter(0))


def _walk(folder: Path, left_out: Counter[str], seen: set[Path]) -> Iterator[tuple[Path, int | None]]:
    """What is no folder under a folder, with its size if it is a file; links are followed.

    `seen` are the folders that have been looked into.
    """
    try:
        entries = sorted(os.scandir(folder), key=lambda entry: entry.name)
    except OSError as error:
        # Passed over, a class would be missing, and nobody told.
        raise DataError(
            f"{visible(str(folder))} cannot be read: {error.strerror}.", "Check who may read it."
        ) from error
    for entry in entries:
        path = folder / entry.name
        if _is_system(entry.name, left_out):
            continue
        if not entry.is_dir():
            yield path, _size_of(entry)
        elif (real := path.resolve()) in seen:
            left_out["links to folders that are read already"] += 1
        else:
            seen.add(real)
            yield from _walk(path, left_out, seen)


def _size_of(entry: os.DirEntry[str]) -> int | None:
    """A file's bytes; None of a pipe, a device, or a link that leads nowhere."""
    try:
        status = entry.stat()
    except FileNotFoundError:
        return None
    return status.st_size if stat.S_ISREG(status.st_mode) else None


def name_in_class(pictures: Pictures, index: int) -> str:
    """A picture's path below its class's folder, or its file of labels; of a picture that is no file, its number."""
    source = pictures.sources[index]
    if not isinstance(source, Path):
        return str(index)
    if pictures.root is not None:
        return name_below(pictures, index)
    return source.relative_to(pictures.name).as_posix().partition("/")[2]
