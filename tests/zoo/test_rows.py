"""Ranges stand beside their fields: checked when a row is made, read from JSON and text, written, put into words."""

from __future__ import annotations

import importlib
import json
import math
import pkgutil
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from types import UnionType
from typing import Annotated, Any, Literal, Union, get_args, get_origin

import pytest
from hypothesis import given
from hypothesis import strategies as st

from zoo.errors import RowError
from zoo.rows import (
    Ascending,
    Count,
    Matching,
    Positive,
    Row,
    Share,
    Some,
    Text,
    Within,
    expects,
    field_types,
    parse,
)


@dataclass(frozen=True, kw_only=True)
class Wheel(Row):
    spokes: Annotated[int, Within(3, 64)]
    tread: Literal["slick", "knobby"] = "slick"


@dataclass(frozen=True, kw_only=True)
class Bicycle(Row):
    written_too = ("num_wheels",)

    name: Text
    wheels: Annotated[tuple[Wheel, ...], Some()]
    gears: Count | None = None
    slope: Annotated[tuple[float, float], Within(above=-1, high=1), Ascending()] = (0.0, 1.0)
    share: Share = 0.5
    bell: bool = True
    code: Annotated[str, Matching(r"[a-z]+", "small letters")] = "abc"
    manual: Path | None = None

    @property
    def num_wheels(self) -> int:
        return len(self.wheels)


GOOD = {"name": "tandem", "wheels": [{"spokes": 36}, {"spokes": 32, "tread": "knobby"}], "slope": [0, 1]}


def test_a_row_survives_json() -> None:
    row = Bicycle.from_dict(GOOD | {"manual": "a/b.pdf"})
    assert row.wheels[1] == Wheel(spokes=32, tread="knobby")
    assert (row.slope, type(row.slope[0]), row.manual) == ((0.0, 1.0), float, Path("a/b.pdf"))
    written = json.loads(json.dumps(row.to_dict(), allow_nan=False))
    assert written["num_wheels"] == 2
    assert Bicycle.from_dict(written) == row


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"wheels": []}, "wheels is empty; expected at least one of tables"),
        ({"wheels": [{"spokes": 2}]}, "wheels[0].spokes is 2; expected a whole number from 3 to 64"),
        ({"wheels": [{"spokes": 4}, {"spoke": 4}]}, "wheels[1].spoke is unknown. Did you mean spokes?"),
        ({"wheels": [{"tread": "slick"}]}, "wheels[0].spokes is missing; it is a whole number from 3 to 64"),
        ({"wheels": [{"spokes": 4, "tread": "bald"}]}, "wheels[0].tread is 'bald'; expected slick or knobby"),
        ({"name": "  "}, "name is '  '; expected some text"),
        ({"gears": 0}, "gears is 0; expected a whole number of at least 1"),
        ({"gears": True}, "gears is true; expected a whole number"),
        ({"gears": 1.5}, "gears is 1.5; expected a whole number"),
        ({"slope": [0.5, 0.1]}, "expected two numbers above -1 to 1, the smaller one first"),
        ({"slope": [0.5]}, "slope is 0.5; expected two numbers"),
        ({"slope": [-1, 0]}, "slope is -1, 0; expected two numbers above -1"),
        ({"share": math.nan}, "share is nan; expected a number from 0 to 1"),
        ({"share": math.inf}, "share is inf"),
        ({"share": None}, "share is none; expected a number"),
        ({"bell": 1}, "bell is 1; expected true or false"),
        ({"code": "ABC"}, "code is 'ABC'; expected small letters"),
    ],
)
def test_a_wrong_value_says_where_what_and_what_was_expected(changes: dict[str, Any], said: str) -> None:
    with pytest.raises(RowError) as failure:
        Bicycle.from_dict(GOOD | changes)
    assert said in failure.value.problem


