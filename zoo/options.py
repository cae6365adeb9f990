"""Owns the click options that several commands share, each written once; an option of one command stands with it."""

from __future__ import annotations

import math
import shlex
import sys
from collections.abc import Callable, Mapping
from dataclasses import MISSING, dataclass, fields
from functools import partial, wraps
from pathlib import Path
from types import NoneType, UnionType
from typing import Annotated, Any, Literal, Union, get_args, get_origin

import click
from click.core import ParameterSource
from click.types import StringParamType

from zoo.errors import RowError
from zoo.machine import Device
from zoo.rows import Row, Within, field_types

Option = Callable[[Callable[..., Any]], Callable[..., Any]]


class LocalPath(click.Path):
    """A path of this machine. An address is refused: as a path it would lose a slash, and `-o` would make folders.

    So is an empty text, which would mean the folder one is in: `-o "$OUT"` where nobody set the variable.
    """

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        """Refuse an address and an empty text, then read the path."""
        if not str(value):
            self.fail("the path is empty. Is the variable set?", param, ctx)
        if "://" in str(value):
            self.fail(f"{value} is an address; a path on this machine is expected.", param, ctx)
        return super().convert(value, param, ctx)


class SomeText(StringParamType):
    """A text of an option. An empty one is refused: `--data "$DATA"` where nobody set the variable is no default."""

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        """Refuse an empty text."""
        if not str(value).strip():
            self.fail("the text is empty. Is the variable set?", param, ctx)
        return str(value)


TEXT = SomeText()
FOLDER = LocalPath(path_type=Path, file_okay=False)
PATH = LocalPath(path_type=Path)


class Finite(click.FloatRange):
    """A number within a range that is a number: NaN passes every comparison that could refuse it, ∞ half of them."""

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        """Read the number, then refuse what is none."""
        number = super().convert(value, param, ctx)
        if not math.isfinite(number):
            self.fail(f"{value} is not a number that can be used.", param, ctx)
        return number


class OneOf(click.Choice):  # type: ignore[type-arg]  # 8.1's has none
    """One of a few whole numbers. (Before 8.2, Click's own choices are texts.)"""

    def __init__(self, numbers: tuple[float, ...]) -> None:
        super().__init__([f"{number:g}" for number in numbers])

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        """Read the number."""
        return int(super().convert(str(value), param, ctx))


class Listed(click.Option):
    """A repeatable option whose values may stand together: `--on ort-cpu,openvino` is `--on ort-cpu --on openvino`."""

    def type_cast_value(self, ctx: click.Context, value: Any) -> Any:
        """Part the texts at their commas, then read each."""
        texts = [part.strip() for text in value or () for part in str(text).split(",")]
        return super().type_cast_value(ctx, texts)


# Where measurements are kept, and where `zoo bench report` looks for them.
RESULTS = Path("benchmarks")

GROUP_BY_HELP = (
    "Keep pictures that belong together on one side of the split of a folder without one: those of one folder inside "
    "the class (parent), or those whose path there has the same match of a regular expression."
)
json_option = click.option("--json", "as_json", is_flag=True, help="Print JSON, and only JSON, on stdout.")


@dataclass(frozen=True)
class Arg:
    """In the type of a row's field: it is the command's argument, not an option; a tuple takes several values.

    With an `Opt` beside it, it is given as either: `zoo serve s.onnx`, `zoo serve --engine s.onnx`; it must be given,
    or one of the fields `instead`.
    """

    metavar: str
    instead: tuple[str, ...] = ()


@dataclass(frozen=True)
class Opt:
    """In the type of a row's field: how it is given on a command line, and what its help says.

    `flags` are `--field-name` unless given. A default of None is told in `help` as "[default: …]". Without the field
    `needs`, of several without all of them, or beside the field `unless`, it would change nothing, and is refused.
    """

    help: str
    flags: tuple[str, ...] = ()
    metavar: str | None = None
    needs: str | tuple[str, ...] | None = None
    unless: str | None = None


# Where a value comes from that somebody wrote down: the command line, or what zoo/option_files.py reads.
GIVEN = (ParameterSource.COMMANDLINE, ParameterSource.DEFAULT_MAP)

Seed = Annotated[int, Within(0, 2**32 - 1)]
DeviceChoice = Annotated[Device, Opt("auto takes a GPU that works.")]
GroupBy = Annotated[str | None, Opt(GROUP_BY_HELP, metavar="parent|REGEX")]


