"""Owns results of training throughput; `zoo bench train` measures them, in a package that knows nothing of pages."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Annotated, Any

from serve.bench.kind import Kind, Measured, Timing
from serve.bench.measure.published import TRAINING, TRAINING_SOURCE
from serve.bench.measure.ratio import Ratio, paired_ratio
from zoo.measure.rounds import Rounds, disturbance
from zoo.page.charts import Bar, Group, bar_chart
from zoo.page.figures import SUMMARY_HEADS, Figures, spread, summary_cells, to_page
from zoo.page.markup import Child, Markup, tag
from zoo.results import Summary, percentile
from zoo.rows import Count, NotNegative, Positive, Row, Some, Text, field_types
from zoo.wording import count, digits, plain_name, times, with_threads

# Steps that follow one another are taken together, as a round: so many rounds of them, if there are as many steps.
_ROUNDS = 10


# The tracks of a row's rounds, as `train.learn.throughput` calls them.
OURS, THEIRS = "zoo", "timm"


@dataclass(frozen=True, kw_only=True)
class Twin(Row):
    """The same network of timm, which made the same steps in turn with ours; `samples_ms` as in `TrainingRow`."""

    network: Text
    ms_per_step: Summary
    samples_ms: tuple[NotNegative, ...] = ()


@dataclass(frozen=True, kw_only=True)
class TrainingRow(Row):
    """Training at one image size and batch.

    `rounds` has every step, of timm's network too, and what the machine did meanwhile. Files of older versions have
    none: some have `samples_ms`, the steps in their order. `peak_memory_bytes` is a GPU's, `peak_process_bytes` the
    most memory the process on a processor had until then.
    """

    image_size: Count
    batch_size: Count
    pictures_per_second: Positive
    ms_per_step: Summary
    rounds: Rounds | None = None
    samples_ms: tuple[NotNegative, ...] = ()
    peak_memory_bytes: Count | None = None
    peak_process_bytes: Count | None = None
    timm: Twin | None = None

    @property
    def memory(self) -> str:
        """“4.1 GB”, or nothing where nobody looked."""
        known = self.peak_memory_bytes or self.peak_process_bytes
        return f"{count(known)}B" if known else ""

    @property
    def ratio(self) -> Ratio | None:
        """The time of a step as a share of that of timm's network; None without it, or of too few steps."""
        if self.timm is None:
            return None
        if self.rounds:
            return paired_ratio(self.rounds.medians_ms(OURS), self.rounds.medians_ms(THEIRS))
        if len(self.samples_ms) < _ROUNDS:
            return None
        return paired_ratio(parts_of(self.samples_ms), parts_of(self.timm.samples_ms))

    @property
    def medians_ms(self) -> tuple[float, ...]:
        """The medians of the rounds, or of parts of the steps; none where the file has no steps."""
        return self.rounds.medians_ms(OURS) if self.rounds else parts_of(self.samples_ms)


@dataclass(frozen=True, kw_only=True)
class TooLarge(Row):
    """A size and a batch that did not fit into the memory."""

    image_size: Count
    batch_size: Count


@dataclass(frozen=True, kw_only=True)
class TrainingData(Row):
    """Training throughput at every stage's size, or at every size with every batch; the smallest size first."""

    written_too = ("quiet",)

    rows: Annotated[tuple[TrainingRow, ...], Some()]
    out_of_memory: tuple[TooLarge, ...] = ()
    gpu: Mapping[str, Any] | None = None
    gpu_reason: str = ""

    @property
    def _measured(self) -> list[Rounds]:
        return [row.rounds for row in self.rows if row.rounds]

    @property
    def quiet(self) -> bool | None:
        """Whether the machine was quiet throughout; None of files that do not say it."""
        return all(rounds.quiet for rounds in self._measured) if self._measured else None

    @property
    def warning(self) -> str:
        """What a headline has to say of a run that never was quiet."""
        return disturbance(self._measured)


def parts_of(samples_ms: Sequence[float]) -> tuple[float, ...]:
    """The medians of ten parts of the samples, each of steps that follow one another."""
    size = len(samples_ms) / _ROUNDS
    parts = [samples_ms[round(place * size) : round((place + 1) * size)] for place in range(_ROUNDS)]
    return tuple(percentile(sorted(part), 50) for part in parts if part)


def read(data: Mapping[str, Any]) -> TrainingData:
    """Read a result's data; of its rows what a page shows, as they have all facts of a recipe's stage besides."""
    needed = field_types(TrainingRow)
    rows = [{name: row[name] for name in needed if name in row} for row in data["rows"]]
    rows.sort(key=lambda row: (row["image_size"], row["batch_size"]))
    told = {name: data[name] for name in ("out_of_memory", "gpu", "gpu_reason") if name in data}
    return TrainingData.from_dict({"rows": rows} | told)


def section(run: Measured[TrainingData]) -> Markup:
    """Training throughput at each image size and batch, and beside it what the paper measured of the same network."""
    sizes = dict.fromkeys(row.image_size for row in run.data.rows)
    batches = {row.batch_size for row in run.data.rows}
    groups = []
    for size in sizes:
        bars = [_bar(row) for row in run.data.rows if row.image_size == size]
        groups.append(Group(heading=f"{size} px", bars=bars))
    told = "at the image size of each progressive stage" if len(batches) == 1 else "of every size with every batch"
    chart = bar_chart(groups, title="Training throughput", description=f"Pictures per second {told}.", axis="/s")
    doubt = tag("p", run.data.warning, class_="note warned") if run.data.warning else None
    return tag("section", tag("h3", f"Training {_label(run)}"), doubt, chart, *to_page(figures(run)))


