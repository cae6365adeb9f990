"""Names that hide something are shown, and are no commands to a terminal."""

from __future__ import annotations

import io
import json
import os

import pytest
from rich.table import Table

from zoo.console import VisibleConsole
from zoo.files import json_text
from zoo.visible import visible, visible_lines


@pytest.mark.parametrize(
    ("name", "shown"),
    [
        ("plain", "plain"),
        ("猫", "猫"),
        ("👨\u200d👩\u200d👧", "👨\u200d👩\u200d👧"),  # a family is one sign: joiners stay
        ("می\u200cخواهم", "می\u200cخواهم"),
        ("東京\u3000駅", "東京\u3000駅"),
        ("עברית", "עברית"),
        ("cafe\u0301", "cafe\u0301"),
        ("\x1b[31mred\x1b]0;owned\x07", r"\x1b[31mred\x1b]0;owned\x07"),
        ("\x9b31m", r"\x9b31m"),
        ("two\nlines\r\t", r"two\nlines\r\t"),
        (os.fsdecode(b"caf\xe9"), r"caf\xe9"),
        ("\ud83d", r"\ud83d"),
        ("photo\u202egnp.exe", r"photo\u202egnp.exe"),
        ("a\u2028b", r"a\u2028b"),
    ],
)
def test_what_a_name_hides_is_written_as_escapes(name: str, shown: str) -> None:
    assert visible(name) == shown
    assert visible(shown) == shown
    assert json.loads(json_text({name: name})) == {name: name}
    assert "\x9b" not in json_text(name)
    assert json_text(name).encode("utf-8").decode().count("\x1b") == 0


def test_lines_and_tabs_of_a_text_stay() -> None:
    assert visible_lines("a\tb\nc\x1b[2J") == "a\tb\nc\\x1b[2J"


def test_a_console_shows_no_commands_but_its_own() -> None:
    out = io.StringIO()
    console = VisibleConsole(file=out, force_terminal=True, color_system="standard", width=60)
    table = Table("class")
    table.add_row("\x1b]0;owned\x07")
    console.print(table, "[bold]\x9b31m[/] and \x1b[5m")
    said = out.getvalue()
    assert r"\x1b]0;o" in said  # cut: Rich measures names before they are written
    assert r"\x9b31m" in said
    assert "\x1b]" not in said
    assert "\x1b[5m" not in said
    assert "\x1b[1m" in said  # Rich's own
