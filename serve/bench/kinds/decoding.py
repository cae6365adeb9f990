"""Owns results of single operations on training pictures; `benchmarks/decoding.py` measures them."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Annotated

from serve.bench.kind import Kind, Measured
from zoo.errors import RowError
from zoo.page.elements import plain
from zoo.page.figures import Figures, to_page
from zoo.page.markup import Child, Markup, tag
from zoo.rows import Count, Positive, Row, Some, Text
from zoo.wording import digits, joined, milliseconds


@dataclass(frozen=True, kw_only=True)
class DecodingRow(Row):
    """What one candidate of a group takes for a picture, ms: the mean over `n` of the fastest of `visits` visits.

    Of whole pipelines (group "pipeline"), which draw other crops in every visit, it is the median over batches, and
    `processor_ms` is the same of the processor's time. `at` is the scale or size a candidate works at;
    `difference_levels` are mean levels of 255 from the group's reference, by where they were taken; `file_bytes` is
    the mean size of the files read, where candidates read different ones.
    """

    group: Text
    what: Text
    at: Text
    ms: Positive
    n: Count
    visits: Count
    difference_levels: Mapping[str, float]
    processor_ms: Positive | None = None
    file_bytes: Positive | None = None


@dataclass(frozen=True, kw_only=True)
class DecodingData(Row):
    """Rows, what their groups are (`captions`), libraries that were not there and why, and warnings of the others."""

    rows: Annotated[tuple[DecodingRow, ...], Some()]
    captions: Mapping[str, str]
    absent: Mapping[str, str]
    warnings: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        super().__post_init__()
        if not self.decoders:
            raise RowError("no decoder of whole pictures.")

    @property
    def decoders(self) -> list[DecodingRow]:
        """Those that decode a whole picture, the fastest first."""
        return sorted((row for row in self.rows if (row.group, row.at) == ("decode", "full")), key=lambda row: row.ms)


def section(run: Measured[DecodingData]) -> Markup:
    """One table a group, and which libraries were not there."""
    absent = sorted(run.data.absent)
    return tag(
        "section",
        tag("h3", f"From a JPEG to a batch, step by step, {run.result.name}"),
        *to_page(figures(run)),
        tag("p", f"Not measured, because not installed: {joined(absent)}.") if absent else None,
    )


def figures(run: Measured[DecodingData]) -> Iterator[Figures]:
    """The groups, in the order measured."""
    data = run.data
    for group in dict.fromkeys(row.group for row in data.rows):
        yield _of_group([row for row in data.rows if row.group == group], data.captions.get(group, group))


def _of_group(rows: Sequence[DecodingRow], caption: str) -> Figures:
    """A line a candidate: milliseconds for every scale or size, and the largest of its differences."""
    places = list(dict.fromkeys(row.at for row in rows))
    views = list(dict.fromkeys(view for row in rows for view in row.difference_levels))
    sized = any(row.file_bytes for row in rows)
    lines: list[list[Child]] = []
    for what in dict.fromkeys(row.what for row in rows):
        found = {row.at: row for row in rows if row.what == what}
        cells = [digits(found[place].ms) if place in found else "–" for place in places]
        for view in views:
            levels = [row.difference_levels[view] for row in found.values() if view in row.difference_levels]
            cells.append(f"{max(levels):.2f}" if levels else "–")
        if sized:
            sizes = [row.file_bytes for row in found.values() if row.file_bytes]
            cells.append(digits(max(sizes) / 1000) if sizes else "–")
        lines.append([what, *cells])
    heads = ["", *(f"{place}, ms" for place in places), *(f"levels, {view}" for view in views)]
    counts = sorted({(row.n, row.visits) for row in rows})
    said = ", ".join(f"n {plain(n)}, {plain(visits)} visits" for n, visits in counts)
    return Figures(heads=[*heads, *(["kB a file"] if sized else [])], rows=lines, caption=f"{caption} ({said})")


def headlines(runs: Sequence[Measured[DecodingData]]) -> Iterator[str]:
    """The fastest and the slowest decoder of whole pictures."""
    for run in runs:
        decoders = run.data.decoders
        fastest, slowest = decoders[0], decoders[-1]
        yield (
            f"A whole {run.result.name} JPEG takes {milliseconds(fastest.ms)} to {milliseconds(slowest.ms)} to decode "
            f"on one core: the fastest of {len(decoders)} decoders is {fastest.what}, the slowest {slowest.what} "
            f"(n = {fastest.n})."
        )


KIND = Kind(
    name="decoding", place=70, read=DecodingData.from_dict, section=section, headlines=headlines, tables=figures
)
