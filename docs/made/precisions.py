"""Owns the tables of precisions, builders and back ends in docs/export.md: tolerances, limits, who builds, who runs."""

from __future__ import annotations

from export.backends import BACKENDS, choose_backend
from export.engine.builders import BUILDERS, GPU_FAMILIES, find_builder
from export.engine.limits import LIMITS
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


def backends(rest: str, body: str) -> str:
    """One line a back end, the usual one of each kind of artifact first."""
    where = {"auto": "processor, GPU", "cpu": "processor", "cuda": "GPU"}
    kinds = {"checkpoint": "a checkpoint", ".onnx": "an `.onnx`", ".plan": "a `.plan`"}
    usual = {choose_backend(f"s{suffix}").id for suffix in ("", ".onnx", ".plan")}
    rows = [
        [
            code(row.id) + (" (auto)" if row.id in usual else ""),
            kinds[row.opens],
            where[row.device],
            row.purpose + (f"; {code(row.install)}" if row.install else ""),
        ]
        for row in BACKENDS
    ]
    return table(["back end", "opens", "computes on", ""], rows)


def limits(rest: str, body: str) -> str:
    """One line a thing that a builder is not told."""
    rows = []
    for row in LIMITS:
        releases = f" {row.releases}" if row.releases else " 10.0" if row.lacks else ""
        told = " or ".join(code(f"{row.flag} {value}") for value in row.values) or code(row.flag)
        rows.append([told, f"{find_builder(row.builder).name}{releases}", row.why, row.instead])
    return table(["option", "refused by", "because", "instead"], rows)


def families(rest: str, body: str) -> str:
    """One line a family of GPUs."""
    return table(["family", "compute capability"], [[code(row.id), row.capability] for row in GPU_FAMILIES])


def power(value: float) -> str:
    """0.04 → “4e-2”."""
    mantissa, _, exponent = f"{value:.1e}".partition("e")
    return f"{float(mantissa):g}e{int(exponent)}"
