"""Owns the tables of a row's fields: what each may hold and has by default; what it means is the page's own words."""

from __future__ import annotations

from dataclasses import MISSING
from dataclasses import fields as fields_of
from typing import Any

from made.markdown import code, table_with_words
from train.progressive.recipe import Recipe, TrainingStage
from zoo.model.space import Reward, Space, StageSpace
from zoo.model.spec import Preprocessing, Stage, Variant
from zoo.rows import Row, expects, field_types

ROWS: dict[str, type[Row]] = {
    "recipe": Recipe,
    "training-stage": TrainingStage,
    "network": Variant,
    "network-stage": Stage,
    "preprocessing": Preprocessing,
    "space": Space,
    "space-stage": StageSpace,
    "reward": Reward,
}


def fields(rest: str, body: str) -> str:
    """`fields recipe -name -stages`: a line for each field of that row, but for those with a minus."""
    name, *left_out = rest.split()
    row = ROWS[name]
    defaults = {field.name: field.default for field in fields_of(row)}
    rows = [
        [code(field), said(expects(kind)), default(defaults[field])]
        for field, kind in field_types(row).items()
        if f"-{field}" not in left_out
    ]
    return table_with_words(["field", "may be", "by default", "what it is"], rows, body)


def said(words: str) -> str:
    """A range in words, without “a” before it: in a table it is the only thing in its cell."""
    return words.removeprefix("a ").replace("True", "true")


def default(value: Any) -> str:
    """A default as it is written in a row file or after --set; nothing where there is none."""
    if value is MISSING:
        return ""
    if isinstance(value, tuple):
        return ", ".join(map(default, value))
    if isinstance(value, bool) or value is None:
        return str(value).lower()
    return f"{value:.4g}" if isinstance(value, float) else str(value)
