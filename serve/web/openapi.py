"""Owns the description of every route in OpenAPI 3.1, and the page that shows it; it answers nothing else.

A test holds it to the application's routes, another sends what it allows and checks what comes back.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from serve.core.failures import FAILURES
from serve.core.waiting import LAST_PRIORITY
from serve.protocol.datatypes import BYTES, DTYPES
from zoo import __version__

Schema = Mapping[str, Any]

_TEXT: Schema = {"type": "string"}
_NUMBER: Schema = {"type": "number"}
_WHOLE: Schema = {"type": "integer", "minimum": 0}
_OBJECT: Schema = {"type": "object"}
_SHAPE: Schema = {"type": "array", "items": {"type": "integer"}, "maxItems": 8}
_NAME: Schema = {"type": "string", "pattern": "^[A-Za-z0-9_-][A-Za-z0-9._-]{0,127}$"}


def _ref(name: str) -> Schema:
    return {"$ref": f"#/components/schemas/{name}"}


def _list(items: Schema) -> Schema:
    return {"type": "array", "items": items}


def _object(required: Mapping[str, Schema], optional: Mapping[str, Schema] | None = None) -> Schema:
    return {"type": "object", "required": list(required), "properties": {**required, **(optional or {})}}


SCHEMAS: Mapping[str, Schema] = {
    "Error": _object({"error": _TEXT}, {"hint": _TEXT}),
    "Prediction": _object({"class": _TEXT, "index": _WHOLE, "score": _NUMBER}, {"threshold": _NUMBER}),
    "Picture": _object({"name": _TEXT}, {"predictions": _list(_ref("Prediction")), "error": _TEXT, "hint": _TEXT}),
    "Answer": _object(
        {
            "model": _TEXT,
            "timings_ms": _object({stage: _NUMBER for stage in ("decode", "queue", "compute", "encode", "total")}),
            "batch_size": _WHOLE,
        },
        {
            "predictions": _list(_ref("Prediction")),
            "pictures": _list(_ref("Picture")),
            "task": {"enum": ["multi-label"]},
        },
    ),
    "Status": _object({"status": {"enum": ["ok", "ready"]}}),
    "Info": _object({"model": _TEXT, "classes": _list(_TEXT), "image_size": _WHOLE, "preprocessing": _OBJECT}),
    "Example": _object({"url": _TEXT, "title": _TEXT, "class": {"type": ["string", "null"]}}),
    "ServerMetadata": _object({"name": _TEXT, "version": _TEXT, "extensions": _list(_TEXT)}),
    "TensorMetadata": _object({"name": _TEXT, "datatype": {"enum": [*DTYPES, BYTES]}, "shape": _SHAPE}),
    "ModelMetadata": _object(
        {
            "name": _TEXT,
            "versions": _list(_TEXT),
            "platform": _TEXT,
            "inputs": _list(_ref("TensorMetadata")),
            "outputs": _list(_ref("TensorMetadata")),
        }
    ),
    "ModelConfig": _object(
        {"name": _TEXT, "max_batch_size": _WHOLE, "input": _list(_OBJECT), "output": _list(_OBJECT)}
    ),
    "ModelStats": _object(
        {"model_stats": _list(_object({"name": _TEXT, "version": _TEXT, "inference_count": _WHOLE}))}
    ),
    "InferRequest": _object(
        {
            "inputs": _list(
                _object(
                    {"name": _TEXT, "datatype": {"enum": [*DTYPES, BYTES]}, "shape": _SHAPE},
                    {"data": {"type": "array"}, "parameters": _OBJECT},
                )
            )
        },
        {"id": _TEXT, "parameters": _OBJECT, "outputs": _list(_object({"name": _TEXT}, {"parameters": _OBJECT}))},
    ),
    "InferAnswer": _object(
        {
            "model_name": _TEXT,
            "model_version": _TEXT,
            "outputs": _list(
                _object(
                    {"name": _TEXT, "datatype": {"enum": [*DTYPES, BYTES]}, "shape": _SHAPE},
                    {"data": {"type": "array"}, "parameters": _OBJECT},
                )
            ),
        },
        {"id": _TEXT},
    ),
    "Index": _list(
        _object({"name": _TEXT, "version": _TEXT, "state": {"enum": ["READY", "UNAVAILABLE"]}, "reason": _TEXT})
    ),
    "Regions": _list(_object({"name": _TEXT, "key": _TEXT, "offset": _WHOLE, "byte_size": _WHOLE})),
}


@dataclass(frozen=True, kw_only=True)
class Operation:
    """One route. `answers` is a schema's name or a media type, None of no body; `takes` are schemas by media type."""

    path: str
    summary: str
    answers: str | None = None
    method: str = "get"
    tag: str = "pictures"
    takes: Mapping[str, Schema] = field(default_factory=dict)
    query: Mapping[str, Schema] = field(default_factory=dict)
    statuses: tuple[int, ...] = ()


