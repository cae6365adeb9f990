"""docs/result.schema.json: every result that is kept or made keeps to it."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from serve.bench.kind import data_row, find_kinds
from zoo.results import Result
from zoo.rows import field_types

jsonschema = pytest.importorskip("jsonschema")

ROOT = Path(__file__).parents[3]
KEPT = sorted((ROOT / "benchmarks").glob("*.json"))
SCHEMA = json.loads((ROOT / "docs" / "result.schema.json").read_text(encoding="utf-8"))


@pytest.fixture(scope="module")
def validator() -> Any:
    jsonschema.Draft202012Validator.check_schema(SCHEMA)
    return jsonschema.Draft202012Validator(SCHEMA)


@pytest.mark.parametrize("path", KEPT, ids=lambda path: path.stem[:40])
def test_every_kept_result_keeps_to_the_schema(path: Path, validator: Any) -> None:
    validator.validate(json.loads(path.read_text(encoding="utf-8")))


def test_there_are_kept_results_of_several_kinds() -> None:
    assert len({json.loads(path.read_text())["kind"] for path in KEPT}) > 5


def test_results_as_they_are_made_keep_to_it(
    latency_result: Callable[..., Result], stages_result: Callable[..., Result], validator: Any
) -> None:
    for made in (latency_result(), stages_result()):
        fields = json.loads(json.dumps(made.to_dict()))
        validator.validate(fields)
        assert {"commit", "command"} <= fields["environment"].keys()


@pytest.mark.parametrize(
    ("change", "where"),
    [
        ({"kind": "poetry"}, "kind"),
        ({"format": "zoo-result-9"}, "format"),
        ({"environment": {"device": "NVIDIA H100"}}, "environment"),
        ({"data": {"artifacts": []}}, "data"),
    ],
)
def test_what_a_reader_refuses_it_refuses(
    change: dict[str, Any], where: str, latency_result: Callable[..., Result], validator: Any
) -> None:
    errors = list(validator.iter_errors(json.loads(json.dumps(latency_result().to_dict() | change))))
    assert any(where in error.absolute_path for error in errors)


def test_every_kind_has_a_row_that_the_schema_describes() -> None:
    for kind in find_kinds().values():
        (of_kind,) = (one["then"] for one in SCHEMA["allOf"] if one["if"]["properties"]["kind"]["const"] == kind.name)
        name = of_kind["properties"]["data"]["$ref"].removeprefix("#/$defs/")
        assert SCHEMA["$defs"][name]["properties"].keys() >= field_types(data_row(kind)).keys()
