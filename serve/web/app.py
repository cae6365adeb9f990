"""Owns the HTTP face: routes, answers, and errors as JSON; everything behind it is `serve.core.service`.

docs/serving.md lists the routes. Every error is {"error", "hint"} with a status from `serve.core.failures`.
"""

from __future__ import annotations

import logging
import time
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager, nullcontext
from typing import Any
from urllib.parse import urlencode

from starlette.applications import Starlette
from starlette.concurrency import run_in_threadpool
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route
from starlette.types import ASGIApp

from serve.core.failures import EngineDownError, SlowBodyError, TooLargeError, UnavailableError, find_failure
from serve.core.metrics import CONTENT_TYPE
from serve.core.service import Limits, Service
from serve.core.slot import Slot
from serve.keys import EVERYBODY, Keyring
from serve.models.exposition import render
from serve.models.models import Models, Served, only
from serve.tracing import Tracing
from serve.web.access import Access, note_taken
from serve.web.answered import classify_all
from serve.web.examples import find_examples
from serve.web.front import ErrorAnswers, Front, Shortcuts
from serve.web.gate import Gate, holder_of
from serve.web.intake import check_media_type, read_pictures, read_top, while_connected
from serve.web.openapi import describe_routes
from serve.web.pages import answer_page
from serve.web.traced import TraceMiddleware
from serve.web.turn import read_turn
from serve.web.v2.routes import PREFIX, answer_infer, v2_routes
from zoo.errors import ZooError
from zoo.files import json_text

logger = logging.getLogger(__name__)

Beside = Callable[[Models], AbstractAsyncContextManager[Any]]
"""What else serves the same models, on the same event loop and as long."""


def create_app(slot: Slot, limits: Limits, beside: Beside | None = None) -> Starlette:
    """`app_of` one model."""
    return app_of(only(Service(slot, limits)), beside)


class Application(Starlette):
    """Starlette's, behind what `before` puts in front of it."""

    def __init__(self, before: Callable[[ASGIApp], ASGIApp], **given: Any) -> None:
        super().__init__(**given)
        self._before = before

    def build_middleware_stack(self) -> ASGIApp:
        """All layers, the outermost first."""
        return self._before(super().build_middleware_stack())


def app_of(
    models: Models,
    beside: Beside | None = None,
    keys: Keyring = EVERYBODY,
    tracing: Tracing | None = None,
    *,
    has_shortcuts: bool = True,
) -> Starlette:
    """Build the application. Its lifespan starts the models' engines, which then warm up, and drains them at last.

    Without shortcuts predictions go through the framework's layers too, which changes nothing but their time: a test
    compares both.
    """
    routes = [
        Route("/", show_page),
        Route("/predict", predict, methods=["POST"]),
        Route("/info", show_info),
        Route("/examples", list_examples),
        Route("/examples/{number:int}.png", show_example),
        Route("/healthz", healthz),
        Route("/readyz", readyz),
        Route("/metrics", show_metrics),
        Route("/openapi.json", show_openapi),
        Route("/docs", show_docs),
        *v2_routes(),
    ]
    paths = {route.endpoint: route.path for route in routes}
    error_answers: ErrorAnswers = {ZooError: answer_error, HTTPException: answer_http_error, Exception: answer_crash}

    def before(framework: ASGIApp) -> ASGIApp:
        front = Front(
            framework,
            access=Access(models.requests, paths),
            gate=Gate(keys),
            shortcuts=Shortcuts(predict=predict, infer=answer_infer) if has_shortcuts else None,
            error_answers=error_answers,
        )
        return TraceMiddleware(front, tracing=tracing, paths=paths) if tracing else front

    app = Application(before, routes=routes, exception_handlers=dict(error_answers), lifespan=lifespan)
    app.router.redirect_slashes = False  # it redirects to the host that the client named; see `Access`
    app.state.service = models.default.service
    app.state.models = models
    app.state.beside = beside
    app.state.needs_key = bool(keys)
    return app


class JsonAnswer(JSONResponse):
    """JSON as this project writes it everywhere: names of classes may hold anything, numbers are numbers."""

    def render(self, content: Any) -> bytes:
        """The body."""
        return json_text(content, indent=None).encode()


@asynccontextmanager
async def lifespan(app: Starlette) -> AsyncIterator[None]:
    """Start the engine's threads; at the end answer what is left and stop them."""
    models: Models = app.state.models
    beside: Beside | None = app.state.beside
    async with beside(app.state.models) if beside else nullcontext():
        for served in models:
            served.engine.batcher.start()
        yield
    for served in models:
        await run_in_threadpool(served.service.drain)


