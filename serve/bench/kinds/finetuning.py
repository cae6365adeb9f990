"""Owns results of the default command beside peers in the same time; `benchmarks/finetuning.py` measures them."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from statistics import median
from typing import Annotated

from serve.bench.kind import Kind, Measured
from zoo.errors import RowError
from zoo.intervals import difference_interval, share_interval
from zoo.page.charts import Bar, Group, bar_chart
from zoo.page.figures import Figures, to_page
from zoo.page.markup import Markup, tag
from zoo.rows import CountOrNone, Matching, Positive, Row, Some, Text, Within
from zoo.wording import duration

Points = Annotated[float, Within(-101, 101)]  # an interval may reach a little beyond what can be
# What `benchmarks/finetuning.py` calls the default command, and it again in half the time.
OURS, OURS_HALF = "zoo train", "zoo train, half the time"
COLOURS = ("series-1", "series-2", "series-3", "series-4")


@dataclass(frozen=True, kw_only=True)
class TrainedRow(Row):
    """One run: who trained on which split of which set, in how many seconds, and which test pictures it has right."""

    contender: Text
    data: Text
    seed: CountOrNone
    seconds: Positive
    right: Annotated[str, Matching("[01]+", "a 1 for each picture that is right, else a 0")]

    @property
    def top1(self) -> float:
        """Accuracy on the test pictures, 0…1."""
        return self.right.count("1") / len(self.right)


@dataclass(frozen=True, kw_only=True)
class Difference(Row):
    """How much better than a peer the first contender is on one set, in points, with its 95 % interval."""

    points: Points
    low: Points
    high: Points

    @property
    def verdict(self) -> str:
        """What the interval allows to say."""
        return "better" if self.low > 0 else "worse" if self.high < 0 else "no difference shown"


@dataclass(frozen=True, kw_only=True)
class FinetuningData(Row):
    """Contenders that were trained on the same splits; every one has every split. The first is ours."""

    rows: Annotated[tuple[TrainedRow, ...], Some()]

    def __post_init__(self) -> None:
        super().__post_init__()
        splits = {tuple((row.data, row.seed, len(row.right)) for row in self.of(name)) for name in self.contenders}
        if len(splits) != 1:
            raise RowError("contenders with different splits.")

    @property
    def contenders(self) -> list[str]:
        """Their names, in the order measured."""
        return list(dict.fromkeys(row.contender for row in self.rows))

    @property
    def sets(self) -> list[str]:
        """The sets' names, in the order measured."""
        return list(dict.fromkeys(row.data for row in self.rows))

    def of(self, contender: str, data: str | None = None) -> list[TrainedRow]:
        """The runs of a contender, on one set or on all, by set and seed."""
        found = (row for row in self.rows if row.contender == contender and data in (None, row.data))
        return sorted(found, key=lambda row: (row.data, row.seed))

    def right(self, contender: str, data: str) -> list[bool]:
        """Which test pictures of all splits of a set it has right."""
        return [answer == "1" for row in self.of(contender, data) for answer in row.right]

    def difference(self, ours: str, peer: str, data: str) -> Difference:
        """Paired picture by picture, over the splits of a set."""
        pairs = list(zip(self.right(ours, data), self.right(peer, data), strict=True))
        lost, gained = (sum(one < other for one, other in pairs), sum(one > other for one, other in pairs))
        low, high = difference_interval(lost, gained, len(pairs))
        return Difference(points=100 * (gained - lost) / len(pairs), low=100 * low, high=100 * high)


def section(run: Measured[FinetuningData]) -> Markup:
    """Accuracy of every contender on every set, and a table with the differences."""
    data, groups = run.data, []
    for name in data.sets:
        bars = []
        for place, contender in enumerate(data.contenders):
            right = data.right(contender, name)
            low, high = share_interval(sum(right), len(right))
            share = 100 * sum(right) / len(right)
            bars.append(
                Bar(
                    label=contender,
                    value=share,
                    text=f"{share:.1f}",
                    colour=COLOURS[min(place // 2 if place < 2 else place - 1, len(COLOURS) - 1)],
                    spoken=f"{name}, {contender}: {share:.1f} %",
                    low=100 * low,
                    high=100 * high,
                )
            )
        groups.append(Group(heading=f"{name}, {len(data.of(data.contenders[0], name))} splits", bars=bars))
    chart = bar_chart(
        groups,
        title="Accuracy in the same time",
        description="Test pictures of all splits together; whiskers are 95 % intervals.",
        axis="%",
    )
    return tag("section", tag("h3", f"In the same time, {run.result.name}"), chart, *to_page(figures(run)))


def figures(run: Measured[FinetuningData]) -> list[Figures]:
    """A line a set and contender, with how much better ours is."""
    data, rows = run.data, []
    ours = data.contenders[0]
    for name in data.sets:
        for contender in data.contenders:
            runs = data.of(contender, name)
            each = ", ".join(f"{100 * row.top1:.1f}" for row in runs)
            right = data.right(contender, name)
            difference = data.difference(ours, contender, name)
            ahead = f"{difference.points:+.1f} ({difference.low:+.1f} … {difference.high:+.1f})"
            known = contender != ours
            rows.append(
                [
                    name,
                    contender,
                    f"{100 * sum(right) / len(right):.1f}",
                    each,
                    duration(median(row.seconds for row in runs)),
                    ahead if known else "–",
                    difference.verdict if known else "–",
                    str(len(runs)),
                ]
            )
    heads = ("set", "contender", "top-1, %", "of each split", "time", f"{ours} ahead by, points", "95 %", "n")
    caption = "Time is of the whole process, the median; differences are paired picture by picture"
    return [Figures(heads=heads, rows=rows, caption=caption, words=(0, 1, 3, 6))]


def headlines(runs: Sequence[Measured[FinetuningData]]) -> Iterator[str]:
    """How ours stands against each contender, by sets; in half the time too."""
    for run in runs:
        data = run.data
        ours = data.contenders[0]
        yield from (_standing(run, ours, peer) for peer in data.contenders[1:])
        if OURS_HALF in data.contenders:
            peers = [peer for peer in data.contenders if not peer.startswith(OURS)]
            yield from (_standing(run, OURS_HALF, peer) for peer in peers)


def _standing(run: Measured[FinetuningData], ours: str, peer: str) -> str:
    verdicts = [run.data.difference(ours, peer, name).verdict for name in run.data.sets]
    counted = ", ".join(f"{verdict} on {verdicts.count(verdict)}" for verdict in dict.fromkeys(verdicts))
    return f"{run.result.name}: against {peer}, {ours} is {counted} of {len(run.data.sets)} sets."


KIND = Kind(
    name="finetuning", place=35, read=FinetuningData.from_dict, section=section, headlines=headlines, tables=figures
)
