"""Owns results of what an export takes, step by step: time and memory; `benchmarks/exporting.py` measures them."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from statistics import median
from typing import Annotated

from serve.bench.kind import Kind, Measured
from zoo.page.elements import plain
from zoo.page.figures import Figures, to_page
from zoo.page.markup import Markup, tag
from zoo.rows import Count, NotNegative, Row, Some, Text
from zoo.wording import digits


@dataclass(frozen=True, kw_only=True)
class Step(Row):
    """One step of an export: its words, the clock's seconds, the processor's, and the most memory held during it."""

    what: Text
    wall_s: NotNegative
    cpu_s: NotNegative
    peak_bytes: Count


@dataclass(frozen=True, kw_only=True)
class ExportRun(Row):
    """One export in a process of its own, from its start to its end; `peak_bytes` is the largest of the steps'."""

    written_too = ("wall_s", "cpu_s", "peak_bytes")

    steps: Annotated[tuple[Step, ...], Some()]

    @property
    def wall_s(self) -> float:
        """The clock's seconds."""
        return sum(step.wall_s for step in self.steps)

    @property
    def cpu_s(self) -> float:
        """The processor's seconds, of all threads."""
        return sum(step.cpu_s for step in self.steps)

    @property
    def peak_bytes(self) -> int:
        """The most memory that was held, resident."""
        return max(step.peak_bytes for step in self.steps)


@dataclass(frozen=True, kw_only=True)
class ExportingRow(Row):
    """One command, run several times; `built_by` is what built its plan, "" without one.

    `compared` pictures went through the gate, and 8 bits were calibrated on `calibrated` ones.
    """

    network: Text
    image_size: Count
    options: str
    threads: Count
    compared: Count
    calibrated: Count | None
    built_by: str
    onnx_bytes: Count
    runs: Annotated[tuple[ExportRun, ...], Some()]

    @property
    def command(self) -> str:
        """What a user types."""
        return f"zoo export {self.network} {self.options}".rstrip()

    @property
    def usual(self) -> ExportRun:
        """The run in the middle, by the processor's time."""
        return sorted(self.runs, key=lambda run: run.cpu_s)[len(self.runs) // 2]


@dataclass(frozen=True, kw_only=True)
class ExportingData(Row):
    """Commands, each measured."""

    rows: Annotated[tuple[ExportingRow, ...], Some()]


def section(run: Measured[ExportingData]) -> Markup:
    """A table a command, and one of all."""
    return tag("section", tag("h3", f"What an export takes, {run.result.name}"), *to_page(figures(run)))


def figures(run: Measured[ExportingData]) -> Iterator[Figures]:
    """All commands, a line each; then the steps of each, of the run in the middle."""
    lines = [
        [
            row.command,
            f"{row.image_size} px",
            row.built_by or "–",
            *_taken(
                median(each.wall_s for each in row.runs),
                median(each.cpu_s for each in row.runs),
                max(each.peak_bytes for each in row.runs),
            ),
            plain(len(row.runs)),
        ]
        for row in run.data.rows
    ]
    heads = ("command", "size", "built by", "clock, s", "processor, s", "memory, GB", "n")
    yield Figures(heads=heads, rows=lines, caption="medians; the memory is the most of all runs", words=(0, 2))
    for row in run.data.rows:
        steps = [[step.what, *_taken(step.wall_s, step.cpu_s, step.peak_bytes)] for step in row.usual.steps]
        caption = f"{row.command} at {row.image_size} px, step by step"
        yield Figures(heads=("step", "clock, s", "processor, s", "memory, GB"), rows=steps, caption=caption, words=(0,))


def _taken(wall_s: float, cpu_s: float, peak_bytes: int) -> tuple[str, str, str]:
    return digits(wall_s), digits(cpu_s), f"{peak_bytes / 1e9:.2f}"


def headlines(runs: Sequence[Measured[ExportingData]]) -> Iterator[str]:
    """What every command takes."""
    for run in runs:
        for row in run.data.rows:
            cpu, peak = median(each.cpu_s for each in row.runs), max(each.peak_bytes for each in row.runs)
            yield (
                f"`{row.command}` at {row.image_size} px takes {digits(cpu)} s of a processor and {peak / 1e9:.2f} GB "
                f"of memory (n = {len(row.runs)}), with {row.compared} pictures through the gate."
            )


KIND = Kind(
    name="exporting", place=87, read=ExportingData.from_dict, section=section, headlines=headlines, tables=figures
)
