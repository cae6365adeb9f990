from __future__ import annotations

import pytest

from zoo.cells import guarded, unguarded


@pytest.mark.parametrize(
    "text", ["=1+1", "+1", "-1", "@SUM(A1)", "＝1", "＋1", "－1", "＠1", "\tx", "\rx", "\nx", "'x", "''"]
)
def test_what_may_be_a_formula_is_text(text: str) -> None:
    assert guarded(text) == f"'{text}"
    assert unguarded(guarded(text)) == text


@pytest.mark.parametrize("text", ["", "cat", "1", "a=1", "été"])
def test_other_texts_stand_as_they_are(text: str) -> None:
    assert guarded(text) == text == unguarded(text)
