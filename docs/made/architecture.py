"""Owns the map of the tree in docs/architecture.md: every folder and file with the first sentence of its docstring."""

from __future__ import annotations

import ast
import re
import tomllib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from made.markdown import StaleError, cells, code, table
from zoo.wording import joined

ROOT = Path(__file__).parents[2]


def settings() -> dict[str, Any]:
    """pyproject.toml."""
    return tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))


def packages() -> list[str]:
    """The packages that import-linter watches."""
    return list(settings()["tool"]["importlinter"]["root_packages"])


def tree(rest: str, body: str) -> str:
    """Every folder of the packages, and under it its files."""
    return "".join(f"\n### `{package}/`\n\n{''.join(lines(ROOT / package))}" for package in packages()) + "\n"


def lines(folder: Path) -> Iterator[str]:
    """A folder's line, its files', then those of the folders in it."""
    yield f"- {code(f'{folder.relative_to(ROOT)}/')}: {docstring(folder / '__init__.py')}\n"
    for path in sorted(folder.glob("*.py")):
        if path.name != "__init__.py":
            yield f"  - {code(path.name)}: {docstring(path)}\n"
    for inner in sorted(path.parent for path in folder.glob("*/__init__.py")):
        yield from lines(inner)


def docstring(path: Path) -> str:
    """The first sentence of a module's docstring, without the “Owns” that all of them begin with.

    Raises:
        StaleError: there is none.
    """
    if not path.is_file():
        raise StaleError(f"{path.relative_to(ROOT)} is missing: its docstring says what the folder is for")
    return re.sub(r"^Owns ", "", first_sentence(ast.parse(path.read_text(encoding="utf-8"))))


def first_sentence(module: ast.Module) -> str:
    """Up to the first full stop that ends a sentence, or the end of the first paragraph."""
    paragraph = " ".join((ast.get_docstring(module) or "").split("\n\n")[0].split())
    return re.split(r"(?<=[.!?]) (?=[A-Z])", paragraph)[0]


def imports(rest: str, body: str) -> str:
    """Which package may import which."""
    allowed = may_import()
    return "".join(
        f"- {code(package)} imports {joined(map(code, allowed[package])) or 'none of the others'}.\n"
        for package in packages()
    )


def places(rest: str, body: str) -> str:
    """The table's own lines with the file of each name in the second column; a new line is `| `NAME` | | WORDS |`.

    Raises:
        StaleError: a name that no file of the packages defines at its top level, or several do.
    """
    lines = [line for line in cells(body) if line[0].startswith("`")]
    return table(["name", "file", ""], [[name, code(place_of(name.strip("`"))), words] for name, _, words in lines])


def place_of(name: str) -> str:
    """The one file that defines a class, a function or a constant."""
    definition = re.compile(rf"^(class|def) {name}\b|^{name}\b[^=\n]* = ", re.MULTILINE)
    files = [path for package in packages() for path in sorted((ROOT / package).rglob("*.py"))]
    found = [str(path.relative_to(ROOT)) for path in files if definition.search(path.read_text(encoding="utf-8"))]
    if len(found) != 1:
        raise StaleError(f"{name} is defined in {joined(found) or 'no file'}, not in one")
    return found[0]


def may_import() -> dict[str, list[str]]:
    """{package: those it may import}: all that no contract of import-linter forbids."""
    forbidden = {
        (source, target)
        for contract in settings()["tool"]["importlinter"]["contracts"]
        if contract["type"] == "forbidden"
        for source in contract["source_modules"]
        for target in contract["forbidden_modules"]
    }
    names = packages()
    return {one: [other for other in names if other != one and (one, other) not in forbidden] for one in names}


def layers() -> dict[str, list[list[str]]]:
    """{package or folder: its layers from the highest, each the rooms that stand side by side}."""
    return {
        container: [[room.strip(" ()") for room in re.split(r"[|:]", layer)] for layer in contract["layers"]]
        for contract in settings()["tool"]["importlinter"]["contracts"]
        if contract["type"] == "layers"
        for container in contract["containers"]
    }
