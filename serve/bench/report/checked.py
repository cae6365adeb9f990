"""Owns whose fault it is when results cannot be shown: that of a file which somebody changed is found by its name."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from serve.bench.kind import find_kinds
from serve.bench.report.devices import group_by_device
from serve.bench.report.exports import as_markdown
from serve.bench.report.page import render_page
from zoo.errors import ZooError
from zoo.results import Result, read_results


@contextmanager
def blaming(paths: Sequence[Path]) -> Iterator[None]:
    """Let an error in the block name the file that is to blame, if there is one among `paths`.

    A row holds every single value to its field. What depends on several (a row of an artifact that the result does not
    have), and what no row holds (settings, environment), only fails when it is used, and results are used together.

    Raises:
        ZooError: a result that cannot be shown alone. Otherwise whatever the block raised.
    """
    try:
        yield
    except Exception:
        read_results(paths, find_kinds(), check=check_shown)
        raise


def check_shown(result: Result) -> None:
    """Make a page of one result, and throw it away.

    Raises:
        ZooError: it cannot be shown.
    """
    hint = (
        f"It is damaged or of another version: measure again with `{find_kinds()[result.kind].command}`, or take the "
        "file away."
    )
    try:
        devices = group_by_device([result])
        render_page(devices)
        as_markdown(devices)
    except ZooError as error:
        raise ZooError(error.problem, hint) from error
    except Exception as error:
        raise ZooError(
            f"The {result.kind} result {result.name!r} cannot be shown: {type(error).__name__} {error}.", hint
        ) from error
