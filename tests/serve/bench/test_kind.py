"""Adding a kind of result is one file: nothing else is edited, and everything works."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from rich.table import Table

from serve.bench import kinds
from serve.bench.kind import find_kinds, read_data
from serve.bench.report.devices import group_by_device, headlines, terminal_lines
from serve.bench.report.page import render_page
from serve.bench.report.report import keep_result
from zoo.errors import UnknownNameError, ZooError
from zoo.results import Result, Subject, measured_on, read_results, write_result

WEATHER = """
from dataclasses import dataclass

from serve.bench.kind import Kind, Measured
from zoo.page.figures import Figures, to_page
from zoo.page.markup import Markup, tag
from zoo.rows import Row, Share, Text


@dataclass(frozen=True, kw_only=True)
class WeatherData(Row):
    place: Text
    humidity: Share


def section(run: Measured[WeatherData]) -> Markup:
    return tag("section", tag("h3", f"Weather of {run.data.place}"), *to_page(figures(run)))


def figures(run):
    return [Figures(heads=("place", "humid"), rows=[(run.data.place, f"{run.data.humidity:.0%}")], caption="Today")]


def headlines(runs):
    return [f"{run.data.place} is {run.data.humidity:.0%} humid." for run in runs]


KIND = Kind(
    name="weather", place=15, read=WeatherData.from_dict, section=section, headlines=headlines, tables=figures
)
"""


@pytest.fixture
def weather(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Result]:
    """A kind whose file lies beside the others, and a result of it."""
    folder = tmp_path / "kinds"
    folder.mkdir()
    (folder / "weather.py").write_text(WEATHER)
    monkeypatch.setattr(kinds, "__path__", [*kinds.__path__, str(folder)])
    yield weather_result()
    sys.modules.pop("serve.bench.kinds.weather", None)
    vars(kinds).pop("weather", None)


def weather_result(**data: object) -> Result:
    settings = {"subjects": [Subject(name="roof").to_dict()]}
    data = {"place": "the roof", "humidity": 0.4} | data
    return Result(kind="weather", name="roof", environment=measured_on("CPU"), settings=settings, data=data)


def test_a_kind_is_one_file(
    weather: Result, tmp_path: Path, zoo: Callable, stages_result: Callable, latency_result: Callable
) -> None:
    folder = tmp_path / "results"
    path = write_result(folder, weather)
    assert path.name == "weather-roof-cpu.json"
    assert read_results([path], find_kinds()) == [weather]
    (runs,) = group_by_device([weather])
    assert headlines(runs) == ["the roof is 40% humid."]
    page = render_page([runs])
    assert "<h3>Weather of the roof</h3>" in page
    assert "<td>the roof</td>" in page
    table, _, sentence = terminal_lines(weather)
    assert isinstance(table, Table)
    assert [list(column.cells) for column in table.columns] == [["the roof"], ["40%"]]
    assert sentence == "• the roof is 40% humid."
    for other in (stages_result("CPU"), latency_result()):
        write_result(folder, other)
    made = zoo("bench", "report", folder, "-o", tmp_path / "report.html")
    assert made.code == 0, made.err
    assert "• the roof is 40% humid." in made.out
    assert "Weather of the roof" in (tmp_path / "report.html").read_text()


def test_a_result_is_kept_and_shown(weather: Result, tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    keep_result(weather, tmp_path / "results")
    said = capfd.readouterr()
    assert "40%" in said.out
    assert "• the roof is 40% humid." in said.out
    assert "weather-roof-cpu.json" in said.err


def test_a_damaged_result_of_a_new_kind_is_named_too(weather: Result) -> None:
    with pytest.raises(ZooError, match="humidity is 40; expected a number from 0 to 1") as error:
        read_data(weather_result(humidity=40))
    assert "python benchmarks/weather.py" in error.value.hint


def test_a_kind_without_a_file_is_unknown(tmp_path: Path, zoo: Callable) -> None:
    write_result(tmp_path, weather_result())
    made = zoo("bench", "report", tmp_path, "-o", tmp_path / "report.html")
    assert made.code == 1
    assert (
        "is a result of kind 'weather'; this version reads stages, fusion, latency_table, latency, zoo, train,"
        in made.err
    )
    assert "update, or take the file away" in made.err
    with pytest.raises(UnknownNameError, match="weather"):
        read_data(weather_result())


def test_every_kind_has_a_place_of_its_own() -> None:
    found = find_kinds()
    measured = ["stages", "fusion", "latency_table", "latency", "zoo", "train", "finetuning", "progressive", "search"]
    assert list(found) == [
        *measured,
        "backends",
        "peers",
        "loader",
        "decoding",
        "conditioning",
        "quantization",
        "exporting",
        "serve",
        "hotpath",
        "check",
    ]
    assert len({kind.place for kind in found.values()}) == len(found)
    assert all(kind.name == file for file, kind in found.items())
    assert found["stages"].command == "zoo bench stages"
    assert found["latency_table"].command == "zoo bench latency-table"
    assert found["peers"].command == "python benchmarks/peers.py"
