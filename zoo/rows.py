"""Owns what a field may hold, written once in its type: checked, read from JSON and from text, written, put into words.

    class Stage(Row):
        expand_ratio: Annotated[int, Within(1, 12)]
        se_ratio: Share = 0.0

A row that exists is valid: its fields are checked when it is made. What depends on two fields is checked by whoever
owns the row. This file knows no row and opens no file.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import MISSING, dataclass, fields
from difflib import get_close_matches
from itertools import pairwise
from pathlib import Path
from types import NoneType, UnionType
from typing import Annotated, Any, ClassVar, Literal, Self, Union, get_args, get_origin, get_type_hints

from zoo.errors import RowError
from zoo.wording import joined

COUNT_WORDS = {2: "two", 3: "three", 4: "four"}
# The words that are values of a type which has few.
WORDS: dict[Any, dict[str, Any]] = {
    NoneType: {"none": None},
    bool: {"true": True, "false": False, "1": True, "0": False},
}


@dataclass(frozen=True)
class Within:
    """The numbers a field may hold: from `low` to `high`, more than `above`, less than `below`; or one of `choices`.

    Of a tuple it speaks of every member. NaN and infinities are never among them.
    """

    low: float | None = None
    high: float | None = None
    above: float | None = None
    below: float | None = None
    choices: tuple[float, ...] = ()

    def holds(self, value: Any) -> bool:
        """Whether a number, or every one of a tuple, is among them."""
        if isinstance(value, tuple):
            return all(map(self.holds, value))
        return (
            (self.low is None or value >= self.low)
            and (self.high is None or value <= self.high)
            and (self.above is None or value > self.above)
            and (self.below is None or value < self.below)
            and (not self.choices or value in self.choices)
        )

    def phrase(self, noun: str) -> str:
        """“a whole number from 1 to 12”, “two numbers above 0”, “one of 1, 2”."""
        if self.choices:
            return f"one of {', '.join(f'{choice:g}' for choice in self.choices)}"
        is_open = self.high is None and self.below is None
        ends = {
            "of at least" if is_open else "from": self.low,
            "above": self.above,
            "to": self.high,
            "below": self.below,
        }
        return " ".join([noun, *(f"{word} {end:.10g}" for word, end in ends.items() if end is not None)])


@dataclass(frozen=True)
class Ascending:
    """Of a tuple: no number is below the one before it."""

    def holds(self, value: Any) -> bool:
        """Whether they ascend."""
        return all(before <= after for before, after in pairwise(value))

    def phrase(self, noun: str) -> str:
        """“two numbers from 0 to 1, the smaller one first”."""
        return f"{noun}, the smaller one first"


@dataclass(frozen=True)
class Some:
    """Of a tuple or a text: not empty."""

    def holds(self, value: Any) -> bool:
        """Whether something is in it."""
        return bool(value.strip() if isinstance(value, str) else value)

    def phrase(self, noun: str) -> str:
        """“some text”, “at least one table”."""
        return "some text" if noun == "a text" else f"at least one of {noun}"


@dataclass(frozen=True)
class Matching:
    """The texts a field may hold: those that `pattern` matches whole; `expects` says which."""

    pattern: str
    expects: str

    def holds(self, value: Any) -> bool:
        """Whether a text is one of them."""
        return re.fullmatch(self.pattern, value) is not None

    def phrase(self, noun: str) -> str:
        """What was said when it was written."""
        return self.expects


MARKS = (Within, Ascending, Some, Matching)

# Ranges that many fields have.
Share = Annotated[float, Within(0, 1)]
Positive = Annotated[float, Within(above=0)]
NotNegative = Annotated[float, Within(0)]
Count = Annotated[int, Within(1)]
CountOrNone = Annotated[int, Within(0)]
Text = Annotated[str, Some()]


@dataclass(frozen=True, kw_only=True)
class Row:
    """Base of the frozen rows whose fields hold what their types say; see this module's docstring.

    Raises:
        RowError: a value that its field cannot hold.
    """

    # Properties that are written to JSON as well, and passed over where it is read.
    written_too: ClassVar[tuple[str, ...]] = ()

    def __post_init__(self) -> None:
        for name, kind in field_types(type(self)).items():
            # What JSON has another type for is turned into the field's: whole numbers into numbers, lists into tuples.
            object.__setattr__(self, name, read(kind, getattr(self, name), name))

    def to_dict(self) -> dict[str, Any]:
        """Return plain JSON types, which `from_dict` reads back to an equal row."""
        names = (*self.written_too, *field_types(type(self)))
        return {name: plain(getattr(self, name)) for name in names}

    @classmethod
    def from_dict(cls, values: Mapping[str, Any], where: str = "") -> Self:
        """Read what `to_dict` wrote, or a person did.

        Args:
            values: plain JSON or TOML types by field.
            where: what stands before a field's name in errors, such as "stages[1].".

        Raises:
            RowError: a field that is unknown, missing, or cannot hold its value.
        """
        kinds = field_types(cls)
        for name in values:
            if name not in kinds and name not in cls.written_too:
                raise RowError(
                    f"{where}{name} is unknown.{did_you_mean(name, kinds)}", f"There are {', '.join(kinds)}."
                )
        for field in fields(cls):
            if field.name not in values and field.default is MISSING and field.default_factory is MISSING:
                raise RowError(f"{where}{field.name} is missing; it is {expects(kinds[field.name])}.", "Add it.")
        return cls(**{name: read(kinds[name], value, where + name) for name, value in values.items() if name in kinds})


def field_types(row: type[Row]) -> dict[str, Any]:
    """The type of every field of a class of rows, with its range, in the order written."""
    if row not in _FIELD_TYPES:
        hints = get_type_hints(row, include_extras=True)
        _FIELD_TYPES[row] = {field.name: hints[field.name] for field in fields(row)}
    return _FIELD_TYPES[row]


_FIELD_TYPES: dict[type[Row], dict[str, Any]] = {}


def read(kind: Any, value: Any, where: str) -> Any:
    """A value, of plain JSON types or already what it should be, as a field of type `kind` holds it.

    Raises:
        RowError: it cannot be; says `where`, the value, and what was expected.
    """
    try:
        return _take(kind, value, where)
    except RowError:
        raise
    except ValueError as error:
        raise RowError(f"{where} is {_say(value)}; expected {expects(kind)}.", "Change it.") from error


def parse(kind: Any, text: str, where: str) -> Any:
    """A text of a command line or an environment, as a field of type `kind` holds it.

    Members of a tuple have commas between; "none" is None, "true", "false", "1" and "0" are truths.

    Raises:
        RowError: it cannot be; says `where`, the text, and what was expected.
    """
    try:
        return _take(kind, _from_text(kind, text), where)
    except RowError:
        raise
    except ValueError as error:
        raise RowError(f"{where}={text}: expected {expects(kind)}.") from error


def plain(value: Any) -> Any:
    """A value as plain JSON types."""
    if isinstance(value, Row):
        return value.to_dict()
    if isinstance(value, Mapping):
        return {key: plain(member) for key, member in value.items()}
    if isinstance(value, list | tuple):
        return [plain(member) for member in value]
    return str(value) if isinstance(value, Path) else value


def expects(kind: Any) -> str:
    """What a person would call a type: “a whole number from 1 to 12”, “cosine or constant”, “a number or none”."""
    base, marks = _unwrap(kind)
    noun = _noun(base)
    for mark in marks:
        noun = mark.phrase(noun)
    return noun


def did_you_mean(name: str, known: Iterable[str], cutoff: float = 0.6) -> str:
    """“ Did you mean stem_channels?”, or "" where nothing is near."""
    near = get_close_matches(name, list(known), n=1, cutoff=cutoff)
    return f" Did you mean {near[0]}?" if near else ""


def _unwrap(kind: Any) -> tuple[Any, list[Any]]:
    """The type itself, and the marks on it that are ours."""
    if get_origin(kind) is not Annotated:
        return kind, []
    base, *marks = get_args(kind)
    return base, [mark for mark in marks if isinstance(mark, MARKS)]


def _take(kind: Any, value: Any, where: str) -> Any:
    base, marks = _unwrap(kind)
    taken = _take_base(base, value, where)
    if not all(mark.holds(taken) for mark in marks):
        raise ValueError(value)
    return taken


def _take_base(base: Any, value: Any, where: str) -> Any:
    """The value as the type's own.

    Raises:
        ValueError: it is of another type, or no finite number.
    """
    origin = get_origin(base)
    if origin in (Union, UnionType):
        return _take_member(get_args(base), value, where)
    if origin is tuple:
        members = _members(base, value)
        return tuple(
            _take_part(kind, part, f"{where}[{at}]") for at, (kind, part) in enumerate(zip(members, value, strict=True))
        )
    if isinstance(base, type) and issubclass(base, Row) and isinstance(value, Mapping):
        return base.from_dict(value, f"{where}.")
    if base is float and isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value):
        return float(value)
    if base is Path and isinstance(value, str):
        return Path(value)
    if not _is_one(base, origin, value):
        raise ValueError(value)
    return value


def _take_part(kind: Any, value: Any, where: str) -> Any:
    """A member of a tuple; of one that is a tuple itself an error says which and what it should be."""
    return (read if get_origin(_unwrap(kind)[0]) is tuple else _take)(kind, value, where)


def _is_one(base: Any, origin: Any, value: Any) -> bool:
    """Whether a value is of a type as it is."""
    if base is Any:
        return True
    if origin is Literal:
        return any(type(value) is type(choice) and value == choice for choice in get_args(base))
    if base is float or (base is int and isinstance(value, bool)):
        return False  # numbers are taken before, and true is none
    return isinstance(value, origin or base)


def _take_member(kinds: Sequence[Any], value: Any, where: str) -> Any:
    """The value as the first of several types that takes it."""
    kinds = [kind for kind in kinds if (kind is NoneType) == (value is None)]
    if len(kinds) == 1:  # what is wrong inside it is said, not only that it is
        return _take(kinds[0], value, where)
    for kind in kinds:
        try:
            return _take(kind, value, where)
        except ValueError:
            continue
    raise ValueError(value)


def _members(base: Any, value: Any) -> Sequence[Any]:
    """The types of a tuple's members, one for each part of the value."""
    kinds = get_args(base)
    if not isinstance(value, list | tuple):
        raise ValueError(value)
    if kinds[-1] is Ellipsis:
        return kinds[:1] * len(value)
    if len(kinds) != len(value):
        raise ValueError(value)
    return kinds


