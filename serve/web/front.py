"""Owns what every request gets whatever its route is: id, gate, count, log, headers; and the short way of predictions.

The layers and the routes of the framework take as long as everything else that is done for a prediction. So requests
for one go from here to their handler, with the request object and the answers to errors that the framework would have
used. What a handler decides is written once, and it does not know which way a request came.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass

from starlette.requests import Request
from starlette.responses import Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from serve.core.failures import UnauthorizedError, free_calls
from serve.web.access import Access
from serve.web.asked import AskedRequest
from serve.web.gate import SECURITY_HEADERS, Gate
from zoo.errors import ZooError

Endpoint = Callable[[Request], Awaitable[Response]]
ErrorAnswers = Mapping[type[Exception], Callable[[Request, Exception], Awaitable[Response]]]
"""How each kind of error is answered, the most special kind first, as the framework takes them."""


@dataclass(frozen=True, kw_only=True)
class Shortcuts:
    """The handlers of predictions: of pictures at `/predict`, of tensors at `/v2/models/MODEL[/versions/V]/infer`."""

    predict: Endpoint
    infer: Endpoint

    def find(self, scope: Scope) -> Endpoint | None:
        """The handler of a request, or None; what its path says is put into the scope, as the router does."""
        if scope["method"] != "POST":
            return None
        path: str = scope["path"]
        if path == "/predict":
            return self._chosen(scope, self.predict, {})
        match path.split("/"):
            case ["", "v2", "models", model, "infer"] if model:
                return self._chosen(scope, self.infer, {"model": model})
            case ["", "v2", "models", model, "versions", version, "infer"] if model and version:
                return self._chosen(scope, self.infer, {"model": model, "version": version})
        return None

    def _chosen(self, scope: Scope, endpoint: Endpoint, path_params: dict[str, str]) -> Endpoint:
        scope["endpoint"], scope["path_params"] = endpoint, path_params
        return endpoint


class Front:
    """ASGI: what stands before the framework's application `app`.

    Args:
        app: answers what has no shortcut.
        access: names, counts and logs requests.
        gate: says who may ask.
        shortcuts: the handlers that are called from here; None: none.
        error_answers: how errors are answered, here as in `app`.
    """

    def __init__(
        self, app: ASGIApp, *, access: Access, gate: Gate, shortcuts: Shortcuts | None, error_answers: ErrorAnswers
    ) -> None:
        self.app = app
        self._access = access
        self._gate = gate
        self._shortcuts = shortcuts
        self._error_answers = error_answers

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one request."""
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        request = AskedRequest(scope, receive, send)
        visit = self._access.begin(scope, request.headers)
        added = [*SECURITY_HEADERS, (b"x-request-id", visit.id.encode())]

        async def send_with_headers(message: Message) -> None:
            if message["type"] == "http.response.start":
                visit.status = message["status"]
                message["headers"] = [*message["headers"], *added]
            await send(message)

        try:
            await self._pass_gate(request, scope, receive, send_with_headers)
        finally:
            self._access.end(visit, scope)

    async def _pass_gate(self, request: Request, scope: Scope, receive: Receive, send: Send) -> None:
        try:
            self._gate.check(scope, request.headers)
        except ZooError as error:
            response = await self._error_answers[ZooError](request, error)
            # Its body is not read: what comes of it must not be taken for the next request.
            response.headers["Connection"] = "close"
            if isinstance(error, UnauthorizedError):
                response.headers["WWW-Authenticate"] = 'Basic realm="zoo", charset="UTF-8"'
            await response(scope, receive, send)
            return
        endpoint = self._shortcuts.find(scope) if self._shortcuts else None
        if endpoint is None:
            await self.app(scope, receive, send)
        else:
            await self._answer(endpoint, request, scope, receive, send)

    async def _answer(self, endpoint: Endpoint, request: Request, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer as the framework does: errors by their kind; one that nobody expected is raised after its answer."""
        try:
            response = await endpoint(request)
        except Exception as error:
            kind = next(kind for kind in self._error_answers if isinstance(error, kind))
            response = await self._error_answers[kind](request, error)
            await response(scope, receive, send)
            free_calls(error)
            if kind is Exception:
                raise
            return
        await response(scope, receive, send)
