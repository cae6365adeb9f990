from __future__ import annotations

import pytest

from serve.bench.measure.hotpath import BesideRow, HotpathData, ShareRow, hotpath_result
from serve.bench.measure.pump import PumpRow
from serve.bench.report.devices import group_by_device, headlines
from serve.bench.report.page import render_page
from zoo.results import Result, summarize

LOAD = PumpRow(
    name="no network, HTTP",
    clients=32,
    per_s=8400.0,
    wrong=0,
    summary=summarize([3.8] * 200),
    server_cpu_us=110.0,
    client_cpu_us=20.0,
)
ALONE = BesideRow(name="one picture", bare=summarize([8.0, 9.0, 10.0]), served=summarize([8.5, 9.5, 10.5]))
FULL = ShareRow(name="batches of 8", bare_per_s=(200.0, 100.0, 210.0), served_per_s=(190.0, 97.0, 189.0))


def made_result() -> Result:
    data = HotpathData(loads=(LOAD,), beside=(ALONE,), shares=(FULL,), idle_cpu_share=0.004)
    return hotpath_result(data, "zoo serve, b0.onnx", duration_s=5.0, turns=3)


def test_a_share_is_the_middle_one_of_its_turns() -> None:
    assert FULL.share == pytest.approx(0.95)


def test_what_the_server_adds_is_between_the_middle_ones() -> None:
    assert ALONE.overhead_ms == pytest.approx(0.5)
    assert ALONE.times_as_fast == pytest.approx(9.0 / 9.5)


def test_the_page_says_all_of_it() -> None:
    (runs,) = group_by_device([made_result()])
    said = list(headlines(runs))
    assert said == [
        "Requests per second that the server itself can take: no network, HTTP 8400.",
        "one picture: p50 9.50 ms by the server, 9.00 ms without.",
        "batches of 8: 95 % of the rate without a server.",
    ]
    page = render_page([runs])
    for text in ("no network, HTTP", "0.40 %", "0.950", "batches of 8"):
        assert text in page