def _from_text(kind: Any, text: str) -> Any:
    """A text as plain JSON types.

    Raises:
        ValueError: it is none of the type's.
    """
    base, _ = _unwrap(kind)
    origin = get_origin(base)
    if origin in (Union, UnionType):
        return _from_text_of_any(get_args(base), text)
    if origin is tuple:
        parts = [part.strip() for part in text.strip("()[]").split(",")]
        kinds = get_args(base)
        kinds = kinds[:1] * len(parts) if kinds[-1] is Ellipsis else kinds
        return [_from_text(kind, part) for kind, part in zip(kinds, parts, strict=True)]
    words = {str(choice).lower(): choice for choice in get_args(base)} if origin is Literal else WORDS.get(base)
    if words is None:
        return base(text) if base in (int, float) else text
    if text.lower() not in words:
        raise ValueError(text)
    return words[text.lower()]


def _from_text_of_any(kinds: Sequence[Any], text: str) -> Any:
    """As the first type that takes it, texts last: everything is a text."""
    for kind in sorted(kinds, key=lambda kind: _unwrap(kind)[0] is str):
        try:
            return _take(kind, _from_text(kind, text), "")
        except ValueError:
            continue
    raise ValueError(text)


NOUNS = {
    int: "a whole number",
    float: "a number",
    bool: "true or false",
    NoneType: "none",
    str: "a text",
    Path: "a path",
}


