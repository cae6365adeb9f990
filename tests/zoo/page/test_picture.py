"""Charts as SVG files of their own: they need nothing beside them, and any viewer of SVG can read them."""

from __future__ import annotations

import re
from xml.etree import ElementTree

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from zoo.page.curves import Band, Curve, curve_chart
from zoo.page.markup import printable
from zoo.page.matrix import DRAWN_CLASSES, MATRIX_CLASSES, draw_matrix
from zoo.page.picture import THIRD_PX, WHOLE_PX, count_letters, render_charts, shortened

SVG = "{http://www.w3.org/2000/svg}"
NAMES = ("$5 <b>&amp;'\"</b>", "🦉 owl", "x" * 200, "日本語のとても長い名前です")


def a_picture(title: str = "a run") -> str:
    def chart(width_px: int) -> object:
        curve = Curve(label="a <curve>", colour="blue", points=[(1, 0.0), (2, 1.0)], dot=1)
        return curve_chart([curve], [Band(start=0.5, end=2.5)], title="t", x_name="epoch", width_px=width_px)

    return render_charts([chart(width) for width in (WHOLE_PX, *[THIRD_PX] * 4)], title=title, subtitle="s")


def pictures() -> list[str]:
    few, many = np.diag([3, 4, 5, 6]), np.eye(MATRIX_CLASSES + 1, dtype=np.int64)
    return [a_picture(), draw_matrix(few, NAMES, "few"), draw_matrix(many, [str(i) for i in range(len(many))], "many")]


@pytest.mark.parametrize("text", pictures(), ids=["charts", "counts", "colours"])
def test_a_picture_stands_alone(text: str) -> None:
    root = ElementTree.fromstring(text)
    assert root.tag == f"{SVG}svg"
    assert root.get("viewBox") == f"0 0 {root.get('width')} {root.get('height')}"
    assert "prefers-color-scheme: dark" in text
    assert not re.findall(r"var\(|url\(|@import|<script|foreignObject|(?:href|src)=", text)
    used = {name for element in root.iter() for name in (element.get("class") or "").split()}
    unstyled = {name for name in used if f".{name}" not in text}
    assert unstyled == set()


def test_everything_lies_inside_the_picture() -> None:
    root = ElementTree.fromstring(a_picture())
    width, height = (float(root.get(name, "")) for name in ("width", "height"))
    places = [tuple(map(float, re.findall(r"[\d.]+", group.get("transform", "")))) for group in root.findall(f"{SVG}g")]
    assert len(places) == len(set(places)) == 5
    for (x, y), group in zip(places, root.findall(f"{SVG}g"), strict=True):
        ground = group.find(f"{SVG}rect")
        assert ground is not None
        assert x + float(ground.get("width", "")) < width
        assert y + float(ground.get("height", "")) < height
    assert [x for x, y in places if y == places[1][1]] == sorted({x for x, _ in places})  # three side by side


@pytest.mark.parametrize("name", NAMES)
def test_any_name_is_text_and_said_in_full(name: str) -> None:
    for text in (a_picture(title=name), draw_matrix(np.array([[1, 2], [3, 4]]), [name, "other"], "title")):
        root = ElementTree.fromstring(text)
        assert name in [title.text for title in root.iter(f"{SVG}title")]
        shown = [element.text or "" for element in root.iter(f"{SVG}text")]
        assert max(map(count_letters, shown)) < 100


@given(st.text())
def test_a_document_can_hold_any_text(text: str) -> None:
    matrix = printable(draw_matrix(np.array([[1, 0], [1, 1]]), [text, "b"], text))
    ElementTree.fromstring(matrix.encode())


def test_what_no_document_can_hold_is_replaced() -> None:
    assert printable("a\x00\x08b\udcff\tc\n🦉") == "a��b�\tc\n🦉"


def test_counts_stand_in_the_cells_of_few_classes() -> None:
    confusion = np.array([[7, 2, 0], [0, 9, 1], [0, 0, 0]])
    root = ElementTree.fromstring(draw_matrix(confusion, ["cat", "dog", "owl"], "t"))
    counts = [element.text for element in root.findall(f"{SVG}g/{SVG}text")]
    assert counts == ["7", "2", "9", "1"]
    assert "2 of 9: cat taken for dog" in [title.text for title in root.iter(f"{SVG}title")]
    shares = [element.text for element in root.findall(f"{SVG}text[@class='muted']")]
    assert "16 of 19 right (84.2 %)." in shares
    assert [share for share in shares if share and share.endswith("%")] == ["78 %", "90 %"]
    assert "–" in shares  # no picture of the third class


def test_more_classes_are_colours_alone_and_a_cell_is_a_whole_pixel() -> None:
    rng = np.random.default_rng(0)
    for count in (MATRIX_CLASSES + 1, DRAWN_CLASSES):
        confusion = np.zeros((count, count), np.int64)
        np.add.at(confusion, (rng.integers(0, count, 3 * count), rng.integers(0, count, 3 * count)), 1)
        text = draw_matrix(confusion, [str(index) for index in range(count)], "t")
        assert text.count("h1v1h-1z") == np.count_nonzero(confusion)
        assert int(re.findall(r"scale\((\d+)\)", text)[0]) >= 1
        assert len(text) < 200_000


def test_long_texts_end_where_their_room_does() -> None:
    assert shortened("short", 5) == "short"
    assert shortened("longer", 5) == "long…"
    assert shortened("日本語", 5) == "日本…"
    assert count_letters("日本…") == 5
    assert shortened("日本語", 1) == "…"