def takes(row: type[Row]) -> Callable[[Callable[..., None]], Callable[..., None]]:
    """Give a command the options that a row's fields ask for; its body gets one row instead of their values.

        @click.command()
        @takes(ServeOptions)
        @json_option
        def serve(options: ServeOptions, as_json: bool) -> None: ...

    Ranges, choices and defaults are the fields' own, so that the command line and Python are told the same. Fields
    without an `Opt` or an `Arg` are the body's to set.
    """
    kinds = {name: kind for name, kind in field_types(row).items() if _marks(kind)}
    told = [mark for kind in kinds.values() for mark in _marks(kind) if isinstance(mark, Opt)]
    named = {name for mark in told for name in (*_needed(mark), mark.unless)}
    assert named <= {None, *kinds}, f"{row.__name__} has not all of {named}"

    def decorate(body: Callable[..., None]) -> Callable[..., None]:
        @wraps(body)
        def run(**values: Any) -> None:
            for name, kind in kinds.items():
                if len(_marks(kind)) > 1:
                    option = values.pop(_as_option(name))
                    typed = click.get_current_context().get_parameter_source(name) is ParameterSource.COMMANDLINE
                    values[name] = _either(values[name] if typed or option is None else None, option, *_marks(kind))
            own = {name: values.pop(name) for name in kinds}
            _refuse_without_effect(row, kinds, own)
            body(_made(row, kinds, own), **values)

        command: Callable[..., None] = run
        for name, kind in reversed(kinds.items()):
            for parameter in _parameters(row, name, kind):
                command = parameter(command)
        return command

    return decorate


def typed_command() -> str | None:
    """The command that is being run, as it can be typed again; None where none is: somebody calls Python.

    Of a path that is absolute only the name is told: results travel, and machines have different folders.
    """
    context = click.get_current_context(silent=True)
    if context is None:
        script = Path(sys.argv[0])
        if script.suffix != ".py" or script.parent.name != RESULTS.name:
            return None
        return shlex.join(["python", f"{script.parent.name}/{script.name}", *map(_told, sys.argv[1:])])
    words = context.command_path.split()
    for parameter in context.command.params:
        name = str(parameter.name)
        if context.get_parameter_source(name) is not ParameterSource.COMMANDLINE:
            continue
        value = context.params[name]
        values = list(value) if parameter.multiple or parameter.nargs == -1 else [value]
        for each in values:
            if isinstance(parameter, click.Option):
                words.append(parameter.opts[-1])
            if not getattr(parameter, "is_flag", False):
                words += map(_told, each if isinstance(each, tuple) else (each,))
    return shlex.join(words)


def _told(value: Any) -> str:
    return Path(value).name if Path(str(value)).is_absolute() else str(value)


def option_fields(row: type[Row]) -> tuple[str, ...]:
    """The fields of a row that a command line can give."""
    return tuple(name for name, kind in field_types(row).items() if _marks(kind))


def fields_of_many(row: type[Row]) -> frozenset[str]:
    """Those of them that are given several times, one value each."""
    return frozenset(name for name in option_fields(row) if _is_many(field_types(row)[name]))


def _marks(kind: Any) -> list[Opt | Arg]:
    """What a field's type says of the command line, an argument first; nothing where it is not for it."""
    marks = get_args(kind)[1:] if get_origin(kind) is Annotated else ()
    told = [mark for mark in marks if isinstance(mark, Opt | Arg)]
    return sorted(told, key=lambda mark: isinstance(mark, Opt))


def _refuse_without_effect(row: type[Row], kinds: Mapping[str, Any], values: Mapping[str, Any]) -> None:
    """Refuse an option that was typed and changes nothing beside the others.

    Raises:
        click.UsageError: names both options.
    """
    context = click.get_current_context()
    for name, kind in kinds.items():
        told = _marks(kind)[-1]
        if not isinstance(told, Opt) or context.get_parameter_source(name) not in GIVEN:
            continue
        needed = _needed(told)
        if needed and not any(values[each] for each in needed):
            is_switched_off = _default(row, needed[0]) is True  # by a flag such as --no-parity
            other, word = needed[0], "with" if is_switched_off else "without"
        elif told.unless and values[told.unless]:
            other, word = told.unless, "with"
        else:
            continue
        also = _marks(kinds[other])[-1]
        assert isinstance(also, Opt)
        raise click.UsageError(f"{_flags(name, told)[-1]} has no effect {word} {_flags(other, also)[-1]}.", context)


def _made(row: type[Row], kinds: Mapping[str, Any], values: Mapping[str, Any]) -> Row:
    """The row, or its error in the words of the command line: “--profile is 8, 1, 2” instead of “profiles[0] is …”."""
    try:
        return row(**values)
    except RowError as error:
        field, _, said = error.problem.partition(" is ")
        name = field.partition("[")[0]
        told = _marks(kinds[name])[-1] if name in kinds else None
        if not isinstance(told, Opt):
            raise
        raise RowError(f"{_flags(name, told)[-1]} is {said}", "Change it; --help says what it may be.") from error


def _needed(told: Opt) -> tuple[str, ...]:
    """The fields of which one must be given."""
    return (told.needs,) if isinstance(told.needs, str) else told.needs or ()


