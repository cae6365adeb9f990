from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

from serve.bench.kind import read_data
from serve.bench.measure.search_rows import CHANCE, SearchData
from serve.bench.report.devices import group_by_device
from serve.bench.report.page import render_page
from tests.serve.bench.measure.made_search import a_table, long_runs, published, rising, searches
from zoo.results import Result, measured_on

TABLE = rising(a_table(lambda candidate: 0.5))
CODES = [row.code for row in TABLE.networks]
TRIALS = 10


def a_result(data: SearchData) -> Result:
    return Result(
        kind="search", name="control-digits", environment=measured_on("CPU"), settings={}, data=data.to_dict()
    )


def replayed(*bests: int) -> SearchData:
    """Chance finds the twelfth of 24 in ten trials, and TPE what is asked for."""
    low = list(range(9))
    return replace(
        TABLE,
        replays=(*searches(CHANCE, *([*low, 12] for _ in bests)), *searches("tpe", *([*low, best] for best in bests))),
    )


def test_a_search_that_wins_eight_of_ten_beats_chance(said_of: Callable[..., list[str]]) -> None:
    said = said_of(a_result(replayed(*[23] * 8, 12, 11)))
    assert said[0].startswith(
        "In a space of 24 networks on digits, 24 of them trained, tpe beats the best of 10 random networks: 8 won, "
        "1 tied, 1 lost of 10 (share won 49 – 94 %), the median reward +91.7 %"
    )


def test_a_search_that_wins_less_does_not(said_of: Callable[..., list[str]]) -> None:
    assert (
        "tpe is more often ahead of than behind the best of 10 random networks: 5 won"
        in said_of(a_result(replayed(*[23] * 5, *[11] * 4)))[0]
    )
    assert "tpe does not beat the best of 10 random networks" in said_of(a_result(replayed(*[11] * 10)))[0]


def test_a_table_alone_says_that_nothing_was_replayed(said_of: Callable[..., list[str]]) -> None:
    assert "no search has been replayed yet" in said_of(a_result(TABLE))[0]


def test_page_and_sentences_tell_finalists_ranks_and_operators(
    said_of: Callable[..., list[str]], check: Callable[[str], Any]
) -> None:
    runs = (
        *long_runs(CODES[0], 0.8, 0.82, 0.81, why="published"),
        *long_runs(CODES[-1], 0.9, 0.92, 0.91, why="finalist", beside="p0"),
        *sum((long_runs(CODES[place], 0.5 + place / 100) for place in (3, 7, 12)), ()),
    )
    many = [replace(row, candidate=row.candidate) for row in TABLE.networks]
    data = replace(replayed(*[23] * 10), networks=tuple(many), published=published(TABLE, 0), long_runs=runs)
    result = a_result(data)
    said = said_of(result)
    assert "rank correlation of 1.00 (n = 3)" in said[1]
    assert said[2] == (
        "At the step time of p0's table the finalist on digits, trained long, is better: 91.0 ± 1.0 % beside "
        "81.0 ± 1.0 %, +10.0 points (+10.0 – +10.0; 3 seeds)."
    )
    page = render_page(group_by_device([result]))
    check(page)
    for part in ("Accuracy over the time of a training step", "The best reward so far", "won – tied – lost", "p0"):
        assert part in page
    kind, _ = read_data(result)
    assert kind.command == "python benchmarks/search.py"
