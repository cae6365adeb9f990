"""Owns results of servers under load; `serve.bench.measure.serving` measures them."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from serve.bench.kind import Kind, Measured
from serve.bench.measure.load import LoadRow
from serve.bench.measure.serving import NO_SERVER, ServeData
from zoo.page.curves import Band, Curve, curve_chart
from zoo.page.elements import plain
from zoo.page.figures import Figures, to_page
from zoo.page.markup import Markup, tag
from zoo.wording import digits, joined, milliseconds, percent

COLOURS = ("series-1", "series-2", "series-4", "series-3")


def section(run: Measured[ServeData]) -> Markup:
    """Latency against offered load, then a table for each kind of loop."""
    data = run.data
    versions = f" With {joined(data.versions)}." if data.versions else ""
    return tag(
        "section",
        tag("h3", f"Servers under load: {joined(data.servers)}"),
        tag("p", f"Each request carries {data.picture} ({plain(data.picture_bytes)} bytes).{versions}"),
        *_chart(data),
        *to_page(figures(run)),
    )


def _chart(data: ServeData) -> Iterator[Markup]:
    """p99 of what was answered, over the load offered, of the first servers."""
    curves = []
    for colour, server in zip(COLOURS, data.servers, strict=False):
        points = [(row.offered_per_s or 0.0, row.summary.p99_ms) for row in data.opened(server) if row.summary]
        if len(points) > 1:
            knee = data.knee(server)
            offered = [x for x, _ in points]
            dot = offered.index(knee.offered_per_s) if knee and knee.offered_per_s in offered else None
            curves.append(Curve(label=server, colour=colour, points=points, dot=dot))
    if not curves:
        return
    start, end = (edge(x for curve in curves for x, _ in curve.points) for edge in (min, max))
    if end > start:
        yield curve_chart(
            curves,
            [Band(start=start, end=end)],
            title="p99 of answered requests, ms, over requests offered per second",
            description="The dot is the highest load that a server kept up with.",
            unit=" ms",
            x_name="requests/s offered",
        ).as_figure()


def figures(run: Measured[ServeData]) -> Iterator[Figures]:
    """Closed loops and open loops, a line each."""
    data = run.data
    closed = [row for server in data.servers for row in data.closed(server)]
    if closed:
        yield Figures(
            heads=["server", "clients", "requests/s", "p50, ms", "p99, ms", "refused/s", "lost"],
            rows=[
                [
                    row.server,
                    str(row.clients),
                    digits(row.good_per_s),
                    *_times(row),
                    digits(row.refused_per_s),
                    str(row.lost),
                ]
                for row in closed
            ],
            caption="Clients that wait for each answer (closed loop)",
        )
    opened = [row for server in data.servers for row in data.opened(server)]
    if opened:
        yield Figures(
            heads=[
                "server", "of its best", "offered/s", "answered/s", "p50, ms", "p99, ms", "refused/s",
                "refusal p99, ms", "lost", "afterwards, ms",
            ],
            rows=[
                [
                    row.server,
                    f"{row.capacity_share:g}×" if row.capacity_share else "–",
                    digits(row.offered_per_s or 0.0),
                    digits(row.good_per_s),
                    *_times(row),
                    digits(row.refused_per_s),
                    "–" if row.refusals is None else digits(row.refusals.p99_ms),
                    str(row.lost),
                    digits(row.after_ms),
                ]
                for row in opened
            ],
            caption="Requests that come at random, whatever the server does (open loop)",
        )  # fmt: skip


def _times(row: LoadRow) -> list[str]:
    return ["–", "–"] if row.summary is None else [digits(row.summary.p50_ms), digits(row.summary.p99_ms)]


def headlines(runs: Sequence[Measured[ServeData]]) -> Iterator[str]:
    """The best rate of each server, and what the first does under the highest load."""
    for run in runs:
        data = run.data
        rates = joined(f"{server} {data.best_per_s(server):.0f}" for server in data.servers)
        yield f"Requests with a picture per second, in the best closed loop: {rates}."
        for server, ceiling in NO_SERVER.items():
            if best := data.best_per_s(ceiling):
                share = percent(data.best_per_s(server) / best)
                yield f"{server} reaches {share} of its decoding and inference in threads of their own ({ceiling})."
        first = data.servers[0]
        if over := [row for row in data.opened(first) if (row.capacity_share or 0.0) > 1.0 and row.summary]:
            worst = over[-1]
            assert worst.summary is not None
            yield (
                f"Offered {worst.capacity_share:g} times its best, {first} answers {worst.good_per_s:.0f} requests/s, "
                f"p99 {milliseconds(worst.summary.p99_ms)}, and refuses the rest."
            )


KIND = Kind(
    name="serve",
    place=90,
    read=ServeData.from_dict,
    section=section,
    headlines=headlines,
    tables=figures,
)