def test_a_row_cannot_be_made_wrong_in_python_either() -> None:
    with pytest.raises(RowError, match="spokes is nan"):
        Wheel(spokes=math.nan)  # type: ignore[arg-type]
    with pytest.raises(RowError, match="spokes is 65"):
        Wheel(spokes=65)


@pytest.mark.parametrize(
    ("kind", "text", "value"),
    [
        (Count, "3", 3),
        (Positive | None, "none", None),
        (Positive | None, "2", 2.0),
        (bool, "False", False),
        (Literal["adamw", "sgd"], "SGD", "sgd"),
        (tuple[float, float], "(0.1, 1)", (0.1, 1.0)),
        (str | tuple[Positive, ...] | None, "balanced", "balanced"),
        (str | tuple[Positive, ...] | None, "1,2.5", (1.0, 2.5)),
        (Path, "a b", Path("a b")),
    ],
)
def test_texts_are_read_by_the_type(kind: Any, text: str, value: Any) -> None:
    read = parse(kind, text, "--set x")
    assert read == value
    assert type(read) is type(value)


@pytest.mark.parametrize("text", ["nan", "inf", "-inf", "1e999", "", "0", "-1", "1,2", "one"])
def test_a_text_that_is_no_such_number_is_refused(text: str) -> None:
    with pytest.raises(RowError, match=r"--set x=.*: expected a number above 0\.$"):
        parse(Positive, text, "--set x")


@given(st.floats(allow_nan=True, allow_infinity=True))
def test_no_number_but_a_finite_one_within_the_range_gets_in(value: float) -> None:
    kept = 0 <= value <= 1
    try:
        assert Bicycle.from_dict(GOOD | {"share": value}).share == value
    except RowError:
        assert not kept
    else:
        assert kept


@pytest.mark.parametrize(
    ("kind", "words"),
    [
        (Annotated[int, Within(1, 12)], "a whole number from 1 to 12"),
        (Annotated[int, Within(choices=(1, 2))], "one of 1, 2"),
        (Annotated[float, Within(above=0)], "a number above 0"),
        (Annotated[float, Within(0, below=1)], "a number from 0 below 1"),
        (Annotated[float, Within(high=3)], "a number to 3"),
        (Annotated[tuple[float, float, float], Within(0, 255)], "three numbers from 0 to 255"),
        (tuple[Positive, ...], "numbers above 0 with commas between"),
        (Positive | None, "a number above 0 or none"),
        (tuple[Wheel, ...], "tables with commas between"),
    ],
)
def test_ranges_in_words(kind: Any, words: str) -> None:
    assert expects(kind) == words


def all_rows() -> Iterator[type[Row]]:
    """Every row class of the project."""
    for package in ("zoo", "train", "export", "serve"):
        for module in pkgutil.walk_packages(importlib.import_module(package).__path__, f"{package}."):
            if not module.name.endswith("__main__"):
                importlib.import_module(module.name)
    waiting = [Row]
    while waiting:
        for row in waiting.pop().__subclasses__():
            waiting.append(row)
            if row.__module__.split(".")[0] in ("zoo", "train", "export", "serve"):
                yield row


def numbers_without_a_range(kind: Any, ranged: bool = False) -> bool:
    """Whether there is an int or a float in a type that no range speaks of."""
    if get_origin(kind) is Annotated:
        base, *marks = get_args(kind)
        return numbers_without_a_range(base, ranged or any(isinstance(mark, Within) for mark in marks))
    if get_origin(kind) in (Union, UnionType, tuple):
        return any(numbers_without_a_range(part, ranged) for part in get_args(kind) if part is not Ellipsis)
    return kind in (int, float) and not ranged


def test_every_number_of_every_row_has_a_range() -> None:
    rows = list(all_rows())
    assert len(rows) > 5
    bare = [
        f"{row.__module__}.{row.__qualname__}.{name}"
        for row in rows
        for name, kind in field_types(row).items()
        if numbers_without_a_range(kind)
    ]
    assert bare == []