async def predict(request: Request) -> Response:
    """Classify the picture in the body, or the pictures of a form."""
    began_s = time.monotonic()
    served = _served(request)
    service = served.service
    with service.admit() as engine:
        try:
            top, turn = read_top(request), read_turn(request.query_params, service.limits.timeout_s)
            deadline_s = began_s + turn.timeout_s
            check_media_type(request)
            with service.receive(engine) as note:
                pictures = await read_pictures(
                    request,
                    max_bytes=service.limits.max_body_bytes,
                    deadline_s=deadline_s,
                    most=engine.batcher.max_batch_size,
                    note=note,
                )
            asked = {"deadline_s": deadline_s, "priority": turn.priority, "holder": holder_of(request.scope)}
            work = classify_all(service, engine, pictures, asked)
            answered = await while_connected(request, work, deadline_s=deadline_s)
        except BaseException:
            served.statistics.observe_failure(began_s)
            raise
    computed_s = time.monotonic()
    said = answered.to_list(engine, top)
    task = {} if engine.contract.thresholds is None else {"task": engine.contract.task}
    total_ms, encode_ms = ((time.monotonic() - since_s) * 1000.0 for since_s in (began_s, computed_s))
    for answer, decode_ms in answered.answers:
        service.metrics.observe_prediction(
            decode_ms=decode_ms,
            queue_ms=answer.queue_ms,
            total_ms=total_ms,
            encode_ms=encode_ms,
            was_kept=answer.was_kept,
        )
    taken_ms = answered.taken_ms() | {"encode": encode_ms, "total": total_ms}
    served.statistics.observe_success(sum(not answer.was_kept for answer, _ in answered.answers), taken_ms)
    timings_ms = {stage: round(took_ms, 3) for stage, took_ms in taken_ms.items()}
    split = ", ".join(f"{stage};dur={took_ms}" for stage, took_ms in timings_ms.items())
    note_taken(request.scope, split, timings_ms, answered.batch_size)
    return JsonAnswer(
        {
            "model": engine.contract.model,
            **task,
            **({"pictures": said} if len(said) > 1 else {"predictions": said[0]["predictions"]}),
            "timings_ms": timings_ms,
            "batch_size": answered.batch_size,
        },
        headers={"Server-Timing": split},
    )


def _served(request: Request) -> Served:
    """The model that a request means: `?model=NAME`, or the first one."""
    models: Models = request.app.state.models
    name = request.query_params.get("model")
    return models.default if name is None else models.find(name)


async def show_page(request: Request) -> Response:
    """The page, one file that loads nothing from elsewhere."""
    return answer_page("page")


async def show_openapi(request: Request) -> Response:
    """Every route, in OpenAPI."""
    return JsonAnswer(describe_routes(needs_key=request.app.state.needs_key))


async def show_docs(request: Request) -> Response:
    """The same as a page."""
    return answer_page("docs")


async def show_info(request: Request) -> Response:
    """Contract, engine and limits."""
    return JsonAnswer(_served(request).service.describe())


async def list_examples(request: Request) -> Response:
    """Where the examples are, and what they show."""
    examples = await run_in_threadpool(find_examples, _served(request).engine.contract)
    model = request.query_params.get("model")
    query = "" if model is None else f"?{urlencode({'model': model})}"
    return JsonAnswer(
        [
            {"url": f"examples/{number}.png{query}", "class": example.class_name, "title": example.title}
            for number, example in enumerate(examples)
        ]
    )


async def show_example(request: Request) -> Response:
    """One example as PNG."""
    examples = await run_in_threadpool(find_examples, _served(request).engine.contract)
    number = request.path_params["number"]
    if number >= len(examples):
        raise HTTPException(404)
    return Response(examples[number].png, media_type="image/png")


async def healthz(request: Request) -> Response:
    """Say that the process answers; 503 where only another process can help."""
    models: Models = request.app.state.models
    if any(served.engine.batcher.is_lost for served in models):
        raise EngineDownError("The engine never came back and cannot be opened again.", "Restart the server.")
    return JsonAnswer({"status": "ok"})


async def readyz(request: Request) -> Response:
    """Whether a load balancer should send pictures here."""
    models: Models = request.app.state.models
    for served in models:
        if reason := served.service.not_ready():
            raise reason
    return JsonAnswer({"status": "ready"})


async def show_metrics(request: Request) -> Response:
    """Prometheus' text format."""
    return Response(render(request.app.state.models), headers={"Content-Type": CONTENT_TYPE})


async def answer_error(request: Request, error: Exception) -> Response:
    """One of our errors as JSON, with its status."""
    assert isinstance(error, ZooError)
    status = find_failure(error).status
    if status == 500:
        logger.error("%s", error.problem, exc_info=error.__cause__ or error)
    headers = {}
    if isinstance(error, UnavailableError):
        headers["Retry-After"] = str(error.retry_after_s)
    if isinstance(error, SlowBodyError | TooLargeError):
        headers["Connection"] = "close"  # else the rest of the body would be read as the next request
    return _error(request, status, error.problem, error.hint, headers)


async def answer_http_error(request: Request, error: Exception) -> Response:
    """No such route, or not with this method."""
    assert isinstance(error, HTTPException)
    hint = {
        404: "GET / is the page, POST /predict takes a picture, GET /info describes the engine.",
        405: f"{request.url.path} takes {(error.headers or {}).get('Allow', 'another method')}.",
    }.get(error.status_code, "")
    return _error(request, error.status_code, f"{error.detail}.", hint, error.headers)


async def answer_crash(request: Request, error: Exception) -> Response:
    """A fault of ours: the log gets the traceback, the client does not."""
    # uvicorn closes the connection after an exception, so the client must not send another request on it.
    return _error(
        request,
        500,
        "The server made a mistake.",
        "Its log has the details; please report them.",
        {"Connection": "close"},
    )


def _error(request: Request, status: int, problem: str, hint: str, headers: Any) -> Response:
    said = {"error": problem[:1].upper() + problem[1:], "hint": hint}
    if request.url.path.startswith(PREFIX):  # the protocol's errors are one text
        said = {"error": f"{said['error']} {hint}".strip()}
    return JsonAnswer(said, status, headers)
