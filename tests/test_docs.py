"""What README, CONTRIBUTING and docs/ say exists: made pages, paths, links, commands, options, extras, versions."""

from __future__ import annotations

import ast
import json
import re
import shlex
import subprocess
import sys
import tomllib
from collections.abc import Iterator
from importlib.metadata import version
from pathlib import Path
from xml.etree import ElementTree

import click
import pytest
import yaml
from packaging.version import Version

from serve.bench.measure.stages import StagesData
from serve.options import ServeOptions
from zoo import __version__
from zoo.cli import cli
from zoo.options import option_fields
from zoo.results import read_results
from zoo.wording import plain_name, with_threads

ROOT = Path(__file__).parents[1]
PAGES = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted((ROOT / "docs").rglob("*.md"))]
PYPROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
PACKAGES = ("zoo", "train", "export", "serve")
page_by_page = pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))

# What commands and make leave behind, named in the pages, absent from a clone.
MADE_LATER = ("benchmarks/report.html", "benchmarks/report.json")


def read(page: Path) -> str:
    return page.read_text(encoding="utf-8")


def outside_blocks(page: Path) -> str:
    """A page without its fenced blocks, where other programs are shown."""
    return re.sub(r"^```.*?^```", "", read(page), flags=re.DOTALL | re.MULTILINE)


def test_what_is_made_from_the_code_is_up_to_date() -> None:
    command = [sys.executable, str(ROOT / "docs" / "generate.py"), "--check"]
    done = subprocess.run(command, capture_output=True, text=True, check=False, env={"PYTHONPATH": str(ROOT)})
    assert done.returncode == 0, done.stderr


def test_the_architecture_page_has_every_folder_and_file() -> None:
    page = read(ROOT / "docs" / "architecture.md")
    files = [path for package in PACKAGES for path in (ROOT / package).rglob("*.py")]
    for folder in {path.parent for path in files}:
        assert f"- `{folder.relative_to(ROOT)}/`: " in page
    for path in files:
        assert path.name == "__init__.py" or f"  - `{path.name}`: " in page
    assert page.count("\n  - `") == sum(path.name != "__init__.py" for path in files)


@page_by_page
def test_every_path_that_is_named_exists(page: Path) -> None:
    """Paths in backticks that begin with a folder of the repository, and modules of the four packages."""
    folders = "|".join(("docs", "tests", "benchmarks", "examples", r"\.ci", *PACKAGES))
    for path in re.findall(rf"`((?:{folders})/[\w./*-]*)`", outside_blocks(page)):
        assert list(ROOT.glob(path.rstrip("/"))) or path in MADE_LATER, path
    for module in re.findall(rf"\b(?:from |import |`)((?:{'|'.join(PACKAGES)})(?:\.\w+)+)", read(page)):
        assert is_module(module) or is_defined(*module.rpartition(".")[::2]), module


def is_module(name: str) -> bool:
    path = ROOT / name.replace(".", "/")
    return path.is_dir() or path.with_suffix(".py").is_file()


def is_defined(module: str, name: str) -> bool:
    path = (ROOT / module.replace(".", "/")).with_suffix(".py")
    return path.is_file() and re.search(rf"^(class|def) {name}\b|^{name}\b.* = ", read(path), re.MULTILINE) is not None


@page_by_page
def test_every_link_leads_somewhere(page: Path) -> None:
    for target in re.findall(r"\]\(([^)\s]+)\)", outside_blocks(page)):
        path, _, anchor = target.partition("#")
        if path.startswith(("http://", "https://")):
            continue
        file = (page.parent / path).resolve() if path else page
        assert file.exists(), target
        assert not anchor or anchor in set(anchors(file)), target


def anchors(page: Path) -> Iterator[str]:
    """The anchors that GitHub gives headings: small letters, hyphens, no other signs."""
    for heading in re.findall(r"^#+ (.*)$", outside_blocks(page), re.MULTILINE):
        yield re.sub(r"[^\w -]", "", heading.lower()).replace(" ", "-")


@page_by_page
def test_every_command_line_can_be_typed(page: Path) -> None:
    for line in console_lines(read(page)):
        for words in zoo_calls(line):
            parse(words)


