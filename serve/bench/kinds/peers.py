"""Owns results of our networks beside the same ones of other projects; `benchmarks/peers.py` measures them."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Annotated, Literal

from serve.bench.kind import Kind, Measured
from zoo.page.charts import Bar, Group, bar_chart
from zoo.page.elements import pill
from zoo.page.figures import Figures, to_page
from zoo.page.markup import Markup, tag
from zoo.results import Summary
from zoo.rows import Count, Positive, Row, Some, Text
from zoo.wording import digits, joined, milliseconds, number_of, percent

EVEN_WITHIN = 0.02
PASSES = {
    "forward": "forward",
    "step": "forward and backward",
    "exported": "in ONNX Runtime",
    "exported-legacy": "in ONNX Runtime, theirs by the older exporter",
}
_COLOURS = {"faster": "good", "even": "even", "slower": "warning"}


@dataclass(frozen=True, kw_only=True)
class Ratio(Row):
    """Our time over theirs, the median of `n` rounds, and the interval that holds the true one with 95 %."""

    p50: Positive
    low: Positive
    high: Positive
    n: Count


@dataclass(frozen=True, kw_only=True)
class PeerRow(Row):
    """A network of ours and the same one of another project, with the same weights, in one pass.

    `threads` where a result has several numbers of them.
    """

    network: Text
    image_size: Count
    batch_size: Count
    peer: Text
    peer_name: Text
    mode: Text
    threads: Count | None = None
    ours_over_theirs: Ratio
    ours: Summary
    theirs: Summary

    @property
    def detail(self) -> str:
        """“224 px, batch 8, 2 threads”."""
        threads = f", {number_of(self.threads, 'thread')}" if self.threads else ""
        return f"{self.image_size} px, batch {self.batch_size}{threads}"

    @property
    def ratio(self) -> float:
        """Our time over theirs: below 1 we are faster."""
        return self.ours_over_theirs.p50

    @property
    def verdict(self) -> Literal["faster", "even", "slower"]:
        """Ours beside theirs; within 2 % is even, as medians of the same module timed twice differ by as much."""
        if abs(self.ratio - 1) <= EVEN_WITHIN:
            return "even"
        return "faster" if self.ratio < 1 else "slower"


@dataclass(frozen=True, kw_only=True)
class PeersData(Row):
    """Networks beside their twins of other projects, pair by pair in turn."""

    rows: Annotated[tuple[PeerRow, ...], Some()]

    @property
    def peers(self) -> str:
        """“torchvision and timm”: the other projects, in the order measured."""
        return joined(dict.fromkeys(row.peer for row in self.rows))


def section(run: Measured[PeersData]) -> Markup:
    """Ours beside the same networks of other projects: one group a network and pass, one bar a project."""
    groups: dict[tuple[str, str, str], list[Bar]] = {}
    for row in run.data.rows:
        bars = groups.setdefault((row.network, row.mode, row.detail), [])
        for name, summary, colour in (("zoo", row.ours, "series-1"), (row.peer, row.theirs, "series-4")):
            text = milliseconds(summary.p50_ms)
            spoken = f"{row.network} {row.mode}, {name} beside {row.peer}: {text}, n {summary.n}"
            bars.append(Bar(label=name, value=summary.p50_ms, text=text, colour=colour, spoken=spoken))
    chart = bar_chart(
        [
            Group(heading=f"{network}, {PASSES.get(mode, mode)}", detail=detail, bars=bars)
            for (network, mode, detail), bars in groups.items()
        ],
        title="The same network, written by others",
        description="Milliseconds per batch, median: the same weights, pictures, layout and device, call by call. The "
        "kernels are the same; what ours saves is memory: residual sums are written in place, and without gradients "
        "the product of squeeze-and-excitation.",
        axis="ms",
        legend=[("series-1", "zoo"), ("series-4", "the other project")],
    )
    title = f"Beside {run.data.peers}, {run.result.name}"
    return tag("section", tag("h3", title), chart, *to_page(figures(run)))


def figures(run: Measured[PeersData]) -> list[Figures]:
    """A line a pair and pass."""
    rows = []
    for row in run.data.rows:
        what = [row.network, row.peer_name, row.peer, PASSES.get(row.mode, row.mode)]
        figures = [digits(row.ours.p50_ms), digits(row.theirs.p50_ms), percent(row.ratio)]
        verdict, n = pill(row.verdict, _COLOURS[row.verdict]), f"{row.ours.n} + {row.theirs.n}"
        rows.append([*what, row.detail, *figures, verdict, n])
    heads = ("network", "there", "of", "pass", "size and batch", "ours ms", "theirs ms", "ours / theirs", "", "n")
    caption = "Medians; the ratio is taken round by round, as a pair was timed in turn"
    return [Figures(heads=heads, rows=rows, caption=caption, words=(0, 1, 2, 3, 4, 8))]


def headlines(runs: Sequence[Measured[PeersData]]) -> Iterator[str]:
    """The range of all ratios, and where we are slower."""
    for run in runs:
        ratios = [row.ratio for row in run.data.rows]
        slower = sum(row.verdict == "slower" for row in run.data.rows)
        worst = (
            f"slower than its twin by more than 2 % in {slower}" if slower else "nowhere slower than its twin by 2 %"
        )
        yield (
            f"Beside {run.data.peers} ({run.result.name}), over {len(ratios)} pairs, a network of the zoo takes "
            f"{percent(min(ratios))} to {percent(max(ratios))} of its twin's time: {worst}."
        )


KIND = Kind(
    name="peers",
    place=50,
    read=PeersData.from_dict,
    section=section,
    headlines=headlines,
    tables=figures,
    summaries=lambda run: [summary for row in run.data.rows for summary in (row.ours, row.theirs)],
)
