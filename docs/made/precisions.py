"""Owns the tables of precisions and builders in docs/export.md: tolerances, and who builds engines where."""

from __future__ import annotations

from export.engine.builders import BUILDERS
from export.precision.rows import PRECISIONS
from made.markdown import code, table, table_with_words


def tolerances(rest: str, body: str) -> str:
    """One line a precision."""
    rows = [
        [
            code(row.id),
            *map(power, (row.tolerance.max_error, row.tolerance.mean_error, row.tolerance.tie_margin)),
            f"{row.tolerance.least_agreement:.0%}",
            f"{row.tolerance.least_cosine:g}" if row.tolerance.least_cosine else "–",
        ]
        for row in PRECISIONS
    ]
    heads = [
        "precision",
        "largest error",
        "mean error",
        "a changed first class is a tie below",
        "same answers",
        "cosine",
    ]
    return table(heads, rows)


def builders(rest: str, body: str) -> str:
    """One line a form of TensorRT; where its engines run is in words."""
    rows = [
        [
            code(row.id),
            "ahead of time, on any machine" if row.ahead_of_time else "on the GPU at hand",
            code(row.install),
        ]
        for row in BUILDERS
    ]
    return table_with_words(["builder", "builds", "install", "runs on"], rows, body)


def power(value: float) -> str:
    """0.04 → “4e-2”."""
    mantissa, _, exponent = f"{value:.1e}".partition("e")
    return f"{float(mantissa):g}e{int(exponent)}"
