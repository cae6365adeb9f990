"""Owns results of one network in several back ends: time and accuracy; `benchmarks/backends.py` measures them."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Annotated

from serve.bench.kind import Kind, Measured
from serve.bench.kinds.peers import Ratio
from zoo.errors import RowError
from zoo.page.elements import pill
from zoo.page.figures import Figures, to_page
from zoo.page.markup import Child, Markup, tag
from zoo.results import Summary
from zoo.rows import Count, NotNegative, Row, Share, Some, Text
from zoo.wording import digits, milliseconds, percent


@dataclass(frozen=True, kw_only=True)
class BackendRow(Row):
    """One network in one back end: a batch from uint8 pictures to answers, and how far the answers are from PyTorch's.

    `over_baseline` is its time over that of the baseline, call by call in turn; errors are shares of the largest logit
    over `pictures` pictures, and `failures` the bounds of the gate that they broke, None where none was held. With
    `random_weights` the agreement says nothing of trained ones.
    """

    network: Text
    image_size: Count
    batch_size: Count
    random_weights: bool
    backend: Text
    version: Text
    precision: Text
    latency: Summary
    over_baseline: Ratio
    relative_max_error: NotNegative
    relative_mean_error: NotNegative
    top1_agreement: Share
    pictures: Count
    failures: tuple[str, ...] | None = None


@dataclass(frozen=True, kw_only=True)
class BackendsData(Row):
    """Rows, the back end that the others are compared with, what the pictures are, and what was absent, and why."""

    rows: Annotated[tuple[BackendRow, ...], Some()]
    baseline: Text
    source: Text
    absent: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        super().__post_init__()
        for network in dict.fromkeys(row.network for row in self.rows):
            if not any(row.backend == self.baseline for row in self.rows if row.network == network):
                raise RowError(f"{network} was not measured in {self.baseline}, the baseline.")


def section(run: Measured[BackendsData]) -> Markup:
    """One table a network."""
    return tag(
        "section",
        tag("h3", f"The same network in other back ends, {run.result.name}"),
        *to_page(figures(run)),
        tag("p", f"Not measured: {'; '.join(run.data.absent)}.") if run.data.absent else None,
    )


def figures(run: Measured[BackendsData]) -> Iterator[Figures]:
    """A line a back end, in the order measured."""
    data = run.data
    heads = (
        "back end",
        "computes in",
        "ms",
        f"/ {data.baseline}",
        "max error",
        "mean error",
        "same class",
        "gate",
        "n",
    )
    for network in dict.fromkeys(row.network for row in data.rows):
        rows = [row for row in data.rows if row.network == network]
        lines = [
            [
                row.backend,
                row.precision,
                digits(row.latency.p50_ms),
                f"{row.over_baseline.p50:.2f} ({row.over_baseline.low:.2f} – {row.over_baseline.high:.2f})",
                f"{row.relative_max_error:.1e}",
                f"{row.relative_mean_error:.1e}",
                percent(row.top1_agreement),
                _verdict(row),
                str(row.latency.n),
            ]
            for row in rows
        ]
        first = rows[0]
        weights = "random weights" if first.random_weights else "trained weights"
        caption = (
            f"{network}, {weights}, {first.image_size} px, batch {first.batch_size}; medians, call by call in turn. "
            f"Errors are shares of the largest logit, beside PyTorch on {first.pictures} {data.source}"
        )
        yield Figures(heads=heads, rows=lines, caption=caption, words=(0, 1))


def _verdict(row: BackendRow) -> Child:
    if row.failures is None:
        return "–"
    return pill("failed", "warning") if row.failures else pill("passed", "good")


def headlines(runs: Sequence[Measured[BackendsData]]) -> Iterator[str]:
    """The fastest back end of each network, of those that pass the gate, and what it costs."""
    for run in runs:
        data = run.data
        for network in dict.fromkeys(row.network for row in data.rows):
            rows = [row for row in data.rows if row.network == network]
            best = min([row for row in rows if not row.failures] or rows, key=lambda row: row.over_baseline.p50)
            where = f"{best.backend}{' in int8' if 'int8' in best.precision else ''}"
            named = f"{network} with random weights" if best.random_weights else network
            yield (
                f"{named} at {best.image_size} px is fastest in {where}: {milliseconds(best.latency.p50_ms)} "
                f"for a batch of {best.batch_size}, {percent(best.over_baseline.p50)} of the time in {data.baseline} "
                f"(n = {best.latency.n}); the same first class as PyTorch on {percent(best.top1_agreement)} of "
                f"{best.pictures} pictures."
            )


KIND = Kind(
    name="backends",
    place=45,
    read=BackendsData.from_dict,
    section=section,
    headlines=headlines,
    tables=figures,
    summaries=lambda run: [row.latency for row in run.data.rows],
)
