"""Owns how samples are found in WebDataset's tar files: a picture and its class each. It reads no picture.

The rules are WebDataset's own (github.com/webdataset/webdataset, `tariterators.py`): neighbouring members with the same
key are a sample. A key ends at the first dot of a file's base name; what follows is the field.
"""

from __future__ import annotations

import re
import tarfile
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import groupby
from operator import itemgetter
from pathlib import Path

from zoo.data.decode import picture_suffixes
from zoo.errors import DataError

# As in a folder: a picture of a type that is not read counts as broken, and is named, when it is loaded.
PICTURE_FIELDS = frozenset(suffix[1:] for suffix in picture_suffixes())
CLASS_FIELDS = frozenset({"cls"})
# An index holds labels up to 2**32 - 1, which has 10 digits; white space may stand around them.
_LABEL_BYTES = 16
_REST_BYTES = 1_000_000
_NAME = re.compile(r"((?:.*/|)[^./]+)[.]([^/]*)")
_META = re.compile(r"__[^/]*__($|/)")
_Member = tuple[str, str, tarfile.TarInfo]


@dataclass(frozen=True)
class Sample:
    """A picture in a tar file: its key, where its bytes begin, how many they are, and its class."""

    key: str
    offset: int
    size: int
    label: int


def split_name(name: str) -> tuple[str, str] | None:
    """Key and field of a member: `a.b/c.d.JPG` is `a.b/c` and `d.jpg`. None for hidden files and `__meta__`."""
    found = _NAME.fullmatch(name)
    return None if found is None or _META.match(name) else (found[1], found[2].lower())


def walk_samples(path: Path) -> Iterator[Sample]:
    """Yield the samples of a tar file in their order; those with neither picture nor class are skipped.

    Raises:
        DataError: not a tar file, cut off, several files joined, or a sample without exactly one picture and class.
    """
    try:
        with tarfile.open(path, "r:") as tar:
            for key, group in groupby(_members(tar), key=itemgetter(0)):
                sample = _read_sample(tar, path, key, list(group))
                if sample:
                    yield sample
    except (tarfile.TarError, OSError) as error:
        raise DataError(
            f"{path} is not a shard: {error}.", "Expected an uncompressed tar file of KEY.jpg and KEY.cls."
        ) from error


def _members(tar: tarfile.TarFile) -> Iterator[_Member]:
    for member in iter(tar.next, None):
        tar.members.clear()  # type: ignore[attr-defined] # else every header of a large file stays in memory
        named = split_name(member.name)
        if named and member.isreg():
            yield *named, member
    _check_end(Path(str(tar.name)), tar.offset)


def _check_end(path: Path, end: int) -> None:
    """Refuse a tar file whose last member is not followed by zeros, and by nothing else.

    Two blocks of zeros end a tar file (POSIX, pax, ustar); tarfile stops at a damaged header in the same way. GNU tar
    and WebDataset stop at the zeros too, and so would train on the first of several files that were joined by `cat`.
    """
    with path.open("rb") as file:
        file.seek(end)
        if file.read(tarfile.BLOCKSIZE) != bytes(tarfile.BLOCKSIZE):
            raise tarfile.ReadError(f"cut off or damaged at byte {end}")
        while rest := file.read(_REST_BYTES):  # usually less than 10 KiB, to which tar pads
            if rest.count(0) < len(rest):
                raise DataError(
                    f"{path} goes on behind its end mark at byte {end:,}, where tar and WebDataset stop reading.",
                    "Tar files that were joined by cat? Keep them apart, or join them one by one: "
                    "`tar --concatenate -f ONE.tar NEXT.tar`.",
                )


def _read_sample(tar: tarfile.TarFile, path: Path, key: str, members: list[_Member]) -> Sample | None:
    fields = {field: member for _, field, member in members}
    if len(fields) < len(members):
        raise _unusable(path, key, fields, "a file twice")
    pictures, classes = _named(fields, PICTURE_FIELDS), _named(fields, CLASS_FIELDS)
    if not pictures and not classes:
        return None
    for found, what in ((pictures, "pictures"), (classes, "classes")):
        if len(found) != 1:
            raise _unusable(path, key, fields, f"{len(found)} {what}")
    handle = tar.extractfile(classes[0])
    text = handle.read(_LABEL_BYTES + 1) if handle else b""
    # A longer text is refused, not cut: the number could be in the digits that are left out.
    is_whole, text = len(text) <= _LABEL_BYTES, text.strip()
    if not is_whole or not text.isdigit() or int(text) >= 2**32:
        raise DataError(
            f"{path}: the class of {key} is {text.decode(errors='replace')!r}, not a whole number from 0.",
            "KEY.cls holds the number of the class as text.",
        )
    return Sample(key, pictures[0].offset_data, pictures[0].size, int(text))


def _named(fields: dict[str, tarfile.TarInfo], wanted: frozenset[str]) -> list[tarfile.TarInfo]:
    """The members of a wanted field; else those whose field ends in one (`c.jpg`), which WebDataset decodes alike."""
    exact = [member for field, member in fields.items() if field in wanted]
    return exact or [member for field, member in fields.items() if field.rpartition(".")[2] in wanted]


def _unusable(path: Path, key: str, fields: dict[str, tarfile.TarInfo], found: str) -> DataError:
    return DataError(
        f"{path}: the sample {key} has {found}; its files are {', '.join(sorted(fields))}.",
        "KEY.jpg and KEY.cls must stand next to each other; a KEY ends at the first dot of a file's name.",
    )
