"""Owns the tables of what a run leaves: files of its folder in docs/training.md, trackers in docs/watching.md."""

from __future__ import annotations

from made.markdown import code, table_with_words
from train import folder
from train.options import TRACKERS


def files(rest: str, body: str) -> str:
    """Every file that `train/folder.py` names."""
    names = [value for name, value in vars(folder).items() if name.isupper() and isinstance(value, str)]
    return table_with_words(["file", ""], [[code(name)] for name in names], body)


def trackers(rest: str, body: str) -> str:
    """Every tracker, and what installs it."""
    rows = [[code(row.name), code(f"pip install 'zoo[{row.extra}]'")] for row in TRACKERS]
    return table_with_words(["`--tracker`", "install", "where"], rows, body)
