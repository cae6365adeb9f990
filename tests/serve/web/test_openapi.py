"""The description of the routes: complete, valid, and true of what a real server answers."""

from __future__ import annotations

from typing import Any

import jsonschema
import pytest

from serve.web.openapi import SCHEMAS, describe_routes


@pytest.fixture(scope="module")
def described(server: Any) -> dict[str, Any]:
    found: dict[str, Any] = server.client.get("/openapi.json").json()
    return found


def test_every_route_is_described_and_none_besides(server: Any, described: dict[str, Any]) -> None:
    routes = {
        (route.path.replace("{number:int}", "{number}"), method.lower())
        for route in server.server.config.app.routes
        for method in route.methods - {"HEAD"}
    }
    assert {(path, method) for path, methods in described["paths"].items() for method in methods} == routes


def test_every_reference_and_parameter_is_there(described: dict[str, Any]) -> None:
    names = set()

    def visit(part: Any) -> None:
        if isinstance(part, dict):
            names.update([part["$ref"].rsplit("/", 1)[1]] if "$ref" in part else [])
            for inner in part.values():
                visit(inner)
        if isinstance(part, list):
            for inner in part:
                visit(inner)

    visit(described)
    assert names == set(SCHEMAS)
    for schema in SCHEMAS.values():
        jsonschema.Draft202012Validator.check_schema(schema)
    ids = [one["operationId"] for methods in described["paths"].values() for one in methods.values()]
    assert len(set(ids)) == len(ids)


def test_what_a_server_answers_is_what_is_described(server: Any, fake: Any, described: dict[str, Any]) -> None:
    asked = 0
    for path, methods in described["paths"].items():
        for method, operation in methods.items():
            url = path.replace("{model}", "fake").replace("{version}", "1").replace("{number}", "0")
            url = url.replace("{region}", "a")
            body = fake.png(3) if "image/*" in operation.get("requestBody", {}).get("content", {}) else None
            headers = {"Content-Type": "image/png"} if body else {}
            reply = server.client.request(method, url, content=body, headers=headers)
            told = operation["responses"][str(reply.status_code)]
            media_type = reply.headers.get("content-type", "").partition(";")[0]
            assert (media_type in told["content"]) if "content" in told else not reply.content, url
            if media_type == "application/json" and "schema" in told["content"][media_type]:
                schema = told["content"][media_type]["schema"] | {"components": described["components"]}
                jsonschema.Draft202012Validator(schema).validate(reply.json())
                asked += 1
    assert asked > 15


def test_with_keys_it_says_how_they_are_sent() -> None:
    assert "security" not in describe_routes(needs_key=False)
    described = describe_routes(needs_key=True)
    assert set(described["components"]["securitySchemes"]) == {"bearer", "key"}
    assert "401" in described["paths"]["/info"]["get"]["responses"]


def test_its_page_needs_nothing_from_elsewhere(server: Any) -> None:
    reply = server.client.get("/docs")
    assert "default-src 'none'" in reply.headers["content-security-policy"]
    assert "http" not in reply.text.replace("location.href", "")
