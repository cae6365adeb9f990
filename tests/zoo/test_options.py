"""A command's options are its row's fields: ranges, choices and defaults stand in one place."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal

import click
import pytest
from click.testing import CliRunner

from zoo.cli import LazyGroup, cli
from zoo.errors import ArtifactError, RowError
from zoo.options import Arg, Finite, Opt, takes, typed_command
from zoo.rows import Ascending, Count, Row, Some, Within


@dataclass(frozen=True, kw_only=True)
class CookOptions(Row):
    dish: Annotated[str, Arg("DISH")]
    minutes: Annotated[float, Within(above=0, high=600), Opt("How long.")] = 20.0
    pot: Annotated[Literal["small", "large"], Opt("Which pot.")] = "large"
    cooks: Annotated[Count | None, Opt("How many cooks  [default: one a pot]", flags=("-c", "--cooks"))] = None
    spices: Annotated[tuple[str, ...], Opt("Repeatable.", flags=("--spice",))] = ()
    stir: Annotated[bool, Opt("Leave it alone.", flags=("--no-stir",))] = True
    pinches: Annotated[int, Within(0, 9), Opt("Pinches.")] = 0
    notes: Annotated[Path | None, Opt("Where to write.")] = None
    profile: Annotated[tuple[int, int], Within(1), Opt("Least and most.")] = (1, 4)
    salt: Annotated[float, Within(0, 10), Opt("How much salt.")] = 1.0
    lid: Annotated[bool, Opt("Put the lid on.")] = False
    steam: Annotated[Count, Opt("How much steam.", needs="lid")] = 1
    rest: Annotated[Count, Opt("How long it stands.", needs="stir")] = 2
    taste: Annotated[Count, Opt("How often.", flags=("-t", "--taste"), unless="notes")] = 3
    kitchen: str = "ours"


@click.command()
@takes(CookOptions)
@click.option("--quiet", is_flag=True)
def cook(options: CookOptions, quiet: bool) -> None:
    click.echo(f"{options} {quiet}")


def run(*arguments: str) -> tuple[int, str]:
    result = CliRunner().invoke(cook, arguments)
    return result.exit_code, result.output


@dataclass(frozen=True, kw_only=True)
class ServeDishOptions(Row):
    plates: Annotated[tuple[Literal["flat", "deep"], ...], Opt("Repeatable.", flags=("--plate",))] = ("flat",)
    guests: Annotated[tuple[Count, ...], Opt("Repeatable.")] = ()
    names: Annotated[tuple[str, ...], Opt("Repeatable.", flags=("--name",))] = ()


@pytest.mark.parametrize(
    ("typed", "plates", "guests", "names"),
    [
        ((), ("flat",), (), ()),
        (("--plate", "deep,flat", "--guests", "1, 8"), ("deep", "flat"), (1, 8), ()),
        (("--plate", "deep", "--plate", "flat", "--guests", "2"), ("deep", "flat"), (2,), ()),
        (("--name", "Müller, Anna"), ("flat",), (), ("Müller, Anna",)),  # a text may have a comma of its own
    ],
)
def test_choices_and_numbers_may_stand_together(
    typed: tuple[str, ...], plates: tuple[str, ...], guests: tuple[int, ...], names: tuple[str, ...]
) -> None:
    @click.command()
    @takes(ServeDishOptions)
    def serve_dish(options: ServeDishOptions) -> None:
        click.echo((options.plates, options.guests, options.names))

    assert CliRunner().invoke(serve_dish, typed).output == f"{(plates, guests, names)}\n"
    wrong = CliRunner().invoke(serve_dish, ("--plate", "deep,round"))
    assert wrong.exit_code == 2 and "round" in wrong.output
    assert CliRunner().invoke(serve_dish, ("--guests", "1,,8")).exit_code == 2


def test_a_body_gets_one_row() -> None:
    assert run("soup") == (0, f"{CookOptions(dish='soup')} False\n")
    given = (
        "soup",
        "--minutes",
        "5",
        "--pot",
        "small",
        "-c",
        "2",
        "--spice",
        "a",
        "--spice",
        "b",
        "--no-stir",
        "--quiet",
    )
    wanted = CookOptions(dish="soup", minutes=5, pot="small", cooks=2, spices=("a", "b"), stir=False, profile=(2, 3))
    assert run(*given, "--profile", "2", "3") == (0, f"{wanted} True\n")


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("--minutes", "0"), "0.0 is not in the range 0<x<=600"),
        (("--minutes", "nan"), "nan is not a number"),
        (("--minutes", "inf"), "inf is not"),
        (("--pot", "huge"), "'small', 'large'"),
        (("--cooks", "0"), "x>=1"),
    ],
)
def test_what_a_field_cannot_hold_is_a_wrong_use(arguments: tuple[str, ...], said: str) -> None:
    code, output = run("soup", *arguments)
    assert code == 2
    assert said in output


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("--steam", "1"), "--steam has no effect without --lid."),
        (("--no-stir", "--rest", "2"), "--rest has no effect with --no-stir."),
        (("-t", "3", "--notes", "n"), "--taste has no effect with --notes."),
    ],
)
def test_an_option_that_would_change_nothing_is_a_wrong_use(arguments: tuple[str, ...], said: str) -> None:
    code, output = run("soup", *arguments)
    assert (code, output.splitlines()[-1]) == (2, f"Error: {said}")


@pytest.mark.parametrize("option", ["--spice", "--notes"])
def test_an_empty_text_is_a_variable_that_nobody_set(option: str) -> None:
    answer = CliRunner().invoke(cook, ["soup", option, ""])
    assert answer.exit_code == 2 and "is empty. Is the variable set?" in answer.output


@pytest.mark.parametrize("arguments", [(), ("--lid", "--steam", "2"), ("--rest", "1"), ("-t", "4"), ("--notes", "n")])
def test_an_option_that_changes_something_is_taken(arguments: tuple[str, ...]) -> None:
    assert run("soup", *arguments)[0] == 0


def test_help_tells_ranges_choices_and_defaults() -> None:
    help = " ".join(run("--help")[1].split())
    for said in (
        "DISH",
        "How long. [default: 20.0; 0<x<=600]",
        "How much salt. [default: 1.0; 0<=x<=10]",
        "Pinches. [default: 0; 0<=x<=9]",
        "[small|large]",
        "-c, --cooks",
        "--spice",
        "--no-stir",
    ):
        assert said in help
    assert "kitchen" not in help


def commands(group: click.Command) -> list[click.Command]:
    if not isinstance(group, LazyGroup):
        return [group]
    context = click.Context(group)
    members = (group.get_command(context, name) for name in group.list_commands(context))
    return [command for member in members if member for command in commands(member)]


@dataclass(frozen=True, kw_only=True)
class EatOptions(Row):
    dishes: Annotated[tuple[Path, ...], Arg("DISH...")]
    guests: Annotated[Count, Opt("How many.")] = 1


@click.command()
@takes(EatOptions)
def eat(options: EatOptions) -> None:
    click.echo(repr(options.dishes))


def test_an_argument_that_is_a_tuple_takes_several_values() -> None:
    answer = CliRunner().invoke(eat, ["soup", "fish/raw"])
    assert (answer.exit_code, answer.output) == (0, f"{(Path('soup'), Path('fish/raw'))!r}\n")
    assert CliRunner().invoke(eat, []).exit_code == 2
    # 1 equals True, and is told all the same.
    assert "How many.  [default: 1; x>=1]" in " ".join(CliRunner().invoke(eat, ["--help"]).output.split("\n"))


def test_what_an_option_goes_with_is_an_option_of_the_same_command() -> None:
    @dataclass(frozen=True, kw_only=True)
    class Broken(Row):
        salt: Annotated[Count, Opt("How much.", needs="pepper")] = 1

    with pytest.raises(AssertionError, match="pepper"):
        takes(Broken)


@dataclass(frozen=True, kw_only=True)
class DrinkOptions(Row):
    drink: Annotated[str, Arg("DRINK"), Opt("The same.", flags=("--glass-of",))]


@click.command()
@takes(DrinkOptions)
def order(options: DrinkOptions) -> None:
    click.echo(options.drink)


@pytest.mark.parametrize(
    ("arguments", "code", "said"),
    [
        (("tea",), 0, "tea\n"),
        (("--glass-of", "tea"), 0, "tea\n"),
        (("tea", "--glass-of", "tea"), 0, "tea\n"),
        (("tea", "--glass-of", "milk"), 2, "DRINK is tea, and --glass-of is milk: give one of them."),
        ((), 2, "Missing argument 'DRINK'."),
    ],
)
def test_a_field_may_be_an_argument_and_an_option(arguments: tuple[str, ...], code: int, said: str) -> None:
    answer = CliRunner().invoke(order, arguments)
    assert answer.exit_code == code
    assert said in answer.output


def test_serve_takes_its_artifact_both_ways() -> None:
    for arguments in (["serve", "none.onnx", "--port", "0"], ["serve", "--engine", "none.onnx", "--port", "0"]):
        answer = CliRunner().invoke(cli, arguments)
        assert isinstance(answer.exception, ArtifactError)
        assert answer.exception.problem == "There is no file none.onnx."
    both = CliRunner().invoke(cli, ["serve", "a.onnx", "--engine", "b.onnx"])
    assert both.exit_code == 2 and "--engine is b.onnx: give one of them" in both.output


def test_no_command_takes_nan_for_a_number() -> None:
    kinds = [parameter.type for command in commands(cli) for parameter in command.params]
    assert any(isinstance(kind, Finite) for kind in kinds)
    assert not [kind for kind in kinds if isinstance(kind, click.FloatRange) and not isinstance(kind, Finite)]


@pytest.mark.parametrize(
    "arguments",
    [
        ("bench", "latency", "x.onnx", "--duration-s", "nan"),
        ("bench", "stages", "tiny", "--warmup-ms", "inf"),
        ("serve", "--engine", "x.onnx", "--timeout-ms", "nan"),
        ("train", "tiny", "--lr", "nan"),
        ("train", "tiny", "--save-every", "nan"),
    ],
)
def test_nan_and_infinity_are_wrong_uses(arguments: tuple[str, ...]) -> None:
    assert CliRunner().invoke(cli, arguments).exit_code == 2


def test_numbers_that_go_together_may_be_given_several_times() -> None:
    @dataclass(frozen=True, kw_only=True)
    class Ranges(Row):
        ranges: Annotated[
            tuple[Annotated[tuple[int, int], Within(1), Ascending()], ...], Some(), Opt("From, to.", ("--range",))
        ] = ((1, 4),)

    @click.command()
    @takes(Ranges)
    def show(options: Ranges) -> None:
        click.echo(str(options.ranges))

    def told(*arguments: str) -> str:
        return CliRunner().invoke(show, arguments).output

    assert told() == "((1, 4),)\n"
    assert told("--range", "2", "3", "--range", "5", "6") == "((2, 3), (5, 6))\n"
    assert "0 is not in the range x>=1" in told("--range", "0", "3")
    with pytest.raises(
        RowError, match=r"ranges\[1\] is 3, 2; expected two whole numbers of at least 1, the smaller one"
    ):
        Ranges(ranges=((1, 2), (3, 2)))


def test_what_was_typed_is_told_without_the_folders_of_this_machine(tmp_path: Path) -> None:
    said: list[str | None] = []

    @click.command("cook")
    @takes(CookOptions)
    @click.option("--json", "as_json", is_flag=True)
    def cook(options: CookOptions, as_json: bool) -> None:
        said.append(typed_command())

    notes = str(tmp_path / "my notes.txt")
    typed = ["stew", "--spice", "salt", "--spice", "bay leaf", "--notes", notes, "--profile", "2", "3", "--no-stir"]
    assert CliRunner().invoke(cook, typed).exit_code == 0
    assert said == ["cook stew --spice salt --spice 'bay leaf' --no-stir --notes 'my notes.txt' --profile 2 3"]


def test_a_script_of_benchmarks_is_a_command_and_another_program_is_none(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sys.argv", ["/home/me/zoo/benchmarks/peers.py", "--exported", "/data/x.onnx"])
    assert typed_command() == "python benchmarks/peers.py --exported x.onnx"
    monkeypatch.setattr("sys.argv", ["/usr/bin/pytest", "tests"])
    assert typed_command() is None
