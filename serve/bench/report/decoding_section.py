"""Owns the part of the page that shows what single operations on training pictures take; it measures nothing."""

from __future__ import annotations

from collections.abc import Sequence

from serve.bench.measure.decoding import DecodingRow
from serve.bench.report.measured import DecodingRun
from zoo.page.elements import plain, table
from zoo.page.markup import Child, Markup, tag
from zoo.wording import digits, joined


def decoding_section(run: DecodingRun) -> Markup:
    """One table a group, and which libraries were not there."""
    absent = f"Not measured, because not installed: {joined(run.absent)}." if run.absent else None
    return tag(
        "section",
        tag("h3", f"From a JPEG to a batch, step by step, {run.result.name}"),
        *(_group_table(rows, run.captions.get(group, group)) for group, rows in run.groups.items()),
        tag("p", absent) if absent else None,
    )


def _group_table(rows: Sequence[DecodingRow], caption: str) -> Markup:
    """A line a candidate: milliseconds for every scale or size, and the largest of its differences."""
    places = list(dict.fromkeys(row.at for row in rows))
    views = list(dict.fromkeys(view for row in rows for view in row.differences))
    sized = any(row.file_bytes for row in rows)
    lines: list[list[Child]] = []
    for what in dict.fromkeys(row.what for row in rows):
        found = {row.at: row for row in rows if row.what == what}
        cells = [digits(found[place].ms) if place in found else "–" for place in places]
        for view in views:
            levels = [row.differences[view] for row in found.values() if view in row.differences]
            cells.append(f"{max(levels):.2f}" if levels else "–")
        if sized:
            sizes = [row.file_bytes for row in found.values() if row.file_bytes]
            cells.append(digits(max(sizes) / 1000) if sizes else "–")
        lines.append([what, *cells])
    heads = ["", *(f"{place}, ms" for place in places), *(f"levels, {view}" for view in views)]
    counts = sorted({(row.n, row.visits) for row in rows})
    said = ", ".join(f"n {plain(n)}, {plain(visits)} visits" for n, visits in counts)
    return table([*heads, *(["kB a file"] if sized else [])], lines, caption=f"{caption} ({said})")
