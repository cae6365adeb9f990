"""Owns results of what the server itself costs; `benchmarks/hotpath.py` measures them."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from serve.bench.kind import Kind, Measured
from serve.bench.measure.hotpath import HotpathData
from zoo.page.figures import Figures, to_page
from zoo.page.markup import Markup, tag
from zoo.wording import digits, joined, milliseconds


def section(run: Measured[HotpathData]) -> Markup:
    """The loads, then what was measured beside something bare."""
    idle = run.data.idle_cpu_share
    return tag(
        "section",
        tag("h3", "What the server itself costs"),
        tag("p", "Client and server share the machine; what either spends on a request is processor time."),
        *to_page(figures(run)),
        tag("p", f"Without clients it takes {100 * idle:.2f} % of a core.") if idle is not None else None,
    )


def figures(run: Measured[HotpathData]) -> Iterator[Figures]:
    """A table for each kind of measurement."""
    data = run.data
    heads = ["", "clients", "requests/s", "p50, ms", "p99, ms", "server, µs each", "client, µs each", "wrong"]
    yield Figures(
        heads=heads,
        rows=[
            [
                row.name,
                str(row.clients),
                digits(row.per_s),
                digits(row.summary.p50_ms),
                digits(row.summary.p99_ms),
                digits(row.server_cpu_us),
                digits(row.client_cpu_us),
                digits(row.wrong),
            ]
            for row in data.loads
        ],
        caption="Around a network that only sleeps (closed loops)",
    )
    if data.beside:
        yield Figures(
            heads=["", "bare, ms", "served, ms", "server adds, ms", "times as fast", "n"],
            rows=[
                [
                    row.name,
                    digits(row.bare.p50_ms),
                    digits(row.served.p50_ms),
                    digits(row.overhead_ms),
                    digits(row.times_as_fast),
                    str(row.served.n),
                ]
                for row in data.beside
            ],
            caption="One client, p50",
        )
    if data.shares:
        yield Figures(
            heads=["", "bare, pictures/s", "served, pictures/s", "share", "turns"],
            rows=[
                [
                    row.name,
                    joined([digits(rate) for rate in row.bare_per_s]),
                    joined([digits(rate) for rate in row.served_per_s]),
                    f"{row.share:.3f}",
                    str(len(row.bare_per_s)),
                ]
                for row in data.shares
            ],
            caption="Full batches, in turns",
        )


def headlines(runs: Sequence[Measured[HotpathData]]) -> Iterator[str]:
    """The rates, and what the server adds."""
    for run in runs:
        rates = joined([f"{row.name} {row.per_s:.0f}" for row in run.data.loads])
        yield f"Requests per second that the server itself can take: {rates}."
        for row in run.data.beside:
            served, bare = milliseconds(row.served.p50_ms), milliseconds(row.bare.p50_ms)
            yield f"{row.name}: p50 {served} by the server, {bare} without."
        for share in run.data.shares:
            yield f"{share.name}: {100 * share.share:.0f} % of the rate without a server."


KIND = Kind(name="hotpath", place=91, read=HotpathData.from_dict, section=section, headlines=headlines, tables=figures)
