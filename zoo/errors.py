"""Owns every error the project raises on purpose, and the exit code each one ends in; it never prints.

ZooError                      exit 1: our error, one line and a hint
├── RowError                  a value that its field cannot hold; says the field, the value and what was expected
├── UnknownNameError          no such model, recipe, precision …; names the nearest ones
├── DataError                 a data set that cannot be used
│   └── BrokenPictureError    one picture that cannot be decoded; callers may go on without it
├── CheckpointError           a checkpoint that is not ours, truncated, or does not fit
├── ArtifactError             an .onnx, .plan or passport that cannot be used
├── DownloadError             a file that could not be fetched, or is not the published one
├── DivergedError             a run whose loss, weights or answers are no longer finite; its last state is good
├── WorkerError               a decoding process that the system ended or did not start; what was learnt is saved
├── MissingCapabilityError    this machine lacks a GPU, a driver or a package; the hint says how to add it
├── EngineBuildError          TensorRT refused the graph; carries the logger's text
├── RequestError              one request got no prediction; serve/core/failures.py has the kinds and their statuses
└── VerdictError              exit 3: a check ran and failed (parity, accuracy gate, regression)
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from difflib import get_close_matches
from typing import TypeVar

T = TypeVar("T")


class ZooError(Exception):
    """An error with its remedy.

    Args:
        problem: what was wrong and what was expected, one line.
        hint: what to do next, one line; may be empty.
    """

    exit_code = 1

    def __init__(self, problem: str, hint: str = "") -> None:
        super().__init__(problem)
        self.problem = problem
        self.hint = hint

    def __str__(self) -> str:
        return f"{self.problem} {self.hint}".strip()

    def __reduce__(self) -> tuple[type[ZooError], tuple[str, str]]:
        # Errors cross process boundaries (data-loading workers), so both parts must survive pickling.
        return type(self), (self.problem, self.hint)


class RowError(ZooError, ValueError):
    """A value that its field cannot hold (zoo/rows.py)."""


class UnknownNameError(ZooError):
    """A name that is not in the table it was looked up in."""


class DataError(ZooError):
    """A data set that cannot be used as given."""


class BrokenPictureError(DataError):
    """One picture that cannot be decoded safely."""


class CheckpointError(ZooError):
    """A checkpoint that is missing, truncated, or not one of ours."""


class ArtifactError(ZooError):
    """An exported artifact that is missing, foreign, or changed since its passport was written."""


class DownloadError(ZooError):
    """A file that could not be fetched whole, or is not the one that was published."""


class DivergedError(ZooError):
    """Training that led to numbers that are not finite."""


class WorkerError(ZooError):
    """A decoding process that the system ended, or had no memory or files for; the pictures are not to blame."""


class MissingCapabilityError(ZooError):
    """Something this machine cannot do until a package, driver or GPU is added."""


class EngineBuildError(ZooError):
    """TensorRT could not turn a graph into an engine."""


class RequestError(ZooError):
    """A request the server refused or gave up; the server goes on."""


class VerdictError(ZooError):
    """A check that ran to its end and failed."""

    exit_code = 3


def look_up(entries: Mapping[str, T], name: str, *, kind: str, hint: str) -> T:
    """The entry of that name.

    Raises:
        UnknownNameError: there is none; names the nearest.
    """
    if name not in entries:
        raise unknown_name(kind, name, entries, hint)
    return entries[name]


def unknown_name(kind: str, name: str, known: Iterable[str], hint: str) -> UnknownNameError:
    """Describe a failed look-up and name the nearest entries: “Unknown model 'sm'. Did you mean s, m?”."""
    known = list(known)
    folded = {candidate.lower(): candidate for candidate in known}
    # A long spelling of a short id ("efficientnetv2-s" for "s") shares no ratio with it, only its last word.
    near = [folded[short] for short in folded if name.lower().replace("-", "_").endswith(f"_{short}")]
    near = near or [folded[match] for match in get_close_matches(name.lower(), folded, n=3, cutoff=0.4)]
    guess = f" Did you mean {', '.join(near[:3])}?" if near else ""
    return UnknownNameError(f"Unknown {kind} {name!r}.{guess}", hint)
