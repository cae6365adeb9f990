"""Owns results grouped by the device that gave them, and what is said of each device; its kinds say it."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from typing import Any

from rich.markup import escape
from rich.table import Table

from serve.bench.kind import Kind, Measured, find_kinds, read_data
from zoo.page.figures import Figures
from zoo.results import UNSTABLE_ABOVE, Result
from zoo.wording import percent


@dataclass(frozen=True, kw_only=True)
class DeviceRuns:
    """Everything measured on one device: what was read of each kind, in the order a page shows it."""

    device: str
    kinds: list[tuple[Kind, list[Measured[Any]]]] = field(default_factory=list)

    def of(self, kind: str) -> list[Measured[Any]]:
        """What was read of one kind."""
        return next((runs for found, runs in self.kinds if found.name == kind), [])

    @property
    def results(self) -> list[Result]:
        """The results that were read."""
        return [run.result for _, runs in self.kinds for run in runs]


def group_by_device(results: Iterable[Result]) -> list[DeviceRuns]:
    """Read every result's data and group it, devices in alphabetical order.

    Raises:
        ZooError: a result whose data lacks what its kind holds.
    """
    read = [read_data(result) for result in results]
    return [
        DeviceRuns(
            device=device,
            kinds=[
                (kind, runs)
                for kind in find_kinds().values()
                if (runs := [run for of, run in read if of.name == kind.name and run.result.device == device])
            ],
        )
        for device in sorted({run.result.device for _, run in read})
    ]


def headlines(runs: DeviceRuns) -> list[str]:
    """Every sentence about one device, the most telling first; what makes figures doubtful stands before the others."""
    doubts = _doubts(runs)
    first, *others = [sentence for kind, of_kind in runs.kinds for sentence in kind.headlines(of_kind)] or [""]
    if len(runs.results) > 1 and doubts:  # the first sentence is a page's headline: it says what came out, and how well
        first, *doubts = f"{first} {doubts[0]}".strip(), *doubts[1:]
        sentences = [first, *doubts, *others]
    else:
        sentences = list(filter(None, [*doubts, first, *others]))
    summaries = [summary for kind, of_kind in runs.kinds for run in of_kind for summary in kind.summaries(run)]
    unstable = sum(summary.unstable for summary in summaries)
    if unstable:
        sentences.append(
            f"{unstable} of {len(summaries)} timings vary by more than {percent(UNSTABLE_ABOVE)} from call to call: "
            "trust their medians, not their last digits."
        )
    return sentences


def _doubts(runs: DeviceRuns) -> list[str]:
    """What must be known before the figures; of several results also how many of them are meant."""
    doubts = [(run.result, doubt) for kind, of_kind in runs.kinds for run in of_kind for doubt in kind.warnings(run)]
    if len(runs.results) == 1:
        return [doubt for _, doubt in doubts]
    doubtful = len({id(result) for result, _ in doubts})
    come = "comes" if doubtful == 1 else "come"
    summary = [f"Of {len(runs.results)} results {doubtful} {come} with a doubt, told below."] if doubts else []
    return summary + [f"{result.kind}, {result.name}: {doubt}" for result, doubt in doubts]


def terminal_lines(result: Result) -> Iterator[Table | str]:
    """A result for a terminal: its tables, then what it says."""
    kind, run = read_data(result)
    for table in kind.tables(run):
        yield table.to_terminal(result) if isinstance(table, Figures) else table
    yield ""
    for sentence in headlines(DeviceRuns(device=result.device, kinds=[(kind, [run])])):
        yield f"• {escape(sentence)}"
