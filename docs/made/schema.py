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
from zoo.model.spec import COLOR_ORDERS
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


def _of_planes(order: str, count: int) -> Schema:
    """What `Preprocessing` checks of three fields together: a value of each plane."""
    values = {"minItems": count, "maxItems": count}
    return {"properties": {"color_order": {"const": order}, "mean": values, "std": values}}


def of_row(row: type[Row], rows: dict[str, Schema]) -> Schema:
    """An object; rows within it go into `rows` by their names."""
    kinds = field_types(row)
    also = {name: _of_property(row, name) for name in row.written_too if name not in kinds}
    schema: Schema = {
        "type": "object",
        "description": " ".join((row.__doc__ or "").split("\n\n")[0].split()),
        "properties": also | {name: of(kind, rows) for name, kind in kinds.items()},
        "required": [
            field.name for field in fields(row) if field.default is MISSING and field.default_factory is MISSING
        ],
    }
    return schema | ({"additionalProperties": False} if row in CLOSED else {})


def _of_property(row: type[Row], name: str) -> Schema:
    """What is written beside the fields: a property has a type, a plain attribute that of its value."""
    found = getattr(row, name)
    kind = get_type_hints(found.fget)["return"] if isinstance(found, property) else type(found)
    return {"type": TYPES[kind]}


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
        if kind.__name__ not in rows:
            rows[kind.__name__] = {}  # a row may hold itself
            rows[kind.__name__] = of_row(kind, rows)
        return {"$ref": f"#/$defs/{kind.__name__}"}
    return {"type": TYPES[kind]}


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