def _default(row: type[Row], name: str) -> Any:
    return next(field.default for field in fields(row) if field.name == name)


def _flags(name: str, told: Opt) -> tuple[str, ...]:
    """How an option is typed; the long form is the last."""
    return told.flags or (f"--{name.replace('_', '-')}",)


def _as_option(name: str) -> str:
    """What click calls the option of a field that is an argument as well."""
    return f"{name}_as_option"


def _either(argument: Any, option: Any, arg: Arg | Opt, opt: Arg | Opt) -> Any:
    """The one value of a field that may be given as an argument or as an option."""
    assert isinstance(arg, Arg) and isinstance(opt, Opt)
    flag = opt.flags[-1]
    if None not in (argument, option) and argument != option:
        problem = f"{arg.metavar} is {argument}, and {flag} is {option}: give one of them."
        raise click.UsageError(problem, click.get_current_context())
    return option if argument is None else argument


def _or_option(ctx: click.Context, param: click.Parameter, value: Any, *, instead: tuple[str, ...]) -> Any:
    """Refuse an argument that is missing together with its option; click reads what was given before what was not."""
    others = [_as_option(str(param.name)), *instead]
    given = [*map(ctx.params.get, others), *map(ctx.lookup_default, others)]
    if value is None and not any(given) and not ctx.resilient_parsing:
        flags = [f"--{name.replace('_', '-')}" for name in instead]
        also = f"Or give {' or '.join(flags)}." if flags else None
        raise click.MissingParameter(also, ctx=ctx, param=param)
    return value


def _parameters(row: type[Row], name: str, kind: Any) -> list[Option]:
    default, marks = _default(row, name), _marks(kind)
    made: list[Option] = []
    for told in marks:
        if isinstance(told, Arg):
            alone = len(marks) == 1
            settings: dict[str, Any] = {"required": default is MISSING and alone}
            settings |= {} if alone else {"callback": partial(_or_option, instead=told.instead)}
            base, within = _bare(kind)
            many = _is_many(kind)
            value = _click_type(get_args(base)[0] if many else base, within)
            value = str if value is TEXT else value  # what an empty argument means, its command says
            nargs = -1 if many else 1
            made.append(click.argument(name, metavar=told.metavar, nargs=nargs, type=value, **settings))
        elif len(marks) == 1:
            made.append(_option(told, name, kind, default))
        else:
            made.append(_option(told, name, kind, None, _as_option(name)))
    return made


def _option(told: Opt, name: str, kind: Any, default: Any, called: str = "") -> Option:
    base, within = _bare(kind)
    settings: dict[str, Any] = {"help": told.help, "metavar": told.metavar}
    if base is bool:
        settings |= {"is_flag": True, "flag_value": not default}
    elif _is_many(kind):
        value = _click_type(get_args(base)[0], within)
        settings |= {"multiple": True, "type": value}
        # A name or a path may have a comma of its own.
        settings |= {"cls": Listed} if isinstance(value, click.Choice | click.IntRange | click.FloatRange) else {}
    else:
        settings |= {"type": _click_type(base, within)}
    if default is MISSING:
        settings["required"] = True
    else:
        settings |= {"default": default, "show_default": not (default is None or default == () or base is bool)}
    return click.option(*_flags(name, told), called or name, **settings)


def _is_many(kind: Any) -> bool:
    """Whether it is a tuple of any length."""
    base, _ = _bare(kind)
    return get_origin(base) is tuple and get_args(base)[-1] is Ellipsis


def _bare(kind: Any) -> tuple[Any, Within]:
    """A type without marks and without None, and its range."""
    within = Within()
    while get_origin(kind) in (Annotated, Union, UnionType):
        if get_origin(kind) is Annotated:
            kind, *marks = get_args(kind)
            within = next((mark for mark in marks if isinstance(mark, Within)), within)
        else:
            (kind,) = (member for member in get_args(kind) if member is not NoneType)
    return kind, within


def _click_type(kind: Any, outer: Within) -> Any:
    """Click's type that says a field's range in the help and refuses what is outside."""
    base, own = _bare(kind)
    within = outer if own == Within() else own
    if get_origin(base) is tuple:
        return tuple(_click_type(member, within) for member in get_args(base))
    if get_origin(base) is Literal:
        return click.Choice([str(choice) for choice in get_args(base)])
    if base not in (int, float):
        return PATH if base is Path else TEXT
    if within.choices:
        return OneOf(within.choices)
    low, high = (
        open if closed is None else closed for open, closed in ((within.above, within.low), (within.below, within.high))
    )
    ends: dict[str, Any] = {"min": low, "max": high}
    ends |= {"min_open": within.above is not None, "max_open": within.below is not None}
    return (click.IntRange if base is int else Finite)(**ends)