@page_by_page
def test_every_command_in_a_sentence_exists(page: Path) -> None:
    """In backticks a command may be cut short: its name must exist, and its options."""
    for said in re.findall(r"`zoo ([a-z][^`\n]*)`", outside_blocks(page)):
        words = said.split()
        command, rest = find_command(words)
        known = {name for parameter in command.params for name in (*parameter.opts, *parameter.secondary_opts)}
        assert {word.partition("=")[0] for word in rest if re.match(r"--?[a-z]", word)} <= known | {"--help"}, said


def console_lines(text: str) -> Iterator[str]:
    """The commands of blocks, with a prompt before them: without it and remarks, each as one line."""
    for block in re.findall(r"^```(?:console|text)\n(.*?)^```", text, re.DOTALL | re.MULTILINE):
        for line in re.sub(r"\\\n\s*", "", block).splitlines():
            if line.startswith("$ "):
                yield line[2:]


def zoo_calls(line: str) -> Iterator[list[str]]:
    """The arguments of each call of `zoo` in a command line: before a pipe, after `-m` or torchrun's own options."""
    for command in re.split(r" [|;&]+ ", line):
        words = shlex.split(command, comments=True)
        if "zoo" in words and (words[0] == "zoo" or words[0] in ("torchrun", "python")):
            yield words[words.index("zoo") + 1 :]


def find_command(words: list[str]) -> tuple[click.Command, list[str]]:
    """The command that words begin with, and the words after its name.

    Raises:
        click.UsageError: there is none.
    """
    command: click.Command = cli
    rest = list(words)
    while isinstance(command, click.Group) and rest and not rest[0].startswith("-"):
        _, found, rest = command.resolve_command(click.Context(command), rest)
        assert found
        command = found
    return command, rest


def parse(words: list[str]) -> None:
    """Parse as click does, values of options included; nothing runs, and no path is looked for.

    Raises:
        click.UsageError: no such command or option, a value that an option does not take, an argument too many.
    """
    command, rest = find_command(words)
    context = click.Context(command)
    values, left_over, _ = command.make_parser(context).parse_args(rest)
    assert not left_over, (words, left_over)
    given = {name: value for name, value in values.items() if isinstance(value, str | list | tuple) and value}
    context.params |= given
    for parameter in command.params:
        value = given.get(parameter.name or "")
        is_given = value is not None
        assert is_given or not parameter.required, (words, parameter.name)
        if isinstance(parameter, click.Argument) and parameter.callback:
            parameter.callback(context, parameter, value)  # an argument that may be given as an option instead
        if is_given and not isinstance(parameter.type, click.Path):
            parameter.type_cast_value(context, value)


@pytest.mark.parametrize("line", ["zoo trian s", "zoo train s --epoch 3", "zoo train s --precision fp8", "zoo serve"])
def test_a_line_that_cannot_be_typed_is_noticed(line: str) -> None:
    (words,) = zoo_calls(line)
    with pytest.raises((click.UsageError, AssertionError)):
        parse(words)


@page_by_page
def test_every_extra_and_target_exists(page: Path) -> None:
    targets = re.findall(r"^([a-z-]+):", read(ROOT / "Makefile"), re.MULTILINE)
    for extras in re.findall(r"(?:zoo|'\.)\[([a-z,]+)\]", read(page)):
        assert set(extras.split(",")) <= PYPROJECT["project"]["optional-dependencies"].keys()
    commands = [line for line in console_lines(read(page)) if line.startswith("make ")]
    said = [*re.findall(r"`make ([a-z-]+)", outside_blocks(page)), *(line.split()[1] for line in commands)]
    assert set(said) <= set(targets)


@page_by_page
def test_every_variable_of_ours_is_read_somewhere(page: Path) -> None:
    sources = "".join(read(path) for package in PACKAGES for path in (ROOT / package).rglob("*.py"))
    # zoo/option_files.py reads one for every option of `zoo serve`; with nothing behind it, it stands for all of them.
    options = {"ZOO_SERVE_", *(f"ZOO_SERVE_{name.upper()}" for name in option_fields(ServeOptions))}
    told = set(re.findall(r"\bZOO_[A-Z_]+\b", read(page))) - options
    assert {name for name in told if f'"{name}"' not in sources} == set()


