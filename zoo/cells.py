"""Owns how a text stands in a cell of a CSV file so that no spreadsheet takes it for a formula.

A cell that begins with = + - @, a tab or a line end may be one (OWASP, "CSV Injection"): it gets an apostrophe in
front, and so does one that begins with an apostrophe, so that reading is exact.
"""

from __future__ import annotations

GUARD = "'"
_GUARDED = (*"=+-@＝＋－＠\t\r\n", GUARD)  # the wide ones are formulas to spreadsheets of East Asia


def guarded(text: str) -> str:
    """The text as a cell holds it: “=1+1” → “'=1+1”."""
    return GUARD + text if text.startswith(_GUARDED) else text


def unguarded(cell: str) -> str:
    """The text of a cell that `guarded` made."""
    return cell.removeprefix(GUARD)
