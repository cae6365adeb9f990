"""Options from a file and from the environment: the same fields, the same checks, in a fixed order of weight."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal

import click
import pytest
from click.testing import CliRunner

from zoo.errors import UnknownNameError, ZooError
from zoo.option_files import configurable
from zoo.options import Arg, Opt, takes
from zoo.rows import Count, Row


@dataclass(frozen=True, kw_only=True)
class Options(Row):
    engine: Annotated[str | None, Arg("ARTIFACT", instead=("models",)), Opt("The same.", flags=("--engine",))] = None
    models: Annotated[Path | None, Opt("Many.", unless="engine")] = None
    control: Annotated[bool, Opt("More.", needs="models")] = False
    port: Annotated[Count, Opt("Where.")] = 8080
    sizes: Annotated[tuple[Count, ...], Opt("Sizes.", flags=("--size",))] = ()
    level: Annotated[Literal["info", "debug"], Opt("How much.")] = "info"


@pytest.fixture
def call(tmp_path: Path) -> Callable[..., Any]:
    @click.command()
    @takes(Options)
    @configurable(Options, "ZOO_TEST", besides=("ZOO_TEST_KEYS",))
    def command(options: Options) -> None:
        seen.append(options)

    seen: list[Options] = []

    def run(*arguments: str, file: str | None = None, env: dict[str, str] | None = None) -> Any:
        if file is not None:
            (tmp_path / "o.toml").write_text(file)
            arguments = (*arguments, "--config", str(tmp_path / "o.toml"))
        found = CliRunner().invoke(command, list(arguments), env=env, catch_exceptions=True)
        if isinstance(found.exception, ZooError):
            raise found.exception
        return seen.pop() if found.exit_code == 0 else found.output

    return run


def test_what_is_typed_counts_most_then_the_environment_then_the_file(call: Callable[..., Any]) -> None:
    file = 'engine = "file.onnx"\nport = 1\nlevel = "debug"\n'
    env = {"ZOO_TEST_PORT": "2", "ZOO_TEST_KEYS": "not ours"}
    assert call(file=file) == Options(engine="file.onnx", port=1, level="debug")
    assert call(file=file, env=env).port == 2
    assert call("--port", "3", file=file, env=env).port == 3
    assert call("typed.onnx", file=file).engine == "typed.onnx"
    assert call("--engine", "typed.onnx", file=file).engine == "typed.onnx"
    assert call(env={"ZOO_TEST_ENGINE": "env.onnx"}) == Options(engine="env.onnx")


def test_flags_and_what_stands_instead_come_from_there_too(call: Callable[..., Any]) -> None:
    assert call(file='models = "m"\ncontrol = true\n') == Options(models=Path("m"), control=True)
    assert call("--models", "m", env={"ZOO_TEST_CONTROL": "1"}).control is True
    assert call("--models", "m", file="control = false\n").control is False


def test_what_is_given_several_times_is_a_list(call: Callable[..., Any]) -> None:
    assert call("x", file="sizes = [1, 2]").sizes == (1, 2)
    assert call("x", env={"ZOO_TEST_SIZES": "3,4"}).sizes == (3, 4)
    assert call("x", "--size", "5", file="sizes = [1, 2]").sizes == (5,)
    with pytest.raises(ZooError, match="expected a list"):
        call("x", file="sizes = 1")


@pytest.mark.parametrize(
    ("file", "said"),
    [
        ('engine = "a"\nport = 0', "port"),
        ('engine = "a"\nport = "many"', "port"),
        ('engine = "a"\ncontrol = true', "no effect"),
        ('engine = "a"\nlevel = "loud"', "level"),
        ("port = 5", "Missing argument"),
    ],
)
def test_a_wrong_value_is_refused_as_on_the_command_line(call: Callable[..., Any], file: str, said: str) -> None:
    assert said in call(file=file)


@pytest.mark.parametrize(
    ("file", "said"),
    [
        ("prot = 1", "Did you mean port"),
        ("port = [1]", "expected one value"),
        ("[port]", "expected one value"),
        ("port = ", "cannot be read"),
    ],
)
def test_a_file_that_cannot_be_read_is_told(call: Callable[..., Any], file: str, said: str) -> None:
    with pytest.raises(ZooError, match=said):
        call("x", file=file)


def test_a_variable_nobody_reads_is_told(call: Callable[..., Any]) -> None:
    with pytest.raises(UnknownNameError, match="Did you mean ZOO_TEST_PORT"):
        call("x", env={"ZOO_TEST_PROT": "1"})


def test_a_file_that_is_not_there_is_told(call: Callable[..., Any]) -> None:
    with pytest.raises(ZooError, match="No such file"):
        call("x", "--config", "missing.toml")