def test_what_the_makefile_names_exists() -> None:
    for path in re.findall(r"\b(?:tests|examples|benchmarks|docs)/[\w./]+", read(ROOT / "Makefile")):
        assert (ROOT / path).exists(), path


def test_every_format_is_on_its_page() -> None:
    pages = "".join(read(page) for page in PAGES)
    for record in (ROOT / "tests" / "golden").glob("formats*.json"):
        for name in json.loads(read(record)):
            described_elsewhere = name in ("<network>", "<recipe>", "<training stage>", "GET /metrics")
            assert described_elsewhere or f"made by make docs: format {name}" in pages, name


@pytest.fixture(scope="module")
def sayings() -> list[str]:
    """Every text of the four packages, with … where a value is put in."""
    texts = []
    for path in (path for package in PACKAGES for path in (ROOT / package).rglob("*.py")):
        for node in ast.walk(ast.parse(read(path))):
            if isinstance(node, ast.JoinedStr):
                parts = [part.value if isinstance(part, ast.Constant) else "…" for part in node.values]
                texts.append("".join(map(str, parts)))
            elif isinstance(node, ast.Constant) and isinstance(node.value, str):
                texts.append(node.value)
    return texts


MESSAGES = re.findall(r"^\| `([^`]+)` \|", read(ROOT / "docs" / "troubleshooting.md"), re.MULTILINE)


def is_said(message: str, sayings: list[str]) -> bool:
    """Whether a message, in which … is anything, is the whole of a text."""
    said = re.compile(".*".join(map(re.escape, message.split("…"))))
    return any(said.fullmatch(text) for text in sayings)


@pytest.mark.parametrize("message", MESSAGES)
def test_every_message_that_is_explained_exists(message: str, sayings: list[str]) -> None:
    assert len(message.replace("…", "")) > 15, "this could be any message"
    assert is_said(message, sayings)


def test_a_message_that_is_not_said_is_noticed(sayings: list[str]) -> None:
    assert len(MESSAGES) > 30
    assert is_said("… has no passport: … is not beside it.", sayings)
    assert not is_said("… has no passport, … is not beside it.", sayings)
    assert not is_said("… has no passport", sayings)


def test_every_page_is_in_the_index() -> None:
    index = read(ROOT / "docs" / "README.md")
    linked = {target.partition("#")[0] for target in re.findall(r"\]\(([^)]+)\)", index)}
    assert {page.name for page in (ROOT / "docs").glob("*.md")} - {"README.md"} <= linked


def test_the_readme_begins_with_a_picture_and_ten_lines_of_use() -> None:
    first_screen = read(ROOT / "README.md").partition("\n## ")[0]
    assert len(first_screen.splitlines()) <= 40
    assert "](docs/img/stages.svg)" in first_screen
    commands = list(console_lines(first_screen))
    assert [line.split()[:2] for line in commands[:2]] == [["make", "demo"], ["make", "test"]]
    assert len(commands[2:]) == 10
    assert all(line.startswith("zoo ") for line in commands[2:])
    assert "](docs/README.md)" in first_screen


def test_the_picture_of_the_stages_says_what_was_measured() -> None:
    """Every label lies inside, and says machine, engine, size, batch and n."""
    picture = ElementTree.parse(ROOT / "docs" / "img" / "stages.svg").getroot()
    found = read_results((ROOT / "benchmarks").glob("stages-s-*px-ort-cpu-b1-fp32-*.json"))
    result, data = max(
        ((one, StagesData.from_dict(one.data)) for one in found), key=lambda one: (one[1].image_size, one[0].device)
    )
    calls = [form.latency.n for row in data.rows for form in row.forms]
    labels = ["".join(text.itertext()) for text in picture.iter("{http://www.w3.org/2000/svg}text")]
    said = " ".join(labels)
    told = (
        plain_name(result.device),
        with_threads(data.threads),
        data.backend,
        f"{data.image_size} px, batch {data.batch_size}, {data.precision}",
        f"n = {min(calls):,} to {max(calls):,}",
        "log scale",
    )
    for fact in told:
        assert fact in said
    assert "← MBConv faster" in labels and "Fused faster →" in labels
    for row in data.rows:
        assert f"Stage {row.index}" in labels
        assert (row.advantage or row.winner) in labels
    width = float(picture.get("viewBox", "").split()[2])
    letters = {"tick": 6.5, "muted": 7.5, "strong": 8, "point": 8}  # widths of these texts' letters, generously
    for text in picture.iter("{http://www.w3.org/2000/svg}text"):
        size = letters.get(text.get("class", "").split()[0] if text.get("class") else "muted")
        if size and text.get("text-anchor", "start") == "start":
            assert float(text.get("x", "")) + size * len("".join(text.itertext())) <= width, "".join(text.itertext())
    assert "prefers-color-scheme: dark" in read(ROOT / "docs" / "img" / "stages.svg")


