"""What is printed or written as JSON can be read by any other language."""

from __future__ import annotations

import json
import math
import os
from pathlib import Path
from typing import Any

import pytest

from zoo.console import print_json
from zoo.errors import ZooError
from zoo.files import json_text, write_json

VALUE = {"name": "größe", "top1": 0.5, "stages": [{"n": 1, "none": None}], "pair": (1, 2.5)}


def test_json_is_written_and_printed_alike(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    write_json(tmp_path / "value.json", VALUE)
    print_json(VALUE)
    written = (tmp_path / "value.json").read_text(encoding="utf-8")
    assert written == capsys.readouterr().out
    assert json.loads(written) == {**VALUE, "pair": [1, 2.5]} and "größe" in written
    print_json(VALUE, indent=None)
    assert len(capsys.readouterr().out.splitlines()) == 1


def test_the_name_of_a_file_that_is_no_text_can_be_printed_and_read_back(capsys: pytest.CaptureFixture[str]) -> None:
    name = os.fsdecode(b"caf\xe9.png")
    print_json({"picture": name})
    said = capsys.readouterr().out
    said.encode()
    assert json.loads(said) == {"picture": name}


@pytest.mark.parametrize("bad", [math.nan, math.inf, -math.inf])
@pytest.mark.parametrize(
    ("place", "value"),
    [
        ("The value", lambda bad: bad),
        ("loss", lambda bad: {"top1": 1.0, "loss": bad}),
        ("rows[1].scores[0]", lambda bad: {"rows": [{"scores": []}, {"scores": (bad, 1.0)}]}),
    ],
)
def test_a_number_that_json_lacks_is_refused_by_its_place(
    bad: float, place: str, value: Any, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(ZooError, match=r"JSON has no such number") as caught:
        json_text(value(bad))
    assert caught.value.problem.startswith(f"{place} is {bad}")
    with pytest.raises(ZooError):
        write_json(tmp_path / "value.json", value(bad))
    with pytest.raises(ZooError):
        print_json(value(bad))
    assert list(tmp_path.iterdir()) == [] and capsys.readouterr().out == ""
