"""Owns what a kind of result is, and how the kinds are found: every module of serve/bench/kinds has one `KIND`.

It knows none of them by name, and draws nothing.
"""

from __future__ import annotations

import importlib
import pkgutil
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Annotated, Any, Generic, TypeVar, get_type_hints

from rich.table import Table

from zoo.cli import BENCHMARKS
from zoo.errors import RowError, ZooError, look_up
from zoo.model.spec import Variant
from zoo.page.figures import Figures
from zoo.page.markup import Markup
from zoo.results import KindName, Result, Summary
from zoo.rows import Positive, Row, Some, Text, Within

KINDS = "serve.bench.kinds"
Data = TypeVar("Data", bound=Row)
# A network that was measured (its row, or its id), the side of the pictures in pixels, the number of classes.
NetworkAtSize = tuple[Variant | str, int, int]


@dataclass(frozen=True, kw_only=True)
class Measured(Generic[Data]):
    """A result, and its data as the row of its kind."""

    result: Result
    data: Data


@dataclass(frozen=True, kw_only=True)
class Timing(Row):
    """A time that another result of the kind may have too: of what, how it was measured, and the rounds' medians."""

    subject: Text
    setting: Text
    p50_ms: Positive
    round_p50_ms: Annotated[tuple[Positive, ...], Some()]


def nothing(_: Any) -> tuple[()]:
    """What a kind says that has nothing to say."""
    return ()


@dataclass(frozen=True, kw_only=True)
class Kind(Row):
    """A kind of result: how its data is read, and what a page and a terminal show of it; `name` is its file's.

    Kinds are shown in the order of `place`. `read` turns `Result.data` into a row, and all others take what was read:
    `section` and `tables` one result, `headlines` and `glance` all of one device, `across` all of several devices.
    `warnings` are what a reader must know before the figures of one result: that the machine was not quiet.
    `summaries` are the timings whose spread is judged, `timings` those that `zoo bench compare` compares, `networks`
    those a page explains.
    """

    name: KindName
    place: Annotated[int, Within(0)]
    read: Callable[[Mapping[str, Any]], Row]
    section: Callable[[Any], Markup]
    headlines: Callable[[Sequence[Any]], Iterable[str]]
    tables: Callable[[Any], Iterable[Figures | Table]]
    glance: Callable[[Sequence[Any]], Iterable[Markup]] = nothing
    across: Callable[[Sequence[Any]], Iterable[Markup]] = nothing
    warnings: Callable[[Any], Iterable[str]] = nothing
    summaries: Callable[[Any], Iterable[Summary]] = nothing
    timings: Callable[[Any], Iterable[Timing]] = nothing
    networks: Callable[[Any], Iterable[NetworkAtSize]] = nothing

    @property
    def command(self) -> str:
        """What measures anew: a command of the zoo, or a script of that name."""
        command = self.name.replace("_", "-")
        return f"zoo bench {command}" if command in BENCHMARKS else f"python benchmarks/{self.name}.py"


def data_row(kind: Kind) -> type[Row]:
    """The row that a kind's data is read into: the one whose `from_dict` reads it, or what its reader returns."""
    owner = getattr(kind.read, "__self__", None)
    row: type[Row] = owner if isinstance(owner, type) else get_type_hints(kind.read)["return"]
    return row


def find_kinds() -> dict[str, Kind]:
    """Every kind by its name, in the order a page shows them."""
    modules = pkgutil.iter_modules(importlib.import_module(KINDS).__path__)
    kinds = {module.name: importlib.import_module(f"{KINDS}.{module.name}").KIND for module in modules}
    return dict(sorted(kinds.items(), key=lambda one: one[1].place))


def read_data(result: Result) -> tuple[Kind, Measured[Any]]:
    """Find a result's kind, and read its data.

    Raises:
        ZooError: the data lacks what its kind holds. UnknownNameError: there is no such kind.
    """
    kinds = find_kinds()
    kind = look_up(kinds, result.kind, kind="kind of result", hint=f"There are: {', '.join(kinds)}.")
    try:
        return kind, Measured(result=result, data=kind.read(result.data))
    except (KeyError, TypeError, ValueError) as error:
        said = error.problem if isinstance(error, RowError) else f"{type(error).__name__} {error}."
        raise ZooError(
            f"The {kind.name} result {result.name!r} of {result.device} is damaged or of another version: {said}",
            f"Measure again with `{kind.command}`, or take the file away.",
        ) from error
