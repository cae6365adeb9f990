from __future__ import annotations

import re

from zoo.page.ecdf import Distribution, ecdf_chart, log_ticks
from zoo.page.scatter import Point, scatter_chart


def a_point(label: str, x: float, y: float, *, on_line: bool = False) -> Point:
    return Point(label=label, colour="series-1", x=x, y=y, spoken=f"{label}: {y} %", on_line=on_line)


def drawn(points: list[Point]) -> str:
    return scatter_chart(points, title="T", description="D", x_name="ms", y_name="%", legend=[("series-1", "V2")])


def test_every_point_has_a_tip_and_a_label_where_there_is_room() -> None:
    crowded = [a_point("one", 1, 70), a_point("near", 1.01, 70.1), a_point("third", 1.02, 70)]
    chart = drawn([*crowded, a_point("far", 100, 80, on_line=True)])
    assert chart.count("<circle") == 4
    assert all(f"<title>{name}: " in chart for name in ("one", "near", "third", "far"))
    labels = re.findall(r'class="tick halo"[^>]*>([^<]+)<', chart)
    assert labels == ["far", "one", "near"]  # those of the line first, then above, below, and none over another


def test_points_lie_within_the_drawing_and_in_order() -> None:
    chart = drawn([a_point("a", 0.5, 70), a_point("b", 5, 75), a_point("c", 5000, 90)])
    places = [float(found) for found in re.findall(r'<circle[^>]* cx="([\d.]+)%"', chart)]
    assert places == sorted(places)
    assert 0 < places[0] < places[-1] < 100
    assert drawn([a_point("alone", 3, 70)]).count("<circle") == 1


def test_round_numbers_of_a_logarithmic_axis_have_room() -> None:
    assert log_ticks(6.5, 43) == [7, 10, 15, 20, 30, 40]
    assert log_ticks(0.9, 1100) == [1, 3, 10, 30, 100, 300, 1000]
    for low, high in ((6.1, 6.9), (1e-3, 1e6), (0.99, 1.01), (2, 2.05)):
        ticks = log_ticks(low, high)
        assert len(ticks) <= 7
        assert ticks == sorted(ticks)
        assert all(low <= tick <= high for tick in ticks)
    assert len(log_ticks(6.1, 6.9)) >= 2


def test_a_distribution_reaches_from_its_first_sample_to_its_last_with_its_percentiles_marked() -> None:
    ascending = [1.0 + index / 100 for index in range(1000)]
    one = Distribution(label="s", colour="series-1", ascending=ascending, marked=(6.0, 10.0, None))
    chart = ecdf_chart([one], title="T", description="D", unit="ms")
    assert chart.count("<circle") == 2
    assert "s, p90: 10.0 ms" in chart
    points = re.search(r'points="([^"]+)"', chart)
    assert points is not None
    first, *_, last = [tuple(map(float, point.split(","))) for point in points[1].split()]
    assert first[0] == 90.0 and last[0] == 980.0  # 9 % and 98 % of a thousand
    assert first[1] > last[1]


def test_equal_samples_make_a_chart_too() -> None:
    one = Distribution(label="s", colour="series-1", ascending=[5.0] * 3, marked=(5.0, None, None))
    assert "<polyline" in ecdf_chart([one], title="T", description="D", unit="ms")
