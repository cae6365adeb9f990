"""Owns a row of the decoding benchmark: one operation on a training picture; `benchmarks/decoding.py` measures it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Self


@dataclass(frozen=True, kw_only=True)
class DecodingRow:
    """What one candidate of a table takes for a picture, ms: the mean over `n` of the fastest of `visits` visits.

    Of whole pipelines (group "pipeline"), which draw other crops in every visit, it is the median over batches.
    `at` is the scale or size it works at; `differences` are mean levels of 255 from the table's reference, by where
    they were taken; `file_bytes` is the mean size of the files read, where candidates read different ones.
    """

    group: str
    what: str
    at: str
    ms: float
    n: int
    visits: int
    differences: Mapping[str, float]
    file_bytes: float | None

    @classmethod
    def from_dict(cls, fields: Mapping[str, Any]) -> Self:
        """Read a row of the result's JSON."""
        return cls(
            group=fields["group"],
            what=fields["what"],
            at=fields["at"],
            ms=float(fields["ms"]),
            n=fields["n"],
            visits=fields["visits"],
            differences=dict(fields["difference_levels"]),
            file_bytes=fields.get("file_bytes"),
        )