_PICTURE: Schema = {"type": "string", "contentMediaType": "application/octet-stream"}
_BINARY = "application/octet-stream"
_MODEL = {"model": _NAME}
_SMALL = {"application/json": _OBJECT}
# Whatever may be wrong with a request that is answered by a model.
_OF_REQUESTS = tuple(sorted({failure.status for failure in FAILURES} - {401, 403, 404, 499}))


def _of_model(operation: Operation) -> tuple[Operation, ...]:
    """An operation of a model, and of one version of it; its path is what stands behind their names."""
    either = replace(operation, tag="open inference protocol", statuses=(404, *operation.statuses))
    return tuple(
        replace(either, path=f"/v2/models/{{model}}{version}{operation.path}")
        for version in ("", "/versions/{version}")
    )


OPERATIONS: tuple[Operation, ...] = (
    Operation(
        path="/predict",
        method="post",
        summary="Classify a picture, or the pictures of a form.",
        answers="Answer",
        takes={"image/*": _PICTURE, _BINARY: _PICTURE},
        query={
            "top": {"type": "integer", "minimum": 1, "maximum": 999_999_999},
            "timeout_ms": {"type": "number", "minimum": 0},
            "priority": {"type": "integer", "minimum": 0, "maximum": LAST_PRIORITY},
            **_MODEL,
        },
        statuses=(404, *_OF_REQUESTS),
    ),
    Operation(path="/", summary="The page.", answers="text/html"),
    Operation(path="/info", summary="Contract, engine and limits.", answers="Info", query=_MODEL, statuses=(404,)),
    Operation(path="/examples", summary="Pictures to try.", answers="Example[]", query=_MODEL, statuses=(404,)),
    Operation(
        path="/examples/{number}.png", summary="One of them.", answers="image/png", query=_MODEL, statuses=(404,)
    ),
    Operation(path="/healthz", tag="server", summary="Whether the process answers.", answers="Status", statuses=(503,)),
    Operation(
        path="/readyz", tag="server", summary="Whether a picture is taken now.", answers="Status", statuses=(503,)
    ),
    Operation(path="/metrics", tag="server", summary="Prometheus' text format.", answers="text/plain"),
    Operation(path="/openapi.json", tag="server", summary="This description.", answers="application/json"),
    Operation(path="/docs", tag="server", summary="It as a page.", answers="text/html"),
    Operation(
        path="/v2", tag="open inference protocol", summary="Name, version, extensions.", answers="ServerMetadata"
    ),
    Operation(path="/v2/health/live", tag="open inference protocol", summary="Whether the process answers."),
    Operation(
        path="/v2/health/ready", tag="open inference protocol", summary="Whether every model is ready.", statuses=(400,)
    ),
    *_of_model(Operation(path="", summary="What a model takes and answers.", answers="ModelMetadata")),
    *_of_model(Operation(path="/ready", summary="Whether it would take a picture now.", statuses=(400,))),
    *_of_model(Operation(path="/config", summary="Its configuration, as Triton has it.", answers="ModelConfig")),
    *_of_model(Operation(path="/stats", summary="Its statistics.", answers="ModelStats")),
    Operation(
        path="/v2/models/stats",
        tag="open inference protocol",
        summary="The statistics of all models.",
        answers="ModelStats",
    ),
    *_of_model(
        Operation(
            path="/infer",
            method="post",
            summary="Answer tensors, or pictures' files, with tensors.",
            answers="InferAnswer",
            takes={"application/json": _ref("InferRequest"), _BINARY: _PICTURE, "image/*": _PICTURE},
            statuses=(403, *_OF_REQUESTS),
        )
    ),
    Operation(
        path="/v2/repository/index",
        method="post",
        tag="models",
        summary="Every version that is, or could be, at work.",
        answers="Index",
        takes=_SMALL,
        statuses=(400, 408, 413),
    ),
    *(
        Operation(
            path=f"/v2/repository/models/{{model}}/{what}",
            method="post",
            tag="models",
            summary=summary,
            takes=_SMALL,
            statuses=(400, 403, 404, 408, 413, 500),
        )
        for what, summary in (
            ("load", "Load what its folder has now, and swap."),
            ("unload", "Take it from work when its last request is answered."),
        )
    ),
    *(
        Operation(
            path=f"/v2/systemsharedmemory{region}/status",
            tag="shared memory",
            summary="What is registered.",
            answers="Regions",
            statuses=(400, 403),
        )
        for region in ("", "/region/{region}")
    ),
    Operation(
        path="/v2/cudasharedmemory/status", tag="shared memory", summary="Of CUDA: never any.", answers="Regions"
    ),
    Operation(
        path="/v2/cudasharedmemory/unregister",
        method="post",
        tag="shared memory",
        summary="Forget all of none.",
        takes=_SMALL,
        statuses=(400, 408, 413),
    ),
    *(
        Operation(
            path=f"/v2/systemsharedmemory{what}",
            method="post",
            tag="shared memory",
            summary=summary,
            takes=_SMALL,
            statuses=(400, 403, 408, 413),
        )
        for what, summary in (
            ("/region/{region}/register", "Open a client's memory under a name."),
            ("/region/{region}/unregister", "Forget it."),
            ("/unregister", "Forget all."),
        )
    ),
)
PATH_PARAMETERS: Mapping[str, Schema] = {
    "model": _NAME,
    "version": {"type": "string", "pattern": "^[1-9][0-9]{0,17}$"},
    "number": {"type": "integer", "minimum": 0, "maximum": 9},
    "region": {"type": "string", "minLength": 1, "maxLength": 255, "pattern": "^[A-Za-z0-9._-]+$"},
}