def _bar(row: TrainingRow) -> Bar:
    rate = row.pictures_per_second
    spoken = f"{row.image_size} px, batch {row.batch_size}: {digits(rate)} pictures/s"
    return Bar(label=f"batch {row.batch_size}", value=rate, text=f"{digits(rate)}/s", colour="series-1", spoken=spoken)


def figures(run: Measured[TrainingData]) -> list[Figures]:
    """A line a size and batch; then what the paper measured of the same network."""
    rows = [_cells(row) for row in run.data.rows]
    some = [row for row in run.data.rows if row.timm]
    for one in run.data.out_of_memory:
        rows.append([f"{one.image_size} px", str(one.batch_size), "out of memory", *[""] * (len(SUMMARY_HEADS) + 1)])
    heads = ["image size", "batch", "pictures/s", "memory", *SUMMARY_HEADS]
    if some:
        heads.append("time of timm's")
        rows = [[*row, _beside(run.data, row)] for row in rows]
    tables = [Figures(heads=heads, rows=rows, caption="Milliseconds are of one step")]
    published = [one for one in TRAINING if one.model == run.result.settings.get("model")]
    if published:
        lines = [
            (one.device, f"{one.image_size} px", str(one.batch_size), digits(one.pictures_per_second or 0))
            if one.pictures_per_second
            else (one.device, f"{one.image_size} px", str(one.batch_size), "out of memory")
            for one in published
        ]
        caption = f"The same network in {TRAINING_SOURCE}"
        tables.append(Figures(heads=("device", "image size", "batch", "pictures/s"), rows=lines, caption=caption))
    return tables


def _cells(row: TrainingRow) -> list[Child]:
    rate = digits(row.pictures_per_second)
    cells = [f"{row.image_size} px", str(row.batch_size), rate, row.memory, *summary_cells(row.ms_per_step)]
    if row.rounds:  # what was disturbed is known: a wide spread alone is no reproach
        cells[-2] = spread(row.ms_per_step)
    return cells


def _beside(data: TrainingData, cells: Sequence[Child]) -> str:
    for row in data.rows:
        if [f"{row.image_size} px", str(row.batch_size)] == list(cells[:2]) and row.timm:
            return row.ratio.words() if row.ratio else times(row.ms_per_step.p50_ms / row.timm.ms_per_step.p50_ms)
    return ""


def headlines(runs: Sequence[Measured[TrainingData]]) -> Iterator[str]:
    """The throughput at the smallest and at the largest size, and beside timm's network."""
    for run in runs:
        first, last = run.data.rows[0], run.data.rows[-1]
        slowest, fastest = digits(last.pictures_per_second), digits(first.pictures_per_second)
        threads = with_threads(run.result.settings.get("threads"))
        where = f"In PyTorch on {plain_name(run.result.device)}{threads and f' ({threads})'}"
        said = f"{where}, training {_label(run)} takes in {fastest} pictures/s at {_place(first)}"
        if first.image_size == last.image_size:
            yield f"{said}."
        else:
            gain = first.pictures_per_second / last.pictures_per_second
            more = f": the smallest size runs {times(gain)} as fast as the largest." if gain > 1 else "."
            yield f"{said} and {slowest} at {_place(last)}{more}"
        compared = [f"{row.ratio.words()} at {_place(row)}" for row in run.data.rows if row.ratio]
        if compared:
            yield f"A step of it beside timm's network in the same loop: {', '.join(compared)}."
        yield from _unsettled(run)


def _place(row: TrainingRow) -> str:
    return f"{row.image_size} px, batch {row.batch_size}"


def _unsettled(run: Measured[TrainingData]) -> Iterator[str]:
    """What would settle the ratios that are unclear."""
    unclear = [row.ratio for row in run.data.rows if row.ratio and row.ratio.verdict == "unclear"]
    if unclear:
        longest = max(unclear, key=lambda ratio: ratio.longer or float("inf"))
        steps = int(run.result.settings.get("steps", 20))
        yield f"Where it is unclear, {longest.settled_by(steps, option='--steps')}."


def _label(run: Measured[TrainingData]) -> str:
    """What was trained: “s (folder, bf16)”, or the result's name where it does not say."""
    settings = run.result.settings
    known = [str(settings[key]) for key in ("recipe", "precision") if key in settings]
    model = settings.get("model")
    return f"{model} ({', '.join(known)})" if model and known else run.result.name


KIND = Kind(
    name="train",
    place=30,
    read=read,
    section=section,
    headlines=headlines,
    tables=figures,
    warnings=lambda run: filter(None, [run.data.warning]),
    summaries=lambda run: [row.ms_per_step for row in run.data.rows if not row.rounds],
    timings=lambda run: [
        Timing(
            subject=_label(run),
            setting=f"{row.image_size} px, batch {row.batch_size}",
            p50_ms=row.ms_per_step.p50_ms,
            round_p50_ms=medians,
        )
        for row in run.data.rows
        if (medians := row.medians_ms)
    ],
)
