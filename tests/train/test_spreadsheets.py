"""predictions.csv: what a spreadsheet takes for a formula is text there, and reads back as it was."""

from __future__ import annotations

import csv
import io
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from train.spreadsheets import HEADS, Answered, read_predictions, sheet
from zoo.errors import DataError
from zoo.files import write_text


@pytest.mark.parametrize("name", ["=1+1", "+", "-5", "@SUM(A1)", "\tx", "\r=1", "＝1", "'=1", "'"])
def test_no_cell_can_be_a_formula(name: str) -> None:
    text = sheet(HEADS, [Answered("val", name, name, "cat", 0.25, 0.5)])
    (_, line) = csv.reader(io.StringIO(text, newline=""))
    assert line[1] == line[2] == f"'{name}"
    assert line[3:] == ["cat", "0.25", "0.5"]


@given(st.text(st.characters(exclude_categories=("Cs",))), st.text(st.characters(exclude_categories=("Cs",))))
def test_names_are_read_as_they_were_written(tmp_path_factory: pytest.TempPathFactory, one: str, other: str) -> None:
    path = tmp_path_factory.mktemp("sheet") / "predictions.csv"
    line = Answered("val", one, other, "猫", 0.125, 1e-5)
    path.write_bytes(sheet(HEADS, [line]).encode())
    assert read_predictions(path) == [line]


@pytest.mark.parametrize(
    "text", ["", "a,b\n1,2\n", f"{','.join(HEADS)}\nval,a,b\n", f"{','.join(HEADS)}\nv,a,b,c,x,y\n"]
)
def test_what_is_no_sheet_of_ours_is_refused(tmp_path: Path, text: str) -> None:
    write_text(tmp_path / "predictions.csv", text)
    with pytest.raises(DataError, match="not readable"):
        read_predictions(tmp_path / "predictions.csv")
    with pytest.raises(DataError, match="There is no file"):
        read_predictions(tmp_path / "other.csv")
    (tmp_path / "bytes.csv").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(DataError, match="not readable"):
        read_predictions(tmp_path / "bytes.csv")
