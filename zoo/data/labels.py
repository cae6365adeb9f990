"""Owns labels from a file: CSV, JSON lines or Parquet, a picture a row, of one class or of several; it splits nothing.

    path,label,split          path,labels                {"path": "1.jpg", "labels": ["cat", "dog"]}
    1.jpg,cat,train           1.jpg,cat;dog
    2.jpg,dog,val             2.jpg,

Paths are relative to the file's own folder. Absolute ones and those that leave the folder are read too: the file is
its user's own, and nothing but pictures is read through it.
"""

from __future__ import annotations

import codecs
import csv
import io
import json
import os
import stat
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from zoo.data.folder import check_unicode
from zoo.data.pictures import TEST_NAME, VAL_NAMES, Pictures
from zoo.errors import DataError, MissingCapabilityError
from zoo.visible import visible
from zoo.wording import joined

SEPARATOR = ";"  # between the classes of a cell
# The split of a file that has no column for it.
UNDIVIDED = ""
SPLITS = {"train": "train", **dict.fromkeys(VAL_NAMES, "val"), TEST_NAME: "test"}
_COLUMNS = "Its columns are path, label (or labels, where a picture may have several or none) and, if you like, split."


class Line(NamedTuple):
    """One picture as the file has it: where in the file, its path, its classes, its split.

    `several` says that the file itself declares that a picture may have several classes, or none.
    """

    where: str
    path: str
    names: tuple[str, ...]
    split: str
    several: bool


@dataclass(frozen=True)
class Labelled:
    """The pictures of a file by split: "train", "val" and "test" as far as they are there, or all as `UNDIVIDED`."""

    splits: Mapping[str, Pictures]


def is_label_file(path: Path) -> bool:
    """Whether a name is that of a file of labels."""
    return path.suffix.lower() in _READERS


def read_labels(path: Path) -> Labelled:
    """Read a file of labels. Its pictures have `targets` if one of them has several classes, or the file says so.

    A picture that is not there is left out and told in `Pictures.left_out`.

    Raises:
        DataError: the file cannot be read, or a line of it; names the line. Or it has one class only, or no picture
            that is there.
        MissingCapabilityError: Parquet without pyarrow.
    """
    lines, repeated = _each_once(path)
    several = any(line.several or len(line.names) > 1 for line in lines)
    for line in lines:
        if not line.names and not several:
            raise DataError(
                f"{_at(path, line.where)}: {visible(line.path)} has no label.",
                "Name its class. If pictures may have several or none, call the column labels.",
            )
    classes = _classes(path, lines)
    there, sizes, missing = _find_files(path, lines)
    said = [f"{len(missing)} of the file's pictures, which are not there, such as {missing[0]}"] if missing else []
    said += [f"{repeated} of the file's lines, which repeat another"] if repeated else []
    splits = {}
    for split in dict.fromkeys(line.split for line in lines):
        chosen = [place for place, line in enumerate(there) if line.split == split]
        own = [there[place] for place in chosen]
        if not own:
            raise DataError(f"{path}: not one picture of the split {split} is there.", f"Such as {missing[0]}.")
        splits[split] = Pictures(
            str(path),
            classes,
            [path.parent / line.path for line in own],
            _labels(own, classes, several=several),
            left_out=tuple(said),
            sizes=sizes[chosen],
            targets=_targets(own, classes) if several else None,
            root=str(path.parent),
        )
    return Labelled(splits)


def splits_of(path: Path) -> frozenset[str]:
    """The splits that a file names, without a look at its pictures; `UNDIVIDED` alone where it names none.

    Raises:
        DataError, MissingCapabilityError: as `read_labels`.
    """
    return frozenset(line.split for line in _lines(path))


def _each_once(path: Path) -> tuple[list[Line], int]:
    """The lines of a file, each picture once, and how many repeat another word for word."""
    found: dict[str, Line] = {}
    repeated, folder = 0, path.parent.absolute()  # a relative and an absolute path may be those of one picture
    for line in _lines(path):
        if not line.path:
            raise DataError(f"{_at(path, line.where)} has no path.", _COLUMNS)
        first = found.setdefault(os.path.normpath(folder / line.path), line)
        if first is line:
            continue
        if (set(first.names), first.split) != (set(line.names), line.split):
            raise DataError(
                f"{path}: {visible(line.path)} is {_named(first)} in {first.where} and {_named(line)} in {line.where}.",
                "A picture has one line. Several classes of it stand in one cell, as cat;dog.",
            )
        repeated += 1
    if not found:
        raise DataError(f"{path} names no pictures.", _COLUMNS)
    lines = list(found.values())
    divided = [line for line in lines if line.split != UNDIVIDED]
    if divided and len(divided) < len(lines):
        bare = next(line for line in lines if line.split == UNDIVIDED)
        raise DataError(
            f"{_at(path, bare.where)} names no split, but {divided[0].where} does.", "Name one in every line, or none."
        )
    return lines, repeated


