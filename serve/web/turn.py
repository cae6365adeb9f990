"""Owns when a request wants its turn and how long its answer is worth waiting for; the queue is `serve.core`'s."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass

from serve.core.failures import ParameterError
from serve.core.waiting import DEFAULT_PRIORITY, LAST_PRIORITY


@dataclass(frozen=True, kw_only=True)
class Turn:
    """Seconds from a request's first byte until nobody wants its answer any more; `priority` 1 is taken first."""

    timeout_s: float
    priority: int


def read_turn(query: Mapping[str, str], longest_s: float) -> Turn:
    """`?timeout_ms=200&priority=1`, with the meanings of the protocol's `timeout` and `priority`.

    Args:
        query: the parameters of the request's address.
        longest_s: the server's own limit; a longer timeout, 0 and nothing mean it.

    Raises:
        ParameterError: one of them cannot be read.
    """
    timeout_s = _number(query, "timeout_ms", "milliseconds from 0 on, as 250 or 0.5", "200") / 1000.0
    priority = _number(query, "priority", f"a whole number from 1, the first, to {LAST_PRIORITY}, the last", "1")
    if priority > LAST_PRIORITY or priority % 1:
        raise _unreadable("priority", query["priority"], f"a whole number from 1 to {LAST_PRIORITY}", "1")
    return Turn(timeout_s=min(timeout_s or longest_s, longest_s), priority=int(priority) or DEFAULT_PRIORITY)


def _number(query: Mapping[str, str], name: str, expected: str, example: str) -> float:
    text = query.get(name)
    if text is None:
        return 0.0
    try:
        number = float(text) if text.isascii() else math.nan
    except ValueError:
        number = math.nan
    if not 0.0 <= number < math.inf:
        raise _unreadable(name, text, expected, example)
    return number


def _unreadable(name: str, text: str, expected: str, example: str) -> ParameterError:
    return ParameterError(
        f"The parameter {name} is {text[:40]!r}; expected {expected}.", f"Example: /predict?{name}={example}"
    )
