from __future__ import annotations

import re
from collections.abc import Sequence

import pytest
from hypothesis import given
from hypothesis import strategies as st

from zoo.page.curves import Band, Curve, Mark, axis_ticks, curve_chart, log_curve_chart
from zoo.page.elements import plain, render_document, table
from zoo.wording import duration

BANDS = (Band(start=0.5, end=4.5, label="128 px"), Band(start=4.5, end=10.5, label="300 px"))


def a_chart(points: Sequence[tuple[float, float]], *, step: bool = False, bands: Sequence[Band] = BANDS) -> str:
    curve = Curve(label="a <curve>", colour="blue", points=points, step=step)
    return curve_chart([curve], bands, title="t", x_name="epoch", unit=" %").as_figure()


def polyline(page: str) -> list[tuple[float, float]]:
    (points,) = re.findall(r'<polyline [^>]*points="([^"]+)"', page)
    return [(float(x), float(y)) for x, y in (pair.split(",") for pair in points.split())]


def test_a_curve_goes_through_its_points() -> None:
    drawn = polyline(a_chart([(1, 0.0), (5.5, 50.0), (10, 100.0)]))
    assert [x for x, _ in drawn] == pytest.approx([50, 500, 950])  # of 1000 across the bands' 0.5 … 10.5
    (_, low), (_, middle), (_, high) = drawn
    assert low > middle > high  # up is a smaller y
    assert middle == pytest.approx((low + high) / 2, abs=0.2)


def test_a_step_curve_changes_half_way_between_two_points() -> None:
    drawn = polyline(a_chart([(1, 3.0), (2, 3.0), (3, 7.0)], step=True))
    assert [x for x, _ in drawn] == pytest.approx([0, 100, 100, 200, 200, 300])
    heights = [y for _, y in drawn]
    assert heights[0] == heights[3] > heights[4] == heights[5]


def test_stages_are_bands_with_a_border_and_a_label() -> None:
    page = a_chart([(1, 1.0), (10, 2.0)])
    assert re.findall(r'class="band(?: other)?" x="([\d.]+)%" y="0" width="([\d.]+)%"', page) == [
        ("0.00", "40.00"),
        ("40.00", "60.00"),
    ]
    assert page.count('class="border"') == 1
    assert "128 px" in page
    assert "300 px" in page


def test_a_label_that_has_no_room_is_left_out() -> None:
    bands = (Band(start=0, end=1, label="narrow"), Band(start=1, end=100, label="wide"))
    page = a_chart([(1, 1.0), (10, 2.0)], bands=bands)
    assert "narrow" not in page
    assert "wide" in page


def test_every_point_has_a_tip_with_its_value() -> None:
    page = a_chart([(1, 12.34), (2, 56.7)])
    assert "<title>epoch 1: a &lt;curve&gt; 12.3 %</title>" in page
    assert "<title>epoch 2: a &lt;curve&gt; 56.7 %</title>" in page


def test_one_point_is_a_chart_too() -> None:
    assert "epoch 1" in a_chart([(1, 0.0)])


def test_a_value_that_is_no_number_leaves_a_gap_and_not_an_error() -> None:
    drawn = polyline(a_chart([(1, 1.0), (2, float("nan")), (3, float("inf")), (4, 2.0)]))
    assert len(drawn) == 2
    assert "nan" in a_chart([(1, float("nan"))])  # its tip says so


@given(st.floats(-1e6, 1e6), st.floats(0, 1e6))
def test_axis_ticks_are_even_and_cover_the_values(low: float, span: float) -> None:
    high = low + span
    ticks = axis_ticks(low, high)
    assert 1 <= len(ticks) <= 8
    assert ticks == sorted(set(ticks))
    assert ticks[0] <= low + 1e-6 * max(abs(low), span, 1e-9)


@pytest.mark.parametrize(
    ("low", "high", "ticks"),
    [
        (0.2, 0.9, [0, 0.25, 0.5, 0.75]),
        (96.1, 98.3, [96, 97, 98]),
        (0, 0, [0, 0.25, 0.5, 0.75, 1]),
        (5, 5, [0, 2.5, 5, 7.5, 10]),
    ],
)
def test_an_axis_begins_at_zero_where_that_costs_little(low: float, high: float, ticks: list[float]) -> None:
    assert axis_ticks(low, high) == pytest.approx(ticks)


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (8.44, "8.4 s"),
        (59.94, "59.9 s"),
        (59.96, "1 min"),
        (192, "3 min 12 s"),
        (7500, "2 h 5 min"),
        (273_600, "3 d 4 h"),
    ],
)
def test_durations_have_two_units_at_most(seconds: float, text: str) -> None:
    assert duration(seconds).replace("\N{NO-BREAK SPACE}", " ") == text


def test_a_document_needs_nothing_beside_it() -> None:
    page = render_document(kicker="k", title="a & b", subtitle="s", main=[table(("x",), [["<y>"]])], footer="f")
    assert page.startswith("<!doctype html>")
    assert "<title>a &amp; b</title>" in page
    assert "&lt;y&gt;" in page
    assert "prefers-color-scheme: dark" in page
    assert not re.findall(r"<script|<link|@import|url\(|https?://", page)
    assert "refresh" not in page
    assert '<meta http-equiv="refresh" content="30"/>' in render_document(
        kicker="", title="", subtitle="", main=[], footer="", refresh_s=30
    )


def test_values_are_written_as_people_do() -> None:
    assert plain([1.0, 0.1 + 0.2, 3]) == "1, 0.3, 3"
    assert plain({"torch": "2.15", "cuda": True}) == "torch 2.15, cuda yes"


def test_a_logarithmic_axis_has_equal_decades_and_names_its_marks_in_the_legend() -> None:
    curve = Curve(label="loss", colour="blue", points=[(10.0**power, float(-power)) for power in range(-6, 0)])
    marks = [
        Mark(x=1e-3, label="used, 0.001", colour="orange"),
        Mark(x=1e-2, label="own, 0.01", colour="series-2", dashed=True),
    ]
    page = log_curve_chart([curve], marks, title="t", x_name="learning rate").as_figure()
    assert [page.count(f">1e-{power}<") for power in (4, 3, 2, 1)] == [1, 1, 1, 1]
    assert ">1e-6<" not in page  # there stands the axis's name
    for mark, where in ((marks[0], "60.00%"), (marks[1], "80.00%")):
        assert f'x1="{where}"' in page and mark.label in page
    assert page.count("stroke-dasharray") == 1
    assert "learning rate 0.001: loss 3.00" in page