def _named(line: Line) -> str:
    return f"{SEPARATOR.join(map(visible, line.names)) or 'without label'}{line.split and f' ({line.split})'}"


def _classes(path: Path, lines: Sequence[Line]) -> tuple[str, ...]:
    raw = sorted({name for line in lines for name in line.names})
    classes = tuple(map(visible, raw))
    check_unicode(classes, str(path))
    if len(classes) < 2:
        only = f"one class only ({classes[0]})" if classes else "no class"
        raise DataError(
            f"{path} has {only}.",
            "A classifier needs at least two. For yes or no, give the pictures without it a class of their own.",
        )
    return classes


def _labels(lines: Sequence[Line], classes: Sequence[str], *, several: bool) -> NDArray[np.int64]:
    """The class of each picture; −1, which no code can take for a class, where `targets` has them."""
    if several:
        return np.full(len(lines), -1, np.int64)
    places = {name: place for place, name in enumerate(classes)}
    return np.array([places[visible(line.names[0])] for line in lines], np.int64)


def _targets(lines: Sequence[Line], classes: Sequence[str]) -> NDArray[np.bool_]:
    places = {name: place for place, name in enumerate(classes)}
    targets = np.zeros((len(lines), len(classes)), np.bool_)
    for row, line in enumerate(lines):
        targets[row, [places[visible(name)] for name in line.names]] = True
    return targets


def _find_files(path: Path, lines: Sequence[Line]) -> tuple[list[Line], NDArray[np.int64], list[str]]:
    """The lines whose pictures are there, their sizes in bytes, and in words what is not there."""
    there: list[Line] = []
    sizes: list[int] = []
    missing: list[str] = []
    for line in lines:
        try:
            status = (path.parent / line.path).stat()
            is_file = stat.S_ISREG(status.st_mode)
        except (OSError, ValueError):  # the latter: a name with a zero byte
            is_file = False
        if is_file:
            there.append(line)
            sizes.append(status.st_size)
        else:
            missing.append(f"{visible(line.path)} ({line.where})")
    if not there:
        backslashes = "\\" in lines[0].path and os.sep == "/"
        hint = " Write / instead of \\ in them." if backslashes else ""
        hint += " The spaces about them are part of their names." if lines[0].path != lines[0].path.strip() else ""
        raise DataError(
            f"{path}: none of its {len(lines)} pictures is there, such as {missing[0]}.",
            f"Paths are relative to {path.parent.resolve()}.{hint}",
        )
    return there, np.array(sizes, np.int64), missing


def _lines(path: Path) -> Iterator[Line]:
    yield from _READERS[path.suffix.lower()](path)


def _read_csv(path: Path) -> Iterator[Line]:
    text = _text(path)
    delimiter, skipped = _delimiter(text)
    reader = csv.reader(io.StringIO(text, newline=""), delimiter=delimiter, strict=True)
    try:
        for _ in range(skipped):
            next(reader)
        heads = next(reader, [])
        columns = _columns(path, heads)
        for row in reader:
            if not any(row):
                continue
            where = f"line {reader.line_num}"
            if len(row) != len(heads):
                raise DataError(
                    f"{_at(path, where)} has {len(row)} cells, and the first line {len(heads)}.",
                    f"A cell with {delimiter!r} in it stands in quotation marks.",
                )
            cell = row[columns.label]
            names = tuple(dict.fromkeys(name.strip() for name in cell.split(SEPARATOR) if name.strip()))
            split = _split(path, where, row[columns.split]) if columns.split is not None else UNDIVIDED
            yield Line(where, row[columns.path], names, split, columns.several)
    except csv.Error as error:
        raise DataError(f"{_at(path, f'line {reader.line_num}')} is not readable: {error}.", _COLUMNS) from error


def _delimiter(text: str) -> tuple[str, int]:
    """What stands between the cells, and how many lines come before the columns' names.

    Where commas are decimal points, spreadsheets write semicolons, and some say so in a first line “sep=;”.
    """
    first = text.partition("\n")[0].strip()
    if first.lower().startswith("sep=") and len(first) == 5:
        return first[4], 1
    return max(",;\t", key=first.count), 0


def _read_json_lines(path: Path) -> Iterator[Line]:
    for number, text in enumerate(_text(path).split("\n"), start=1):
        if not text.strip():
            continue
        where = f"line {number}"
        try:
            fields = json.loads(text)
        except ValueError as error:
            raise DataError(f"{_at(path, where)} is no JSON: {error}.", "Each line is an object.") from error
        if not isinstance(fields, dict):
            raise DataError(f"{_at(path, where)} is no object.", 'Expected {"path": …, "label": …}.')
        columns = _columns(path, list(fields), where)
        yield _of_values(path, where, columns, list(fields.values()))