def test_every_committed_result_is_explained() -> None:
    told = re.findall(r"`([\w.…-]+)`", read(ROOT / "docs" / "benchmarks.md"))
    beginnings = tuple(name.removesuffix("…") for name in told if name.endswith(("…", ".jsonl", ".txt")))
    for path in (ROOT / "benchmarks").iterdir():
        assert path.suffix in (".py", "") or path.name.startswith(beginnings), path.name


def test_the_demo_that_is_shown_is_the_recorded_one() -> None:
    """But for what was left out and lines that are wrapped: every figure stands in benchmarks/demo.txt."""
    shown = re.search(
        r"```text\n(\$ zoo train s --plan.*?)^```", read(ROOT / "docs" / "demo.md"), re.DOTALL | re.MULTILINE
    )
    assert shown
    recorded = " ".join(read(ROOT / "benchmarks" / "demo.txt").split())
    for line in filter(str.strip, shown[1].replace("…\n", "\n").splitlines()):
        assert " ".join(line.split()) in recorded, line


def test_version_and_changelog_agree() -> None:
    """The version stands in one place; the newest heading of a release is it, unless something newer is unreleased."""
    assert PYPROJECT["tool"]["hatch"]["version"]["path"] == "zoo/__init__.py"
    assert "version" in PYPROJECT["project"]["dynamic"]
    assert version("zoo") == __version__
    changelog = read(ROOT / "CHANGELOG.md")
    headings = re.findall(r"^## \[(.+?)\]", changelog, re.MULTILINE)
    released = [Version(heading) for heading in headings if heading != "Unreleased"]
    unreleased = re.search(r"^## \[Unreleased\]\n(.*?)(^## |\Z)", changelog, re.DOTALL | re.MULTILINE)
    assert headings[0] == "Unreleased"
    assert unreleased
    assert released == sorted(released, reverse=True)
    if unreleased[1].strip():
        assert not released or Version(__version__) >= released[0]
    else:
        assert Version(__version__) == released[0]


def test_hooks_are_the_checks_of_make_lint() -> None:
    """All hooks are local, and each runs a line of `make lint`, on files or to mend them instead of to check."""
    (repository,) = yaml.safe_load(read(ROOT / ".pre-commit-config.yaml"))["repos"]
    assert repository["repo"] == "local"
    lint = re.search(r"^lint:.*\n((?:\t.*\n)+)", read(ROOT / "Makefile"), re.MULTILINE)
    assert lint
    checks = [re.sub(r"\$\(BIN\)/| --check \.| \.$", "", line).strip() for line in lint[1].splitlines()]
    hooks = [re.sub(r"^\.venv/bin/| --force-exclude", "", hook["entry"]) for hook in repository["hooks"]]
    assert sorted(hooks) == sorted(checks)
    assert all(hook["language"] == "system" for hook in repository["hooks"])


@pytest.mark.parametrize("page", sorted((ROOT / "docs" / "adr").glob("*.md")), ids=lambda page: page.stem)
def test_a_decision_is_one_page(page: Path) -> None:
    text = read(page)
    assert len(text.splitlines()) <= 70
    for heading in ("## Context", "## Decision", "## Consequences"):
        assert heading in text
    assert any(f"adr/{page.name}" in read(other) for other in PAGES)
