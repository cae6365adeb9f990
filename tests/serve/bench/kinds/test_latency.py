from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
from rich.table import Table

from serve.bench.report.devices import group_by_device, terminal_lines
from serve.bench.report.page import render_page
from zoo.results import Result

Make = Callable[..., Result]


def test_latency_is_told_with_its_tail_and_its_n(latency_result: Make, said_of: Callable[..., list[str]]) -> None:
    said = said_of(latency_result())
    assert said[0] == (
        "s.onnx (384 px, fake) answers one picture in 4.00 ms on NVIDIA H100 (p50; p99 4.00 ms, n = 200) and reaches "
        "250 pictures/s at batch 1."
    )
    assert "Beside s.onnx, s.plan is 2.0× as fast at batch 1 and 2.0× as fast at batch 8." in said
    assert "Before the network sees it, a 640 × 427 JPEG takes 4.00 ms to decode and resize." in said
    assert not any("unstable" in sentence for sentence in said)


def test_artifacts_of_several_sizes_are_compared_with_their_sizes(
    latency_result: Make, said_of: Callable[..., list[str]]
) -> None:
    result = latency_result()
    first, *others = result.data["artifacts"]
    smaller = [{**other, "image_size": 96} for other in others]
    said = said_of(replace(result, data={**result.data, "artifacts": [first, *smaller]}))
    assert f"Beside s.onnx ({first['image_size']} px), s.plan (96 px) is 2.0× as fast at batch 1" in " ".join(said)


@pytest.mark.parametrize(
    ("samples", "p90", "p99"), [(9, False, False), (10, True, False), (99, True, False), (100, True, True)]
)
def test_a_percentile_is_shown_only_where_it_is_not_the_slowest_sample(
    samples: int, p90: bool, p99: bool, latency_result: Make, said_of: Callable[..., list[str]]
) -> None:
    result = latency_result(["s.onnx"], samples=samples)
    sentence = said_of(result)[0]
    assert ("p99 4.00 ms" in sentence, "slowest 4.00 ms" in sentence) == (p99, not p99)
    page = render_page(group_by_device([result]))
    # Two rows of the table, and of the bars' ticks two of batches and one of the network beside decoding.
    dashes = 2 * ((not p90) + (not p99))
    assert page.count(">–</td>") == dashes
    assert [page.count(f'class="mark {name}"') for name in ("p90", "p99")] == [3 * p90, 3 * p99]
    table = next(terminal_lines(result))
    assert isinstance(table, Table)
    cells = {str(column.header): list(column.cells) for column in table.columns}
    assert ("–" in cells["p90"], "–" in cells["p99"]) == (not p90, not p99)
    assert cells["max"] == ["4.00", "32.0"]


def test_unstable_timings_are_counted_and_marked(latency_result: Make, said_of: Callable[..., list[str]]) -> None:
    result = latency_result(spread=0.5)
    assert said_of(result)[-1].startswith("4 of 4 timings vary by more than 2.5 %")
    assert render_page(group_by_device([result])).count(">unstable</span>") == 4


def test_names_cannot_break_the_page(latency_result: Make, check: Callable[[str], Any]) -> None:
    page = render_page(group_by_device([latency_result(names=("<script>alert(1)</script>", 'a"b&c'))]))
    checker = check(page)
    assert "script" not in checker.tags
    assert "<script>alert(1)</script>" in checker.text


def test_one_batch_size_makes_no_curve(latency_result: Make) -> None:
    result = latency_result()
    one = {**result.data, "rows": [row for row in result.data["rows"] if row["batch_size"] == 1]}
    assert "Throughput</strong>" in render_page(group_by_device([result]))
    alone = Result(
        kind="latency", name="s", environment=result.environment, settings={}, data={**one, "comparisons": []}
    )
    assert "Throughput</strong>" not in render_page(group_by_device([alone]))