def _read_parquet(path: Path) -> Iterator[Line]:
    try:
        import pyarrow
        from pyarrow import parquet
    except ImportError as error:
        raise MissingCapabilityError(
            f"{path}: reading Parquet needs pyarrow, which is not installed.",
            "pip install 'zoo[parquet]'; or write the table as CSV.",
        ) from error
    try:
        with parquet.ParquetFile(path) as file:
            columns = _columns(path, file.schema_arrow.names)
            wanted = [name for place, name in enumerate(file.schema_arrow.names) if place in columns.places]
            own = _columns(path, wanted)
            number = 0
            for batch in file.iter_batches(columns=wanted):
                for values in zip(*(batch.column(name).to_pylist() for name in wanted), strict=True):
                    number += 1
                    yield _of_values(path, f"row {number}", own, values)
    except FileNotFoundError as error:
        raise DataError(f"There is no file {path}.", _COLUMNS) from error
    except (pyarrow.ArrowException, OSError) as error:
        raise DataError(f"{path} is not readable: {str(error).rstrip('.')}.", _COLUMNS) from error


_READERS = {".csv": _read_csv, ".tsv": _read_csv, ".jsonl": _read_json_lines, ".parquet": _read_parquet}


class _Columns(NamedTuple):
    """Where the columns are; `several` if the one of labels is called so."""

    path: int
    label: int
    split: int | None
    several: bool

    @property
    def places(self) -> tuple[int | None, ...]:
        """All of them."""
        return self.path, self.label, self.split


def _columns(path: Path, heads: Sequence[str], where: str = "") -> _Columns:
    names = [head.strip().lower() for head in heads]
    label = [name for name in ("label", "labels") if name in names]
    if "path" not in names or len(label) != 1 or any(names.count(name) > 1 for name in ("path", "split", *label)):
        has = ", ".join(visible(head) for head in heads) or "nothing"
        first = "" if where else " The first line of a CSV file names its columns." if path.suffix != ".parquet" else ""
        raise DataError(f"{_at(path, where)} has {has}.", f"{_COLUMNS}{first}")
    split = names.index("split") if "split" in names else None
    return _Columns(names.index("path"), names.index(label[0]), split, label == ["labels"])


def _of_values(path: Path, where: str, columns: _Columns, values: Sequence[Any]) -> Line:
    """A line of typed values, of JSON or Parquet.

    Raises:
        DataError: a value is of another type.
    """
    name, label = values[columns.path], values[columns.label]
    split = values[columns.split] if columns.split is not None else None
    listed = label if isinstance(label, list) else [] if label is None or label == "" else [label]
    if not isinstance(name, str) or not all(_is_name(each) for each in listed):
        raise DataError(f"{_at(path, where)}: a path is a text, and a label a text, a number or a list of them.")
    names = tuple(dict.fromkeys(str(each).strip() for each in listed if str(each).strip()))
    chosen = UNDIVIDED if split is None else _split(path, where, str(split))
    return Line(where, name, names, chosen, columns.several or isinstance(label, list))


def _is_name(value: Any) -> bool:
    return isinstance(value, str | int) and not isinstance(value, bool)


def _split(path: Path, where: str, text: str) -> str:
    name = text.strip().lower()
    if name and name not in SPLITS:
        raise DataError(
            f"{_at(path, where)} has the split {visible(text)!r}.", f"There are {joined(SPLITS)}; or leave all empty."
        )
    return SPLITS[name] if name else UNDIVIDED


def _text(path: Path) -> str:
    """A file's text, without the mark that some programs put at its beginning.

    Raises:
        DataError: it cannot be read, or is not UTF-8; says from which line on.
    """
    try:
        data = path.read_bytes()
    except FileNotFoundError as error:
        raise DataError(f"There is no file {path}.", _COLUMNS) from error
    except OSError as error:
        raise DataError(f"{path} cannot be read: {error.strerror}.", "Check who may read it.") from error
    data = data.removeprefix(codecs.BOM_UTF8)
    try:
        return data.decode("utf-8")
    except UnicodeDecodeError as error:
        number = data.count(b"\n", 0, error.start) + 1
        raise DataError(
            f"{_at(path, f'line {number}')} is not UTF-8.",
            "Save the file as UTF-8; in spreadsheets that is “CSV UTF-8”.",
        ) from error


def _at(path: Path, where: str) -> str:
    return f"{path}, {where}" if where else str(path)
