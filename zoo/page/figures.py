"""Owns tables of figures, for a page and for a terminal, and how a summary of timings is shown; it computes nothing."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from html import unescape

from rich.markup import escape
from rich.table import Table

from zoo.console import FittingTable
from zoo.page.elements import pill, table
from zoo.page.markup import Child, Markup, join
from zoo.results import Result, Summary
from zoo.wording import digits_or_dash, plain_name

SUMMARY_HEADS = ("p50 ms", "p90 ms", "p99 ms", "variation", "n")
SERIES = ("series-1", "series-2", "series-3", "series-4")


@dataclass(frozen=True, kw_only=True)
class Figures:
    """The figures of a result, for a page and for a terminal; the columns in `words` are text, the others figures."""

    heads: Sequence[str]
    rows: Sequence[Sequence[Child]]
    caption: str
    words: Sequence[int] = (0,)

    def to_terminal(self, result: Result) -> Table:
        """A table of a terminal, whose title names the device."""
        drawn = empty_table(f"{plain_name(result.device)} · {self.caption}", self.heads, self.words)
        for row in self.rows:
            drawn.add_row(*(escape(unescape(re.sub(r"<[^>]+>", "", join(cell)))) for cell in row))
        return drawn


def to_page(figures: Iterable[Figures]) -> list[Markup]:
    """Figures as tables of a page."""
    return [table(each.heads, each.rows, caption=each.caption, words=each.words) for each in figures]


def empty_table(title: str, heads: Sequence[str], words: Sequence[int]) -> Table:
    """A table of a terminal without its rows; the columns in `words` are text, the others figures."""
    drawn = FittingTable(title=escape(title))
    for index, head in enumerate(heads):
        is_text = index in words
        drawn.add_column(escape(head), justify="left" if is_text else "right", no_wrap=not is_text)
    return drawn


def summary_cells(summary: Summary) -> list[Child]:
    """p50, p90, p99, spread and n of a measurement, as cells of `SUMMARY_HEADS`."""
    values = (summary.p50_ms, summary.telling_p90_ms, summary.telling_p99_ms)
    return [*map(digits_or_dash, values), variation(summary), f"{summary.n:,}"]


def marks(summary: Summary) -> tuple[tuple[str, float], ...]:
    """p90 and p99 as ticks of a bar, as far as there are samples enough for them."""
    known = (("p90", summary.telling_p90_ms), ("p99", summary.telling_p99_ms))
    return tuple((name, value) for name, value in known if value is not None)


def variation(summary: Summary) -> Markup:
    """The coefficient of variation, marked where trtexec would warn of it."""
    share = spread(summary)
    return join(pill("unstable", "warning"), " ", share) if summary.unstable else join(share)


def spread(summary: Summary) -> str:
    """The coefficient of variation as it is: “2.1 %”."""
    return f"{summary.coefficient_of_variation * 100:.1f} %"
