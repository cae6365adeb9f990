"""Owns the table of other projects in docs/weights.md: their networks, padding and batch-norm epsilon."""

from __future__ import annotations

import re
from collections.abc import Iterable
from itertools import groupby

from made.markdown import code, table_with_words
from zoo.weights.origins import BATCH_NORM_EPS, ORIGINS, TARGETS, Origin


def origins(rest: str, body: str) -> str:
    """One line a project; what its weights expect of a picture is in words."""
    rows = [
        [code(row.id), "in and out" if row.id in TARGETS else "in", ids(row.networks), row.padding, epsilon(row)]
        for row in ORIGINS.values()
    ]
    return table_with_words(["project", "", "networks", "padding", "batch-norm ε", "preprocessing"], rows, body)


def epsilon(row: Origin) -> str:
    """“1e-3; `v1-b0` … `v1-b4` 1e-5”."""
    values = {value: [id for id in row.networks if row.eps_of(id) == value] for value in map(row.eps_of, row.networks)}
    others = [f"{ids(which)} {short(value)}" for value, which in values.items() if value != BATCH_NORM_EPS]
    return "; ".join([short(BATCH_NORM_EPS), *others])


def short(value: float) -> str:
    """0.001 → “1e-3”."""
    mantissa, _, exponent = f"{value:e}".partition("e")
    return f"{float(mantissa):g}e{int(exponent)}"


def ids(names: Iterable[str]) -> str:
    """Names, runs of numbers as their ends: “`s` `m` `b0` … `b3`”."""
    said = []
    for stem, group in groupby(names, key=lambda name: re.sub(r"\d+$", "", name)):
        members = list(group)
        numbers = [int(name.removeprefix(stem) or -1) for name in members]
        is_run = len(members) > 2 and numbers == list(range(numbers[0], numbers[0] + len(members)))
        said.append(f"{code(members[0])} … {code(members[-1])}" if is_run else " ".join(map(code, members)))
    return " ".join(said)