def describe_routes(*, needs_key: bool) -> dict[str, Any]:
    """The whole description; `needs_key` says how a key is sent."""
    paths: dict[str, dict[str, Any]] = {}
    for operation in OPERATIONS:
        paths.setdefault(operation.path, {})[operation.method] = _described(operation, needs_key=needs_key)
    described: dict[str, Any] = {
        "openapi": "3.1.0",
        "info": {"title": "zoo", "version": __version__, "license": {"name": "Apache-2.0", "identifier": "Apache-2.0"}},
        "paths": paths,
        "components": {"schemas": SCHEMAS},
    }
    if needs_key:
        described["security"] = [{"bearer": []}, {"key": []}]
        described["components"]["securitySchemes"] = {
            "bearer": {"type": "http", "scheme": "bearer"},
            "key": {"type": "apiKey", "in": "header", "name": "X-API-Key"},
        }
    return described


def _described(operation: Operation, *, needs_key: bool) -> dict[str, Any]:
    inside = [name for name in PATH_PARAMETERS if f"{{{name}}}" in operation.path]
    parameters = [{"name": name, "in": "path", "required": True, "schema": PATH_PARAMETERS[name]} for name in inside]
    parameters += [{"name": name, "in": "query", "schema": schema} for name, schema in operation.query.items()]
    # Pages from elsewhere are refused whatever they send; without a key, so is everybody.
    refused = {*operation.statuses, *((401, 403) if needs_key else ()), *((403,) if operation.method == "post" else ())}
    said: dict[str, Any] = {
        "operationId": f"{operation.method} {operation.path}",
        "tags": [operation.tag],
        "summary": operation.summary,
        "responses": {"200": _answered(operation.answers)}
        | {str(status): _failed(status) for status in sorted(refused)},
    }
    if parameters:
        said["parameters"] = parameters
    if operation.takes:
        content = {media_type: {"schema": schema} for media_type, schema in operation.takes.items()}
        said["requestBody"] = {"required": operation.takes is not _SMALL, "content": content}
    return said


def _answered(answers: str | None) -> dict[str, Any]:
    if answers is None:
        return {"description": "Done, or yes; no body."}
    if "/" in answers:
        return {"description": answers, "content": {answers: {}}}
    schema = _list(_ref(answers.removesuffix("[]"))) if answers.endswith("[]") else _ref(answers)
    content: dict[str, Any] = {"application/json": {"schema": schema}}
    if answers == "InferAnswer":
        content[_BINARY] = {}
    return {"description": answers, "content": content}


def _failed(status: int) -> dict[str, Any]:
    reasons = ", ".join(failure.reason for failure in FAILURES if failure.status == status)
    return {
        "description": reasons or "not now",
        "content": {"application/json": {"schema": _ref("Error")}},
    }
