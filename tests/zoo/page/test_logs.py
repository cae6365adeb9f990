from __future__ import annotations

import re
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from zoo.page.logs import Axis, LogGroup, LogMark, LogRow, Point, Roof, axis_around, log_chart, log_log_chart


@given(st.floats(1e-6, 1e6), st.floats(1.01, 1e6))
def test_ticks_are_few_round_and_on_the_axis(low: float, factor: float) -> None:
    axis = Axis(low=low, high=low * factor)
    ticks = axis.ticks()
    assert len(ticks) <= 4
    assert all(axis.low <= tick <= axis.high for tick in ticks)
    assert all(axis.at(after) - axis.at(before) >= 0.1499 for before, after in pairwise(ticks))
    assert all(f"{tick:e}".rstrip("0")[0] in "1235" for tick in ticks)


def test_equal_factors_are_equal_distances() -> None:
    axis = Axis(low=1, high=100)
    assert [axis.at(value) for value in (1, 10, 100)] == pytest.approx([0, 0.5, 1])
    assert (axis.at(0.1), axis.at(1000)) == (0, 1)
    assert axis_around([2, 8]).low < 2 < 8 < axis_around([2, 8]).high


def test_small_and_large_values_are_both_visible() -> None:
    marks = [LogMark(value=value, colour="mbconv", spoken=f"{value} ms") for value in (0.1, 20.0)]
    chart = log_chart(
        [LogGroup(heading="Stage", rows=[LogRow(label="a", marks=[mark], text="x")]) for mark in marks],
        title="Times",
        description="",
        axis="ms",
    )
    places = [float(found) for found in re.findall(r'<circle class="fill mbconv" cx="([\d.]+)%"', chart)]
    assert len(places) == 2
    assert 0 < places[0] < places[1] < 100
    assert "20.0 ms" in chart


def test_a_bar_goes_from_the_centre_to_its_mark() -> None:
    rows = [LogRow(label=name, marks=[LogMark(value=value, colour="blue", spoken=name)]) for name, value in
            (("slow", 0.5), ("fast", 2.0))]  # fmt: skip
    chart = log_chart([LogGroup(heading="", rows=rows)], title="", description="", axis="×", centre=1.0)
    bars = [
        tuple(map(float, found))
        for found in re.findall(r'<rect class="fill blue" x="([\d.]+)%"[^>]* width="([\d.]+)%"', chart)
    ]
    (left, width), (start, other) = bars
    assert left + width == pytest.approx(start, abs=0.02)  # both meet at 1
    assert width == pytest.approx(other, abs=0.02)  # half and twice are as far from it


def test_points_lie_under_the_roof_and_the_roof_has_its_corner() -> None:
    points = [Point(x=2.0, y=10.0, colour="mbconv", letter="1", spoken="stage 1")]
    chart = log_log_chart(
        points, Roof(slope=10.0, top=100.0, label="roof"), title="Roofline", description="", x_name="x", y_name="y"
    )
    (written,) = re.findall(r'points="([^"]+)"', chart)
    corners = [tuple(map(float, corner.split(","))) for corner in written.split()]
    assert len(corners) == 3
    assert corners[1][1] == corners[2][1] < corners[0][1]  # level at the top, and risen to it
    (height,) = re.findall(r'<circle class="fill mbconv dot"[^>]* cy="([\d.]+)"', chart)
    assert float(height) > corners[1][1]
    assert "stage 1" in chart
