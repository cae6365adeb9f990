"""Owns what of a request is kept whatever its route is: an id, a count, and one line in the log; it answers nothing."""

from __future__ import annotations

import itertools
import logging
import re
import secrets
import time
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from typing import Any

from prometheus_client import Counter
from starlette.types import Scope

logger = logging.getLogger(__name__)

# Under it a record of the log has its request's fields; `serve.log` writes them as JSON.
ACCESS = "access"
# Under it a scope's state has a `Taken`.
TAKEN = "taken"
# It is repeated in headers and in the log, so it holds no line breaks and is short.
REQUEST_ID = re.compile(r"[A-Za-z0-9._:-]{1,128}")


@dataclass(slots=True)
class Visit:
    """One request: since when, the path that its client wrote, its id, and its answer's status."""

    began_s: float
    path: str
    id: str
    status: int = 500  # unless an answer begins: its handler raised something unexpected


@dataclass(slots=True)
class Taken:
    """Where an answered request's time went; `split` is that as `Server-Timing` says it."""

    split: str
    stages_ms: Mapping[str, float]
    batch_size: int

    def fields(self) -> dict[str, float]:
        """The stages as a log and a trace have them."""
        return {**{f"{stage}_ms": took_ms for stage, took_ms in self.stages_ms.items()}, "batch_size": self.batch_size}


def note_taken(scope: Scope, split: str, stages_ms: Mapping[str, float], batch_size: int) -> None:
    """Leave it in the scope for the log and the traces."""
    scope.setdefault("state", {})[TAKEN] = Taken(split, stages_ms, batch_size)


def taken_of(scope: Scope) -> Taken | None:
    """What `note_taken` left there."""
    taken: Taken | None = scope.get("state", {}).get(TAKEN)
    return taken


class Access:
    """Takes or makes `X-Request-Id`, counts answers, logs one line per request at INFO.

    `paths` leads from a route's endpoint to its path: with "other", the only values a metric's label may have.
    """

    def __init__(self, requests: Counter, paths: Mapping[Any, str]) -> None:
        self._paths = paths
        # The first half is this server's, the second counts: no two are alike, and none costs a call of the system.
        self._own, self._number = secrets.token_hex(8), itertools.count(1)
        self._count = cache(lambda route, status: requests.labels(route, str(status)))

    def begin(self, scope: Scope, headers: Mapping[str, str]) -> Visit:
        """Hear of a request. /predict/ becomes /predict: nobody is redirected, and no address is made of its words."""
        path: str = scope["path"]
        if path.endswith("/"):
            scope["path"] = path.rstrip("/") or "/"
        given = headers.get("x-request-id", "")
        is_given = given and REQUEST_ID.fullmatch(given)
        return Visit(time.monotonic(), path, given if is_given else f"{self._own}{next(self._number):016x}")

    def end(self, visit: Visit, scope: Scope) -> None:
        """Count and log it."""
        route = self._paths.get(scope.get("endpoint"), "other")  # the router leaves the endpoint in the scope
        self._count(route, visit.status).inc()
        if logger.isEnabledFor(logging.INFO):
            self._log(visit, scope)

    def _log(self, visit: Visit, scope: Scope) -> None:
        taken = taken_of(scope)
        took_ms = (time.monotonic() - visit.began_s) * 1000.0
        # %r: the path is the client's, and a line break in it must not start a line of the log.
        logger.info(
            "%s %r %d %.1f ms %s id=%s",
            scope["method"],
            visit.path,
            visit.status,
            took_ms,
            f"{taken.split}, batch {taken.batch_size}" if taken else "",
            visit.id,
            extra={
                ACCESS: {
                    "method": scope["method"],
                    "path": visit.path,
                    "status": visit.status,
                    "took_ms": round(took_ms, 3),
                    **(taken.fields() if taken else {}),
                    "client": (scope.get("client") or ("",))[0],
                    "id": visit.id,
                }
            },
        )
