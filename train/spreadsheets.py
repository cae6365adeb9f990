"""Owns predictions.csv and classes.csv: what stands in them, and how they are read again. Light to import."""

from __future__ import annotations

import csv
import io
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import NamedTuple

from zoo.cells import guarded, unguarded
from zoo.errors import DataError

PREDICTIONS, CLASSES = "predictions.csv", "classes.csv"
_AGAIN = "`zoo train` writes it at the end of a run: train again, or copy the run folder whole."


class Answered(NamedTuple):
    """One line of predictions.csv: a readable picture below its set's folder, its class, the answer, both scores."""

    split: str
    picture: str
    true: str
    predicted: str
    true_score: float
    score: float


HEADS = ("split", "picture", "class", "predicted", "class_score", "score")
# Of pictures that may have several labels; between those of a picture, and between their scores, stands the separator.
LABEL_HEADS = ("split", "picture", "labels", "predicted", "scores")
LABEL_SEPARATOR = ";"
FOLD = "fold"  # the column that the predictions of a cross-validation have after these


def sheet(heads: Sequence[str], rows: Iterable[Sequence[str | int | float | None]]) -> str:
    """The text of a CSV file; texts are guarded, None is an empty cell."""
    text = io.StringIO()
    writer = csv.writer(text)  # its lines end as RFC 4180 has it, so that a cell with either character is quoted
    writer.writerow(heads)
    writer.writerows([_cell(value) for value in row] for row in rows)
    return text.getvalue()


def read_predictions(path: Path) -> list[Answered]:
    """Read what a run wrote.

    Raises:
        DataError: there is no such file, or it is not one of ours.
    """
    heads, rows = read_sheet(path)
    if heads[: len(LABEL_HEADS)] == LABEL_HEADS:
        raise DataError(
            f"{path} is of pictures with several labels; what is right is compared of one class a picture.",
            "metrics.jsonl and report.html beside it have the mAP of the run.",
        )
    try:
        if heads not in (HEADS, (*HEADS, FOLD)):
            raise ValueError(f"its columns are {', '.join(heads)}")
        return [_answered(row[: len(HEADS)]) for row in rows]
    except ValueError as error:
        raise DataError(f"{path} is not readable: {error}.", _AGAIN) from error


def read_sheet(path: Path) -> tuple[tuple[str, ...], list[list[str]]]:
    """The heads of a CSV file that `sheet` wrote, and its rows as texts.

    Raises:
        DataError: there is no such file, or it is none.
    """
    try:
        with path.open(encoding="utf-8", newline="") as file:
            heads, *rows = list(csv.reader(file, strict=True)) or [[]]
    except FileNotFoundError as error:
        raise DataError(f"There is no file {path}.", _AGAIN) from error
    except (OSError, ValueError, csv.Error) as error:
        raise DataError(f"{path} is not readable: {error}.", _AGAIN) from error
    return tuple(heads), [list(map(unguarded, row)) for row in rows]


def _answered(row: Sequence[str]) -> Answered:
    split, picture, true, predicted, true_score, score = row
    return Answered(split, picture, true, predicted, float(true_score), float(score))


def _cell(value: str | int | float | None) -> str | int:
    if isinstance(value, float):
        return f"{value:.6g}"
    if isinstance(value, str):
        return guarded(value)
    return "" if value is None else value
