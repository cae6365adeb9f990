"""Owns why a request gets no prediction: one error per reason, one row per error; it writes no response.

The rows are the whole policy: the HTTP status of a failure and the label it is counted under in `/metrics`.
"""

from __future__ import annotations

import math
import traceback
from dataclasses import dataclass
from typing import Annotated

from zoo.errors import BrokenPictureError, RequestError, ZooError
from zoo.rows import Row, Text, Within


class ParameterError(RequestError):
    """A query parameter that cannot be read."""


class TooLargeError(RequestError):
    """A body above the limit, by its Content-Length or by counting."""


class MediaTypeError(RequestError):
    """A body that does not claim to be a picture."""


class SlowBodyError(RequestError):
    """A body that had not arrived in full when the request's time was up."""


class ClientGoneError(RequestError):
    """The client hung up before its answer was ready."""


class ProtocolError(RequestError):
    """A request that does not follow the protocol, or a tensor that the model does not take."""


class UnknownModelError(RequestError):
    """A model, or a version of one, that is not loaded here."""


class UnauthorizedError(RequestError):
    """A request without a key that is known."""


class ForbiddenError(RequestError):
    """What this server was not started to allow, or this client may not do."""


class DeadlineError(RequestError):
    """No answer within the request's time."""


class EngineError(RequestError):
    """The engine failed on the batch this request was in."""


class NotFiniteError(EngineError):
    """The engine's answer to this picture is NaN or infinite: no class can be told from it."""


class UnavailableError(RequestError):
    """Not now, but soon: the client may send the request again after `retry_after_s` whole seconds."""

    def __init__(self, problem: str, hint: str = "", retry_after_s: float = 1.0) -> None:
        super().__init__(problem, hint)
        self.retry_after_s = max(1, math.ceil(retry_after_s))


class RateLimitedError(UnavailableError):
    """This client asks more often than `--rate-limit` allows one."""


class QueueFullError(UnavailableError):
    """As many pictures wait as the queue holds."""


class TooBusyError(UnavailableError):
    """The answer would take longer than `--max-wait-ms` to begin."""


class EngineDownError(UnavailableError):
    """No instance of the engine works; it is being opened again."""


class WarmingUpError(UnavailableError):
    """The engine has not run its warm-up batches yet."""


class DrainingError(UnavailableError):
    """The server is finishing what it has and takes nothing new."""


@dataclass(frozen=True, kw_only=True)
class Failure(Row):
    """What clients and dashboards see of an error: `status` is HTTP's, `reason` the metric's label."""

    error: type[ZooError]
    status: Annotated[int, Within(400, 599)]
    reason: Text


FAILURES = (
    Failure(error=BrokenPictureError, status=400, reason="broken_picture"),
    Failure(error=ParameterError, status=400, reason="bad_parameter"),
    Failure(error=ProtocolError, status=400, reason="bad_request"),
    Failure(error=UnauthorizedError, status=401, reason="unauthorized"),
    Failure(error=ForbiddenError, status=403, reason="forbidden"),
    Failure(error=UnknownModelError, status=404, reason="unknown_model"),
    Failure(error=SlowBodyError, status=408, reason="slow_body"),
    Failure(error=TooLargeError, status=413, reason="too_large"),
    Failure(error=MediaTypeError, status=415, reason="media_type"),
    Failure(error=RateLimitedError, status=429, reason="rate_limited"),
    # nginx's code for a client that left: nobody reads the answer, but the log and the metrics show it.
    Failure(error=ClientGoneError, status=499, reason="client_gone"),
    Failure(error=NotFiniteError, status=500, reason="not_finite"),
    Failure(error=EngineError, status=500, reason="engine"),
    Failure(error=QueueFullError, status=503, reason="queue_full"),
    Failure(error=TooBusyError, status=503, reason="too_busy"),
    Failure(error=EngineDownError, status=503, reason="engine_down"),
    Failure(error=WarmingUpError, status=503, reason="warming_up"),
    Failure(error=DrainingError, status=503, reason="draining"),
    Failure(error=DeadlineError, status=504, reason="deadline"),
)
FAILURE_OF_OURS = Failure(error=ZooError, status=500, reason="internal")


def free_calls(error: BaseException, *, keep_lines: bool = True) -> None:
    """Let go of what the calls hold that an error came through, once it is answered.

    An error of a picture holds the calls that made it, and these the picture and its future, which holds the error:
    such a ring waits for the garbage collector.

    Args:
        error: its causes are freed too.
        keep_lines: keep what a traceback prints, and with it the calls that have not ended yet.
    """
    seen: BaseException | None = error
    while seen is not None:
        if keep_lines:
            traceback.clear_frames(seen.__traceback__)
        else:
            seen.__traceback__ = None
        seen = seen.__cause__ or seen.__context__


def find_failure(error: ZooError) -> Failure:
    """The row of an error; the last one is of every error that nobody expected here."""
    return next(row for row in (*FAILURES, FAILURE_OF_OURS) if isinstance(error, row.error))
