"""Owns reading a request: its parameters, its media type, its body within limits of size and time; no pixels."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Coroutine
from contextlib import nullcontext
from functools import partial
from typing import Any, TypeVar

from starlette.concurrency import run_in_threadpool
from starlette.requests import Request

from serve.core.failures import (
    ClientGoneError,
    DeadlineError,
    MediaTypeError,
    ParameterError,
    SlowBodyError,
    TooLargeError,
)
from serve.web.encoding import FORM, File, decompress, take_files
from serve.web.listener import CONNECTION

# curl --data-binary sends x-www-form-urlencoded unless told otherwise; the decoder decides what the bytes really are.
RAW_TYPES = ("", "application/octet-stream", "application/x-www-form-urlencoded")

T = TypeVar("T")
Note = Callable[[int], None]
"""Called with the bytes of each part of a body; it may raise where they are too many."""


def read_top(request: Request) -> int | None:
    """How many classes the client wants: `?top=N`; None: as many as `zoo predict` names.

    Raises:
        ParameterError: not a whole number from 1 to 999,999,999.
    """
    text = request.query_params.get("top")
    if text is None:
        return None
    if not (text.isascii() and text.isdigit() and 0 < len(text) <= 9 and int(text) > 0):
        raise ParameterError(
            f"The parameter top is {text[:40]!r}; expected a whole number from 1 to 999999999.",
            "Example: /predict?top=3",
        )
    return int(text)


def check_media_type(request: Request) -> None:
    """Accept a picture's bytes as the body, or a form with a file.

    Raises:
        MediaTypeError: JSON, text or anything else that is not a picture.
    """
    media_type = _media_type(request)
    if media_type not in RAW_TYPES and media_type != FORM and not media_type.startswith("image/"):
        raise MediaTypeError(f"The body is {media_type[:80]}; expected the bytes of a picture.", _example(request))


async def read_pictures(
    request: Request, *, max_bytes: int, deadline_s: float, most: int = 1, note: Note = lambda count: None
) -> list[File]:
    """Read the body and take the pictures out of what wraps them: compression, a form, which may have `most` of them.

    Raises:
        As `read_body`, `decompress` and `take_files`.
    """
    body = await read_body(request, max_bytes=max_bytes, deadline_s=deadline_s, note=note)
    if encoding := request.headers.get("content-encoding", ""):
        body = await run_in_threadpool(decompress, body, encoding, max_bytes=max_bytes)
    if _media_type(request) == FORM:
        return take_files(body, request.headers["content-type"], most=most, example=_example(request))
    return [File("", body)]


def _media_type(request: Request) -> str:
    return request.headers.get("content-type", "").partition(";")[0].strip().lower()


def _example(request: Request) -> str:
    return f"curl --data-binary @PICTURE {request.base_url}predict"


async def read_body(request: Request, *, max_bytes: int, deadline_s: float, note: Note = lambda count: None) -> bytes:
    """Read the body; refuse it by its Content-Length, or as soon as too much has come.

    `note` is told of its bytes as they come.

    Raises:
        TooLargeError: above `max_bytes`. SlowBodyError: not complete at `deadline_s` (on `time.monotonic`).
        ClientGoneError: the client hung up. ParameterError: an empty body.
    """
    declared = request.headers.get("content-length", "")
    if declared.isdigit() and int(declared) > max_bytes:
        raise _too_large(max_bytes)
    parts: list[bytes] = []
    length = 0
    connection = request.scope.get("extensions", {}).get(CONNECTION)
    is_there = connection is not None and connection["is_whole"]()
    try:
        async with nullcontext() if is_there else asyncio.timeout(deadline_s - time.monotonic()):
            is_more = True
            while is_more:
                message = await request.receive()
                if message["type"] == "http.disconnect":
                    raise ClientGoneError("The client left while sending.")
                part = message.get("body", b"")
                parts.append(part)
                length += len(part)
                note(len(part))
                if length > max_bytes:
                    raise _too_large(max_bytes)
                is_more = message.get("more_body", False)
    except TimeoutError as error:
        raise SlowBodyError(
            f"Only {length} bytes of the body came within the request's time.",
            "Send it again over a faster connection, or scale the picture down.",
        ) from error
    body = parts[0] if len(parts) == 1 else b"".join(parts)
    if not body:
        raise ParameterError(
            "The body is empty; expected the bytes of a picture.",
            _example(request),
        )
    return body


def _too_large(max_bytes: int) -> TooLargeError:
    return TooLargeError(
        f"The body is larger than {max_bytes / 1e6:g} MB.",
        "Scale the picture down, or start the server with a larger --max-body-mb.",
    )


async def while_connected(request: Request, work: Coroutine[Any, Any, T], *, deadline_s: float) -> T:
    """Await `work`, but cancel it when the client leaves or the time is up. The body must have been read.

    It needs no task and no thread: the connection itself says when it is lost (`serve.web.listener`).

    Raises:
        ClientGoneError, DeadlineError: it was cancelled. Whatever `work` raises.
    """
    task = asyncio.current_task()
    assert task is not None
    before, is_over = task.cancelling(), False
    ended_by: type[ClientGoneError | DeadlineError] | None = None

    def end(reason: type[ClientGoneError | DeadlineError]) -> None:
        nonlocal ended_by
        if ended_by is None and not is_over:
            ended_by = reason
            task.cancel()

    timer = task.get_loop().call_later(max(0.0, deadline_s - time.monotonic()), end, DeadlineError)
    if connection := request.scope.get("extensions", {}).get(CONNECTION):
        connection["tell_when_gone"](partial(end, ClientGoneError))
    try:
        return await work
    except asyncio.CancelledError as error:
        # As `asyncio.timeout` tells its own end from somebody else's, who may want both.
        if ended_by is None or task.uncancel() > before:
            raise
        if ended_by is ClientGoneError:
            raise ClientGoneError("The client left before its answer was ready.") from error
        raise DeadlineError(
            "No answer within the request's time.", "Send fewer at once, or raise --timeout-ms."
        ) from error
    finally:
        is_over = True
        timer.cancel()
