from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any

import pytest

from serve.bench.report.devices import group_by_device
from serve.bench.report.page import render_page
from zoo.errors import ZooError
from zoo.results import Result

Make = Callable[..., Result]


def test_the_page_stands_alone(
    stages_result: Make, latency_result: Make, train_result: Make, check: Callable[[str], Any]
) -> None:
    page = render_page(group_by_device([stages_result(), latency_result(), train_result()]))
    checker = check(page)
    assert checker.loads == []
    assert not {"script", "link", "iframe", "img"} & set(checker.tags)
    assert "url(" not in page
    assert "@import" not in page
    assert "prefers-color-scheme: dark" in page
    assert "@media print" in page
    assert checker.tags.count("h1") == 1


def test_every_picture_has_words(stages_result: Make, latency_result: Make, train_result: Make) -> None:
    page = render_page(group_by_device([stages_result(), latency_result(), train_result()]))
    drawings = re.findall(r"<svg[^>]*>", page)
    assert drawings
    assert all("aria-label=" in drawing or 'aria-hidden="true"' in drawing for drawing in drawings)
    figures = page.count("<figure")
    assert figures == page.count("<figcaption>") > 4


@pytest.mark.parametrize(
    "data",
    [{}, {"rows": []}, {"rows": [{"index": 1}]}, {"variant": "s", "rows": 3}],
    ids=["empty", "no rows", "a row that lacks its forms", "wrong types"],
)
def test_a_damaged_result_is_named(data: dict[str, Any], stages_result: Make) -> None:
    whole = stages_result()
    broken = {**whole.data, **data} if data else {}
    result = Result(kind="stages", name="s-broken", environment=whole.environment, settings={}, data=broken)
    with pytest.raises(ZooError, match="s-broken") as error:
        group_by_device([result])
    assert "zoo bench stages" in error.value.hint
