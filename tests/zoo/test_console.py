"""Tables cut nothing that must be typed or read whole, however narrow the terminal; what is piped is not wrapped."""

from __future__ import annotations

import re
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from rich.cells import cell_len
from rich.console import Console
from rich.text import Text

from zoo.console import FittingTable, wants_colour
from zoo.model.counts import parts
from zoo.model.variants import VARIANTS, find_variant
from zoo.weights.table import WEIGHTS, weights_of

Zoo = Callable[..., Any]
AtWidth = Callable[[int | None], None]
WIDTHS = (60, 80, None)


def words_of(text: str) -> set[str]:
    return {word.rstrip(",") for word in text.split()}


def told(zoo: Zoo, width: int | None, *command: str | Path) -> str:
    """What a command prints, which is no wider than the terminal and has no cut cell."""
    answer = zoo(*command)
    assert answer.code == 0, answer.err
    assert "…" not in answer.out.replace(" … ", "")  # between two numbers it is a range
    if width:
        assert max(map(cell_len, answer.out.splitlines())) <= width
    return str(answer.out)


@pytest.mark.parametrize("width", WIDTHS)
def test_list_has_every_id_whole(width: int | None, zoo: Zoo, at_width: AtWidth) -> None:
    at_width(width)
    found = words_of(told(zoo, width, "list"))
    assert {row.id for row in VARIANTS} | {row.id for row in WEIGHTS} <= found


@pytest.mark.parametrize("model", ["s", "xl", "resnet152"])
@pytest.mark.parametrize("width", WIDTHS)
def test_show_has_every_number_whole(width: int | None, model: str, zoo: Zoo, at_width: AtWidth) -> None:
    at_width(width)
    found = words_of(told(zoo, width, "show", model))
    stages = list(parts(find_variant(model), image_size=find_variant(model).eval_size))
    for part in stages:
        assert {f"{part.num_params:,}", f"{part.macs / 1e6:,.1f}", str(part.out_channels), str(part.size)} <= found


@pytest.mark.parametrize("width", WIDTHS)
def test_a_plan_has_every_number_whole(width: int | None, zoo: Zoo, at_width: AtWidth) -> None:
    at_width(width)
    train = ("train", "s", "--recipe", "folder", "--epochs", "300")  # so many passes get all of Table 6
    said = told(zoo, width, *train, "--plan", "--set", "stages.all.accumulate=4")
    heads = ("RandAugment", "mixup", "CutMix", "dropout", "stoch.", "TMACs", "parts")
    assert {*heads, "8.3333", "11.6667", "0.0667", "0.1667"} <= words_of(said)


@pytest.mark.parametrize("width", WIDTHS)
def test_checking_names_classes_and_files_whole(
    width: int | None, zoo: Zoo, at_width: AtWidth, picture_folder: Path, in_folder: Path
) -> None:
    long = "a-class-with-a-name-that-is-long-but-fits-60-columns"
    root = in_folder / ("pictures-" + "x" * 40)
    shutil.copytree(picture_folder / "train", root)
    (root / "red").rename(root / long)
    shutil.copy(root / long / "000.jpg", root / long / "copy.jpg")
    at_width(width)
    answer = zoo("data", "check", root.name)
    assert long in words_of(answer.out)
    assert f"{root.name}/{long}/copy.jpg" in answer.out, "a path is wrapped by the terminal, so that it can be copied"


@pytest.mark.parametrize("width", WIDTHS)
def test_the_doctors_commands_stay_on_one_line(width: int | None, zoo: Zoo, at_width: AtWidth) -> None:
    at_width(width)
    answer = zoo("doctor")
    assert "…" not in answer.out
    assert all(line.count("'") % 2 == 0 for line in answer.out.splitlines() if "pip install" in line)


def test_what_is_piped_has_one_line_a_row(zoo: Zoo) -> None:
    lines = zoo("list").out.splitlines()
    assert len(lines) == 1 + len(VARIANTS)
    (row,) = (line for line in lines if line.startswith("s "))
    assert all(weights.id in row for weights in weights_of("s"))


CELLS = st.text("abc/-,. 0123456789", max_size=30).map(str.strip)


@given(
    rows=st.lists(st.lists(CELLS, min_size=4, max_size=4), min_size=1, max_size=4),
    heads=st.lists(st.sampled_from(("px", "share of MACs", "params")), min_size=4, max_size=4),
    width=st.integers(40, 100),
    no_wrap=st.booleans(),
)
def test_no_word_is_ever_parted(rows: list[list[str]], heads: list[str], width: int, no_wrap: bool) -> None:
    """Every word of every cell stands whole in the output, which is no wider than the terminal."""
    table = FittingTable("one", title="a title")
    for head in heads[1:]:
        table.add_column(head, justify="right", no_wrap=no_wrap)
    for row in rows:
        table.add_row(*map(Text, row))
    console = Console(width=width, color_system=None, force_terminal=False)
    with console.capture() as capture:
        console.print(table)
    found = capture.get()
    assert {word for row in rows for cell in row for word in cell.split()} <= set(found.split())
    assert max(map(cell_len, found.splitlines())) <= width
    assert "…" not in found


@pytest.mark.parametrize(
    ("variables", "wanted"),
    [({}, True), ({"NO_COLOR": "1"}, False), ({"NO_COLOR": ""}, True), ({"TERM": "dumb"}, False)],
)
def test_the_environment_says_whether_there_are_colours(
    variables: dict[str, str], wanted: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("NO_COLOR", raising=False)
    monkeypatch.setenv("TERM", "xterm")
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    assert wants_colour() is wanted


@pytest.mark.parametrize("variable", [("NO_COLOR", "1"), ("TERM", "dumb"), ("TERM", "xterm-256color")])
def test_no_command_colours_where_it_must_not(
    variable: tuple[str, str], zoo: Zoo, picture_folder: Path, in_folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Both streams are terminals: tables, errors, and the progress of a training."""
    for stream in ("stdout", "stderr"):
        monkeypatch.setattr(f"sys.{stream}.isatty", lambda: True, raising=False)
    monkeypatch.delenv("NO_COLOR", raising=False)
    monkeypatch.setenv("TERM", "xterm-256color")
    monkeypatch.setenv(*variable)
    flags = ("--epochs", "4", "--image-size", "16", "--batch-size", "36", "--device", "cpu", "--workers", "0")
    trained = zoo("train", "tiny", "--data", picture_folder, *flags)
    said = [zoo("show", "s"), zoo("show", "nothing"), trained, zoo("data", "check", picture_folder)]
    styles = re.findall(r"\x1b\[[\d;]*m", "".join(answer.out + answer.err for answer in said))
    assert bool(styles) is (variable == ("TERM", "xterm-256color"))
