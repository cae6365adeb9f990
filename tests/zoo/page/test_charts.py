from __future__ import annotations

import re
from html import unescape

import pytest
from hypothesis import given
from hypothesis import strategies as st

from zoo.page.charts import Bar, Group, Line, bar_chart, line_chart, nice_ticks
from zoo.page.markup import Markup, join, tag
from zoo.wording import count, digits, joined, milliseconds, percent, plain_name, stage_list


def a_bar(value: float, **changes: object) -> Bar:
    return Bar(label="x", value=value, text=f"{value}", colour="mbconv", spoken="a bar", **changes)  # type: ignore[arg-type]


def chart(*bars: Bar) -> str:
    return bar_chart([Group(heading="stage", bars=bars)], title="t", description="d", axis="ms")


def widths(page: str) -> list[float]:
    return [float(width) for width in re.findall(r'<rect [^>]*width="([\d.]+)%"', page)]


@given(st.lists(st.floats(1e-3, 1e6), min_size=1, max_size=8))
def test_bars_are_as_long_as_their_values(values: list[float]) -> None:
    found = widths(chart(*(a_bar(value) for value in values)))
    assert found == pytest.approx([value / max(values) * 100 for value in values], abs=1e-3)


def test_an_outlier_becomes_an_arrow_instead_of_squeezing_the_bars() -> None:
    page = chart(a_bar(10.0, marks=(("p90", 12.0), ("p99", 900.0))))
    assert widths(page) == pytest.approx([100 / 1.6], abs=1e-3)
    assert 'class="beyond p99"' in page
    assert 'class="mark p90"' in page
    near = chart(a_bar(10.0, marks=(("p99", 11.0),)))
    assert "beyond" not in near
    assert widths(near) == pytest.approx([1000 / 11], abs=1e-3)


def test_whiskers_span_the_rounds() -> None:
    page = chart(a_bar(10.0, low=9.0, high=12.5))
    assert tuple(re.findall(r'x\d="[\d.]+%"', page.split("whisker")[1])) == ('x1="72.000%"', 'x2="100.000%"')
    assert "whisker" not in chart(a_bar(10.0, low=10.0, high=10.0))


@given(st.floats(1e-6, 1e9))
def test_ticks_are_few_round_and_inside(end: float) -> None:
    ticks = nice_ticks(end)
    assert ticks[0] == 0
    assert 3 <= len(ticks) <= 6
    assert ticks[-1] <= end * (1 + 1e-6)
    assert end - ticks[-1] < ticks[1]


def test_lines_rise_with_their_values_and_leave_no_series_out() -> None:
    lines = [
        Line(label="a", colour="series-1", points=[("batch 1", 10.0), ("batch 8", 40.0)]),
        Line(label="b", colour="series-2", points=[("batch 1", 20.0), ("batch 8", 5.0)]),
    ]
    page = line_chart(lines, title="t", description="d", axis="pictures/s")
    heights = [float(y) for y in re.findall(r'<circle [^>]*cy="([\d.]+)"', page)]
    assert len(heights) == 4
    assert heights[1] < heights[2] < heights[0] < heights[3]  # 40, 20, 10, 5: up is a smaller y
    assert "b, batch 8: 5.00 pictures/s" in page


@given(st.text(st.characters(exclude_categories=("Cs", "Cc"))))
def test_text_is_escaped_once_and_markup_never(text: str) -> None:
    made = tag("p", text, title=text)
    assert unescape(re.sub(r"<[^>]*>", "", re.sub(r'title="[^"]*"', "", made))) == text
    assert tag("div", made) == f"<div>{made}</div>"
    assert isinstance(join(made, text), Markup)


def test_attributes_are_spelt_as_html_does() -> None:
    assert tag("line", class_="a", stroke_width=2, x1=0.5, y1=None) == '<line class="a" stroke-width="2" x1="0.5"/>'
    assert tag("p", None, class_=None) == "<p></p>"


@pytest.mark.parametrize(
    ("value", "text"),
    [(0, "0"), (0.01234, "0.0123"), (0.9999, "1.00"), (1.234, "1.23"), (99.96, "100"), (1234.4, "1,234")],
)
def test_three_digits_are_enough(value: float, text: str) -> None:
    assert digits(value) == text


@given(st.floats(1e-4, 1e8))
def test_digits_keep_half_a_percent(value: float) -> None:
    assert float(digits(value).replace(",", "")) == pytest.approx(value, rel=0.0051)


def test_words() -> None:
    assert milliseconds(1.5) == "1.50 ms"
    assert [count(n) for n in (696, 21_458_488, 8.37e9)] == ["696", "21.5 M", "8.37 G"]
    assert [percent(share) for share in (0.0231, 0.0996, 0.52, 1.0)] == ["2.3 %", "10 %", "52 %", "100 %"]
    assert [joined(words) for words in ("", "a", "ab", "abc")] == ["", "a", "a and b", "a, b and c"]
    assert joined(iter("abc"), "or") == "a, b or c"
    assert plain_name("Intel(R) Core(TM) i7-1065G7 CPU @ 1.30GHz") == "Intel Core i7-1065G7 CPU @ 1.30GHz"


@pytest.mark.parametrize(
    ("indices", "text"),
    [
        ([4], "stage 4"),
        ([2, 1], "stages 1 and 2"),
        ([1, 2, 3], "stages 1–3"),
        ([1, 3, 4], "stages 1, 3 and 4"),
        ([1, 2, 4, 5], "stages 1, 2, 4 and 5"),
        ([1, 2, 3, 5, 7], "stages 1–3, 5 and 7"),
    ],
)
def test_stages_are_listed_as_people_do(indices: list[int], text: str) -> None:
    assert stage_list(indices) == text
