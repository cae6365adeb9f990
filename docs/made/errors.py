"""Owns the tables of what goes wrong: exit codes of the command line, HTTP statuses of the server."""

from __future__ import annotations

import inspect
from collections import defaultdict

import zoo.errors
from made.markdown import code, table, table_with_words
from serve.core.failures import FAILURES
from zoo.errors import ZooError
from zoo.stopping import STOPPING, Stopped


def exit_codes(rest: str, body: str) -> str:
    """The codes of our errors, and those that click and signals bring."""
    own = {kind.exit_code for _, kind in inspect.getmembers(zoo.errors, inspect.isclass) if issubclass(kind, ZooError)}
    signals = {Stopped(number).exit_code for number in STOPPING}
    return table_with_words(["exit code", ""], [[str(number)] for number in sorted({0, 2} | own | signals)], body)


def statuses(rest: str, body: str) -> str:
    """Every status of a failure, with the label it is counted under and what its error says of itself."""
    reasons = defaultdict(list)
    for row in FAILURES:
        reasons[row.status].append(f"{code(row.reason)}: {sentence(row.error)}")
    rows = [[str(status), "<br>".join(said)] for status, said in sorted(reasons.items())]
    return table(["status", "`reason`, and when"], rows)


def sentence(kind: type[ZooError]) -> str:
    """The first line of an error's docstring, as a part of a sentence."""
    text = (inspect.getdoc(kind) or "").splitlines()[0].rstrip(".")
    return text[:1].lower() + text[1:]