def _noun(base: Any) -> str:
    kinds = get_args(base)
    if get_origin(base) in (Union, UnionType):
        return joined((expects(kind) for kind in kinds), "or")
    if get_origin(base) is Literal:
        return joined(map(str, kinds), "or")
    if get_origin(base) is not tuple:
        is_row = isinstance(base, type) and issubclass(base, Row)
        return "a table" if is_row or get_origin(base) is not None else NOUNS.get(base, "a value of its own type")
    inner, marks = _unwrap(kinds[0])
    nouns = {int: "whole numbers", float: "numbers", str: "texts"}
    noun = _noun(inner) if get_origin(inner) is Literal else nouns.get(inner, "tables")
    for mark in marks:
        noun = mark.phrase(noun)
    return f"{noun} with commas between" if kinds[-1] is Ellipsis else f"{COUNT_WORDS[len(kinds)]} {noun}"


def _say(value: Any) -> str:
    """A value in an error: numbers as people write them, texts in quotes, nothing longer than a line."""
    if isinstance(value, list | tuple):
        return ", ".join(map(_say, value)) or "empty"
    if isinstance(value, bool) or value is None:
        return str(value).lower()
    said = f"{value:.10g}" if isinstance(value, int | float) else repr(value)
    return said if len(said) <= 80 else f"{said[:79]}…"
