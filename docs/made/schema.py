"""Owns JSON Schemas of rows: what a field may hold, as its type says, for those who check a file in other languages."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import MISSING, fields
from pathlib import Path
from types import NoneType, UnionType
from typing import Annotated, Any, Literal, Union, get_args, get_origin, get_type_hints

from export.contract import Contract
from export.passport import FORMAT, Passport
from serve.bench.kind import data_row, find_kinds
from zoo.model.spec import COLOR_ORDERS
from zoo.results import Result, Subject
from zoo.rows import Ascending, Matching, Row, Some, Within, field_types

DRAFT = "https://json-schema.org/draft/2020-12/schema"
TYPES = {int: "integer", float: "number", bool: "boolean", str: "string", NoneType: "null", Path: "string"}
# Rows of which a reader refuses fields that it does not know; into the others later versions may add some.
CLOSED = (Contract,)

Schema = dict[str, Any]


def passport() -> str:
    """docs/passport.schema.json."""
    rows: dict[str, Schema] = {}
    schema = of_row(Passport, rows)
    schema["properties"]["format"] = {"const": FORMAT}
    schema["required"] = ["format", *schema["required"]]
    rows["Preprocessing"]["anyOf"] = [_of_planes(order, count) for count, order in COLOR_ORDERS.items()]
    head = {"$schema": DRAFT, "title": "The passport that zoo export writes beside its artifacts"}
    return json.dumps(head | schema | {"$defs": rows}, indent=2, ensure_ascii=False) + "\n"


def result() -> str:
    """docs/result.schema.json: what is common to all results, and the data of every kind."""
    rows: dict[str, Schema] = {}
    schema = of_row(Result, rows)
    kinds = find_kinds()
    schema["properties"] |= {"kind": {"enum": list(kinds)}, "environment": _environment()}
    schema["properties"]["settings"] = {
        "type": "object",
        "properties": {"subjects": {"type": "array", "items": of(Subject, rows)}},
        "additionalProperties": True,
    }
    schema["required"] = ["format", *schema["required"]]
    schema["allOf"] = [
        {
            "if": {"properties": {"kind": {"const": name}}},
            "then": {"properties": {"data": of(data_row(kind), rows)}},
        }
        for name, kind in kinds.items()
    ]
    head = {"$schema": DRAFT, "title": "A result of zoo bench, or of a script of benchmarks/"}
    return json.dumps(head | schema | {"$defs": rows}, indent=2, ensure_ascii=False) + "\n"


def _environment() -> Schema:
    """What `zoo.results.measured_on` returns; files of older versions have neither commit nor command."""
    texts = {key: {"type": "string"} for key in ("device", "time", "python", "system", "processor")}
    perhaps = {key: {"type": ["string", "null"]} for key in ("commit", "command", "cuda_driver")}
    packages = {"type": "object", "additionalProperties": {"type": "string"}}
    return {
        "type": "object",
        "properties": texts | perhaps | {"packages": packages, "cores": {"type": ["integer", "null"]}},
        "required": [*texts, "packages"],
    }


def _of_planes(order: str, count: int) -> Schema:
    """What `Preprocessing` checks of three fields together: a value of each plane."""
    values = {"minItems": count, "maxItems": count}
    return {"properties": {"color_order": {"const": order}, "mean": values, "std": values}}


def of_row(row: type[Row], rows: dict[str, Schema]) -> Schema:
    """An object; rows within it go into `rows` by their names."""
    kinds = field_types(row)
    also = {name: _of_property(row, name, rows) for name in row.written_too if name not in kinds}
    schema: Schema = {
        "type": "object",
        "description": _said(row),
        "properties": also | {name: of(kind, rows) for name, kind in kinds.items()},
        "required": [
            field.name for field in fields(row) if field.default is MISSING and field.default_factory is MISSING
        ],
    }
    return schema | ({"additionalProperties": False} if row in CLOSED else {})


def _said(row: type[Row]) -> str:
    """The first paragraph of what is said of a row."""
    return " ".join((row.__doc__ or "").split("\n\n")[0].split())


def _of_property(row: type[Row], name: str, rows: dict[str, Schema]) -> Any:
    """What is written beside the fields: a property has a type, a plain attribute that of its value."""
    found = getattr(row, name)
    return of(
        get_type_hints(found.fget, include_extras=True)["return"] if isinstance(found, property) else type(found), rows
    )


def of(kind: Any, rows: dict[str, Schema]) -> Any:
    """What a field of a type may hold."""
    if get_origin(kind) is Annotated:
        base, *marks = get_args(kind)
        schema = of(base, rows)
        for mark in marks:
            schema = _marked(schema, mark)
        return schema
    origin, members = get_origin(kind), get_args(kind)
    if origin in (Union, UnionType):
        return {"anyOf": [of(member, rows) for member in members]}
    if origin is Literal:
        return {"enum": list(members)}
    if origin is tuple:
        return _of_tuple(members, rows)
    if kind is Any:
        return True
    if isinstance(origin, type) and issubclass(origin, Mapping):
        return {"type": "object", "additionalProperties": of(members[1], rows)}
    if isinstance(kind, type) and issubclass(kind, Row):
        return _of_row_within(kind, rows)
    return {"type": TYPES[kind]}


def _of_row_within(row: type[Row], rows: dict[str, Schema]) -> Schema:
    """A reference to a row; of two rows of one name the second has its module's before it."""
    name = row.__name__
    if name in rows and rows[name].get("description", _said(row)) != _said(row):
        name = f"{row.__module__.rpartition('.')[2]}.{name}"
    if name not in rows:
        rows[name] = {}  # a row may hold itself
        rows[name] = of_row(row, rows)
    return {"$ref": f"#/$defs/{name}"}


def _of_tuple(members: tuple[Any, ...], rows: dict[str, Schema]) -> Schema:
    if members[-1] is Ellipsis:
        return {"type": "array", "items": of(members[0], rows)}
    each = [of(member, rows) for member in members]
    return {"type": "array", "prefixItems": each, "items": False, "minItems": len(each)}


def _marked(schema: Schema, mark: Any) -> Schema:
    """With what a mark adds; a range of a list is one of its members."""
    if isinstance(mark, Within) and schema.get("type") == "array":
        held = {name: schema[name] for name in ("items", "prefixItems") if name in schema}
        bounded = {
            name: [_marked(member, mark) for member in value]
            if name == "prefixItems"
            else value and _marked(value, mark)
            for name, value in held.items()
        }
        return schema | bounded
    if isinstance(mark, Within):
        ends = {
            "minimum": mark.low,
            "maximum": mark.high,
            "exclusiveMinimum": mark.above,
            "exclusiveMaximum": mark.below,
            "enum": list(mark.choices) or None,
        }
        return schema | {name: end for name, end in ends.items() if end is not None}
    if isinstance(mark, Some):
        return schema | ({"pattern": r"\S"} if schema["type"] == "string" else {"minItems": 1})
    if isinstance(mark, Matching):
        return schema | {"pattern": f"^(?:{mark.pattern})$"}
    if isinstance(mark, Ascending):
        return schema | {"description": "The smaller one first."}
    return schema
