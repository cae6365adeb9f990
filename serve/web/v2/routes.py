"""Owns the protocol's routes: each finds its model, calls one function, and answers in the protocol's form."""

from __future__ import annotations

import math
import time
from functools import partial
from typing import Any

import numpy as np
from starlette.concurrency import run_in_threadpool
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from serve.core.failures import ProtocolError
from serve.core.slot import Engine
from serve.models.models import Models, Served
from serve.protocol.datatypes import DATATYPES
from serve.protocol.describe import index, model_config, model_metadata, server_metadata
from serve.protocol.infer import infer
from serve.protocol.messages import InferRequest
from serve.web.access import note_taken
from serve.web.encoding import decompress
from serve.web.gate import holder_of
from serve.web.intake import read_body, while_connected
from serve.web.v2.answers import Json, read_small
from serve.web.v2.memory import memory_routes
from serve.web.v2.wire import JSON_LENGTH, read_infer, read_json_length, read_raw, write_infer

PREFIX = "/v2"
# Longer JSON is read in a thread: the event loop goes on serving others meanwhile.
LARGE_JSON_BYTES = 65_536
# What Triton answers where OIP leaves it open: not ready is 400, and no answer about health has a body.
NOT_READY = 400


def v2_routes() -> list[Route]:
    """The protocol's routes, for `create_app`."""
    routes = [
        Route(PREFIX, show_server),
        Route(f"{PREFIX}/health/live", show_live),
        Route(f"{PREFIX}/health/ready", show_ready),
        Route(f"{PREFIX}/models/stats", show_every_stats),
        Route(f"{PREFIX}/repository/index", list_repository, methods=["POST"]),
        Route(f"{PREFIX}/repository/models/{{model}}/load", load_model, methods=["POST"]),
        Route(f"{PREFIX}/repository/models/{{model}}/unload", unload_model, methods=["POST"]),
    ]
    for what, endpoint, methods in (
        ("", show_model, ["GET"]),
        ("/ready", show_model_ready, ["GET"]),
        ("/config", show_config, ["GET"]),
        ("/stats", show_stats, ["GET"]),
        ("/infer", answer_infer, ["POST"]),
    ):
        routes += [
            Route(f"{PREFIX}/models/{{model}}{version}{what}", endpoint, methods=methods)
            for version in ("/versions/{version}", "")  # the last one's path is the metric's label
        ]
    return [*routes, *memory_routes()]


async def show_server(request: Request) -> Response:
    """The server's metadata."""
    return Json(server_metadata(_models(request)))


async def show_live(request: Request) -> Response:
    """Say that the process answers."""
    return Response()


async def show_ready(request: Request) -> Response:
    """Whether every model would take a picture now."""
    ready = all(served.service.not_ready() is None for served in _models(request))
    return Response(status_code=200 if ready else NOT_READY)


async def show_model(request: Request) -> Response:
    """A model's metadata."""
    served = _served(request)
    return Json(model_metadata(served, _models(request).versions(served.name)))


async def show_model_ready(request: Request) -> Response:
    """Whether a model would take a picture now."""
    return Response(status_code=200 if _served(request).service.not_ready() is None else NOT_READY)


async def show_config(request: Request) -> Response:
    """A model's configuration, as Triton has it."""
    return Json(model_config(_served(request)))


async def show_stats(request: Request) -> Response:
    """The statistics of a model: of the version that is asked for, else of all."""
    asked = _served(request)
    return _stats(
        served
        for served in _models(request)
        if served.name == asked.name and ("version" not in request.path_params or served is asked)
    )


async def show_every_stats(request: Request) -> Response:
    """The statistics of all models."""
    return _stats(_models(request))


async def list_repository(request: Request) -> Response:
    """Every version of every model that is, or could be, at work."""
    asked = await read_small(request)
    ready_only = asked.get("ready", False) is True
    return Json(index(_models(request), ready_only=ready_only))


async def load_model(request: Request) -> Response:
    """Load a model's versions as its folder has them now; answer when they are at work."""
    _refuse_parameters(await read_small(request))
    await _models(request).control.load(request.path_params["model"])
    return Response()


async def unload_model(request: Request) -> Response:
    """Take a model from work; answer when its last request is answered."""
    await read_small(request)
    await _models(request).control.unload(request.path_params["model"])
    return Response()


async def answer_infer(request: Request) -> Response:
    """Answer tensors, or encoded pictures, with tensors."""
    began_s = time.monotonic()
    served = _served(request)
    service, limits = served.service, served.service.limits
    deadline_s = began_s + limits.timeout_s
    with service.admit() as engine:
        with service.receive(engine) as note:
            body = await read_body(request, max_bytes=limits.max_body_bytes, deadline_s=deadline_s, note=note)
        read = partial(_read, request, body, limits.max_body_bytes, engine)
        asked: InferRequest = await run_in_threadpool(read) if _is_slow(request, body) else read()
        if asked.timeout_us:
            deadline_s = min(deadline_s, began_s + asked.timeout_us / 1e6)
        answer = await while_connected(
            request,
            infer(
                served,
                engine,
                asked,
                _models(request).regions,
                began_s=began_s,
                deadline_s=deadline_s,
                holder=holder_of(request.scope),
            ),
            deadline_s=deadline_s,
        )
    split = ", ".join([f"{stage};dur={took_ms:.3f}" for stage, took_ms in answer.timings_ms.items()])
    note_taken(request.scope, split, answer.timings_ms, answer.batch_size)
    content, headers = write_infer(answer)
    return Response(content, headers=headers | {"Server-Timing": split})


def _is_slow(request: Request, body: bytes) -> bool:
    """Whether reading it takes a while: bytes behind a short JSON do not, however many they are."""
    if "content-encoding" in request.headers:
        return True
    told = request.headers.get(JSON_LENGTH, "")
    return min(len(body), int(told) if told.isascii() and told.isdigit() else len(body)) > LARGE_JSON_BYTES


def _read(request: Request, body: bytes, max_bytes: int, engine: Engine) -> InferRequest:
    headers = request.headers
    if encoding := headers.get("content-encoding"):
        body = decompress(body, encoding, max_bytes=max_bytes)
    json_length = read_json_length(headers.get(JSON_LENGTH), body)
    encoded = headers.get("content-type", "").strip().lower().startswith("image/")
    if encoded or json_length == 0:
        taken = engine.taken
        row_bytes = math.prod(taken.shape) * np.dtype(taken.dtype).itemsize
        return read_raw(body, taken.name, DATATYPES[taken.dtype], row_bytes, taken.shape, encoded=encoded)
    return read_infer(body, json_length)


def _refuse_parameters(asked: dict[str, Any]) -> None:
    if asked.get("parameters"):
        raise ProtocolError(
            "A model is loaded as its folder has it: configurations and files are not taken from requests.",
            "Put them into the repository, then load the model without parameters.",
        )


def _models(request: Request) -> Models:
    models: Models = request.app.state.models
    return models


def _served(request: Request) -> Served:
    return _models(request).find(request.path_params["model"], request.path_params.get("version", ""))


def _stats(chosen: Any) -> Response:
    return Json({"model_stats": [one.stats() for one in chosen]})
