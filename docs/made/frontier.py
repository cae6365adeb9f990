"""Owns docs/img/frontier.svg: published accuracy over measured time, drawn from a committed result.

Until there is one there is no picture, and no page shows one.
"""

from __future__ import annotations

from made.results import BENCHMARKS
from serve.bench.kinds.zoo import legend_of, points_of
from serve.bench.measure.frontier import FrontierData
from zoo.page.markup import tag
from zoo.page.picture import heading, render_picture
from zoo.page.scatter import scatter_drawing
from zoo.results import Result, read_results
from zoo.wording import plain_name, with_threads

# Of several results the one of most networks counts.
SHOWN = "zoo-*.json"
WIDTH, MARGIN, SCALE = 480, 32, 1.35
HEAD, FOOT = 128, 64


def chosen() -> tuple[Result, FrontierData] | None:
    """The committed result that the picture shows; None where there is none yet."""
    found = [(result, FrontierData.from_dict(result.data)) for result in read_results(BENCHMARKS.glob(SHOWN))]
    return max(found, key=lambda one: (len(one[1].rows), one[0].device), default=None)


def draw() -> str | None:
    """The picture: a point for every network, a dashed line through those that nothing beats."""
    found = chosen()
    if found is None:
        return None
    result, data = found
    drawing = scatter_drawing(
        points_of(data), title="", description="", legend=legend_of(data), width_px=WIDTH - 2 * MARGIN
    )
    keys = []
    for colour, family in drawing.legend:
        keys.append(tag("tspan", "■", class_=f"fill {colour}", dx=12 if keys else 0))
        keys.append(tag("tspan", family, dx=5))
    place = {"x": MARGIN, "y": HEAD, "width": drawing.width_px, "height": drawing.height_px}
    notes = (
        "Top-1 on ImageNet as published, %, over p50 here, ms, log scale.",
        "Dashed: nothing is both as fast and as accurate.",
    )
    bottom = HEAD + drawing.height_px
    parts = [
        *heading("Which network is worth its time?", conditions(result, data), WIDTH),
        tag("text", *keys, class_="tick", x=MARGIN, y=HEAD - 12),
        tag("svg", *drawing.parts, **place),
        *(tag("text", note, class_="tick", x=MARGIN, y=bottom + 22 + 18 * number) for number, note in enumerate(notes)),
    ]
    title = f"Accuracy over time, {', '.join(conditions(result, data))}"
    return render_picture(parts, title=title, width=WIDTH, height=bottom + FOOT, scale=SCALE)


def conditions(result: Result, data: FrontierData) -> list[str]:
    """What was measured on what, in two lines."""
    (subject,) = result.subjects
    threads = with_threads(subject.threads)
    return [
        f"{len(data.rows)} networks, each at its own size, batch {data.batch_size}, {subject.precision}",
        ", ".join(filter(None, (plain_name(result.device), threads, data.engine))),
    ]


def shown(rest: str, body: str) -> str:
    """The picture in a page, with the words of `rest`, where there is one."""
    return f"![{rest}](docs/img/frontier.svg)\n" if chosen() else ""
