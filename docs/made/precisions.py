"""Owns the table of precisions in docs/export.md: how far an artifact's answers may be from the checkpoint's."""

from __future__ import annotations

from export.precision.rows import PRECISIONS
from made.markdown import table


def tolerances(rest: str, body: str) -> str:
    """One line a precision."""
    rows = [
        [row.id, *map(power, (row.tolerance.max_error, row.tolerance.mean_error, row.tolerance.tie_margin))]
        for row in PRECISIONS
    ]
    return table(["precision", "largest error", "mean error", "a changed first class is a tie below"], rows)


def power(value: float) -> str:
    """0.04 → “4e-2”."""
    mantissa, _, exponent = f"{value:.1e}".partition("e")
    return f"{float(mantissa):g}e{int(exponent)}"
