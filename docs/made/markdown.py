"""Owns Markdown as text: tables, and the blocks of a page that are made anew while the rest of it stays."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping, Sequence

# A maker gets the rest of its block's name and the block as it is, and returns the block as it should be.
Maker = Callable[[str, str], str]

BLOCK = re.compile(r"(<!-- made by make docs: ([^\n]+) -->\n)(.*?)(<!-- end -->)", re.DOTALL)
CELL_BORDER = re.compile(r"(?<!\\)\|")


class StaleError(Exception):
    """A page asks for something that cannot be made, or lacks words that a person must write."""


def remake(page: str, makers: Mapping[str, Maker], name: str) -> str:
    """Make every block of a page anew.

    Raises:
        StaleError: a block that nothing makes; says the page's `name` too.
    """

    def replaced(match: re.Match[str]) -> str:
        start, block, body, end = match.groups()
        kind, _, rest = block.partition(" ")
        if kind not in makers:
            raise StaleError(f"{name} has a block {kind!r}, which docs/generate.py does not make.")
        try:
            return f"{start}{makers[kind](rest, body)}{end}"
        except (LookupError, StaleError) as error:
            raise StaleError(f"{name}, block {block}: {error}") from error

    return BLOCK.sub(replaced, page)


def table(head: Sequence[str], rows: Iterable[Sequence[str]], *, right: Sequence[int] = ()) -> str:
    """A table; the columns whose numbers are in `right`, from 0, are flush right."""
    lines = [head, ["---:" if column in right else "---" for column in range(len(head))]]
    lines += [[cell.replace("|", "\\|") for cell in row] for row in rows]
    return "".join("|" + "".join(f" {cell} |" if cell else " |" for cell in line) + "\n" for line in lines)


def table_with_words(head: Sequence[str], rows: Iterable[Sequence[str]], body: str, *, optional: bool = False) -> str:
    """A table whose last column is a person's: each row keeps the words it had in the `body` before.

    Raises:
        StaleError: a row has no words yet, unless they are `optional`.
    """
    kept = {line[0]: line[-1] for line in cells(body)}
    rows = [[*row, kept.get(row[0], "")] for row in rows]
    silent = [row[0] for row in rows if not row[-1]]
    if silent and not optional:
        raise StaleError(
            f"write into the last column what these are: {', '.join(silent)}. "
            "Add the lines yourself, such as `| NAME | | WORDS |`, then run `make docs`."
        )
    return table(head, rows)


def cells(body: str) -> list[list[str]]:
    """The cells of a table's lines, as they were before `|` was escaped."""
    lines = (line for line in body.splitlines() if line.startswith("|"))
    return [[cell.strip().replace("\\|", "|") for cell in CELL_BORDER.split(line)[1:-1]] for line in lines]


def code(text: object) -> str:
    """`text`."""
    return f"`{text}`"
