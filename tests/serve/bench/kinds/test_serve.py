from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from serve.bench.measure.load import LoadRow
from serve.bench.measure.serving import ServeData, serve_result
from serve.bench.options import ServeBenchOptions
from serve.bench.report.devices import group_by_device, headlines
from serve.bench.report.page import render_page
from zoo.results import Result, summarize


def closed(server: str, clients: int, good_per_s: float) -> LoadRow:
    return LoadRow(
        server=server,
        loop="closed",
        clients=clients,
        duration_s=10.0,
        good_per_s=good_per_s,
        refused_per_s=0.0,
        lost=0,
        summary=summarize([5.0] * 200),
        refusals=None,
        after_ms=6.0,
    )


def opened(server: str, share: float, p99_ms: float, refused: int = 0) -> LoadRow:
    return LoadRow(
        server=server,
        loop="open",
        offered_per_s=100.0 * share,
        capacity_share=share,
        duration_s=10.0,
        good_per_s=100.0 * min(share, 1.0),
        refused_per_s=refused / 10.0,
        lost=0,
        summary=summarize([4.0] * 190 + [p99_ms] * 10),
        refusals=summarize([1.0] * refused) if refused else None,
        after_ms=7.0,
    )


ROWS = [
    closed("ours", 1, 60.0),
    closed("ours", 32, 100.0),
    opened("ours", 0.25, 8.0),
    opened("ours", 0.75, 20.0),
    opened("ours", 1.0, 90.0),
    opened("ours", 3.0, 180.0, refused=400),
    closed("theirs", 32, 50.0),
]


def result(rows: list[LoadRow] = ROWS, **more: Any) -> Result:
    options = ServeBenchOptions(servers=("x",))
    return serve_result(rows, options, picture="china.jpg", picture_bytes=200_000, **more)


def test_the_page_has_both_loops_and_the_chart() -> None:
    (runs,) = group_by_device([result(versions=["litserve 0.2.19"])])
    page = render_page([runs])
    assert "Servers under load: ours and theirs" in page
    assert "china.jpg (" in page and "litserve 0.2.19" in page
    assert "(closed loop)" in page and "(open loop)" in page
    assert "p99 of answered requests" in page


def test_the_sentences_name_the_rates_and_the_overload() -> None:
    (runs,) = group_by_device([result()])
    said = " ".join(map(str, headlines(runs)))
    assert "ours 100 and theirs 50" in said
    assert "Offered 3 times its best, ours answers 100 requests/s, p99 180 ms" in said


def test_the_sentences_hold_a_server_against_none() -> None:
    (runs,) = group_by_device([result([closed("zoo", 32, 95.0), closed("no server", 2, 100.0)])])
    said = " ".join(map(str, headlines(runs)))
    assert "zoo reaches 95 % of its decoding and inference in threads of their own (no server)" in said
    assert "quick" not in said


def test_the_knee_is_the_highest_load_it_kept_up_with() -> None:
    knee = ServeData.from_dict(result().data).knee("ours")
    assert knee is not None and knee.capacity_share == 0.75  # at 1.0 p99 is eleven times that of the lightest load


def test_a_load_with_refusals_is_beyond_the_knee() -> None:
    data = ServeData.from_dict(result([opened("a", 0.25, 8.0), opened("a", 0.5, 8.0, refused=20)]).data)
    knee = data.knee("a")
    assert knee is not None and knee.capacity_share == 0.25
    assert data.knee("nobody") is None


def test_a_server_that_answers_nothing_has_no_times() -> None:
    silent = replace(opened("ours", 3.0, 1.0), summary=None, good_per_s=0.0)
    (runs,) = group_by_device([result([closed("ours", 1, 1.0), silent])])
    assert "–" in render_page([runs])


@pytest.mark.parametrize("rows", [[]])
def test_a_result_without_rows_is_refused(rows: list[LoadRow]) -> None:
    with pytest.raises(ValueError, match="rows"):
        result(rows)
